// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm -libverbs
// headers: ../../../plugins/gpu/guest ../../../plugins/rdma/guest
/*
 * usage: many-dmabufs GPU OTHER DEVICE PEER COUNT BYTES SEED
 *
 * COUNT buffers of VRAM, each exported, imported by another GPU and registered with an adapter. Each gets a pattern
 * of its own by RDMA, which the other GPU's SDMA reads back. Then everything is taken down in random order:
 * descriptor, importers, exporter. Prints one JSON object.
 */
#define _GNU_SOURCE
#include "amdgpu-kit.h"
#include "dmabuf-kit.h"
#include "verbs-kit.h"

#define MAX_COUNT 1024
#define PARTS 4

struct shared {
	struct buffer exported, imported;
	struct ibv_mr *mr;
	int dmabuf;
};

static struct gpu gpus[2];
static struct end dmabuf, plain;
static struct shared shares[MAX_COUNT];

static struct shared share(uint64_t bytes)
{
	struct shared shared = { .exported = make_buffer(&gpus[0], bytes, AMDGPU_GEM_DOMAIN_VRAM) };
	uint32_t fd;

	if (amdgpu_bo_export(shared.exported.handle, amdgpu_bo_handle_type_dma_buf_fd, &fd) ||
	    try_import(&shared.imported, &gpus[1], (int)fd, bytes))
		fail("cannot share a buffer");
	shared.dmabuf = (int)fd;
	shared.mr = ibv_reg_dmabuf_mr(dmabuf.pd, 0, bytes, 0, shared.dmabuf, ACCESS);
	if (!shared.mr)
		refused("register", errno);
	return shared;
}

static void write_by_rdma(struct shared *shared, uint64_t bytes, uint32_t pass)
{
	dmabuf.mr = shared->mr;
	dmabuf_write((void *)plain.start, 0, bytes, pass);
	rdma(&plain, &dmabuf, IBV_WR_RDMA_WRITE, bytes, "WRITE");
}

static uint64_t wrong_by_gpu(struct shared *shared, struct buffer *own, uint32_t pass)
{
	struct commands commands = begin(&gpus[1]);

	sdma_copy(&commands, own->va, shared->imported.va, own->bytes);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ own, &shared->imported }, 2);
	return dmabuf_wrong(own->cpu, 0, own->bytes, pass);
}

static void take_down(struct shared *shared, int part)
{
	switch (part) {
	case 0:
		free_buffer(&shared->exported);
		break;
	case 1:
		free_buffer(&shared->imported);
		break;
	case 2:
		if (ibv_dereg_mr(shared->mr))
			fail("cannot deregister: %s", strerror(errno));
		break;
	default:
		close(shared->dmabuf);
	}
}

/* Every part of every buffer, in an order that the seed decides (Fisher and Yates). */
static void take_all_down(int count, uint32_t seed)
{
	static int order[MAX_COUNT * PARTS];

	srandom(seed);
	for (int i = 0; i < count * PARTS; i++) {
		int other = (int)(random() % (i + 1));

		order[i] = order[other];
		order[other] = i;
	}
	for (int i = 0; i < count * PARTS; i++)
		take_down(&shares[order[i] / PARTS], order[i] % PARTS);
}

int main(int argc, char **argv)
{
	struct buffer own;
	uint64_t bytes, wrong = 0;
	int count;

	if (argc != 8)
		fail("usage: many-dmabufs GPU OTHER DEVICE PEER COUNT BYTES SEED");
	if (open_gpus(&gpus[0], 1, argv[1]) != 1 || open_gpus(&gpus[1], 1, argv[2]) != 1)
		fail("two GPUs with render nodes of amdgpu are needed");
	dmabuf = make_end(argv[3]);
	plain = make_end(argv[4]);
	count = atoi(argv[5]);
	bytes = parse_bytes(argv[6]);
	if (count < 1 || count > MAX_COUNT)
		fail("1 to %d buffers", MAX_COUNT);
	register_plain(&plain, bytes);
	connect_end(&dmabuf, &plain);
	connect_end(&plain, &dmabuf);
	own = make_buffer(&gpus[1], bytes, AMDGPU_GEM_DOMAIN_VRAM);
	for (int i = 0; i < count; i++)
		shares[i] = share(bytes);
	for (int i = 0; i < count; i++)
		write_by_rdma(&shares[i], bytes, (uint32_t)i + 1);
	for (int i = 0; i < count; i++)
		wrong += wrong_by_gpu(&shares[i], &own, (uint32_t)i + 1);
	take_all_down(count, (uint32_t)strtoul(argv[7], NULL, 0));
	printf("{\"buffers\":%d,\"wrong\":%" PRIu64 "}\n", count, wrong);
	return wrong != 0;
}
