// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: fence-pingpong GPU OTHER BYTES ROUNDS
 *
 * Two GPUs pass a dma-buf back and forth, and nobody waits for a fence in between: the first one's SDMA writes it, the
 * other one's job, submitted at once, must wait by itself (implicit synchronization, drm/amdgpu/amdgpu_sync.c) and read
 * what was written; then the other way round. Each round has a pattern of its own, which the CPU compares. Every few
 * rounds poll() on the dma-buf has to say that it is busy, and then that it is not. Prints one JSON object.
 */
#define _GNU_SOURCE
#include <poll.h>

#include "amdgpu-kit.h"
#include "dmabuf-kit.h"

#define POLL_TIMEOUT_MS 60000

/* Jobs of one GPU, each in a command buffer that is written once. */
struct job {
	struct commands commands;
	struct buffer *buffers[2];
};

static struct job make_job(struct buffer *to, struct buffer *from)
{
	struct job job = { .commands = begin(to->gpu), .buffers = { to, from } };

	sdma_copy(&job.commands, to->va, from->va, to->bytes);
	return job;
}

static struct amdgpu_cs_fence start(struct job *job)
{
	struct gpu *gpu = job->commands.ib.gpu;
	amdgpu_bo_handle handles[] = { job->commands.ib.handle, job->buffers[0]->handle, job->buffers[1]->handle };
	struct amdgpu_cs_ib_info ib = { .ib_mc_address = job->commands.ib.va, .size = job->commands.count };
	struct amdgpu_cs_request request = { .ip_type = AMDGPU_HW_IP_DMA, .number_of_ibs = 1, .ibs = &ib };
	int error = amdgpu_bo_list_create(gpu->device, 3, handles, NULL, &request.resources);

	if (!error)
		error = amdgpu_cs_submit(gpu->context, 0, &request, 1);
	if (error)
		fail("%s: cannot submit: %s", gpu->address, strerror(-error));
	amdgpu_bo_list_destroy(request.resources);
	return (struct amdgpu_cs_fence){ .context = gpu->context, .ip_type = AMDGPU_HW_IP_DMA, .fence = request.seq_no };
}

static void wait_for(struct amdgpu_cs_fence fence)
{
	uint32_t expired = 0;
	int error = amdgpu_cs_query_fence_status(&fence, FENCE_TIMEOUT_NS, 0, &expired);

	if (error || !expired)
		fail("a fence stalls: %s", error ? strerror(-error) : "timed out");
}

static bool ready(int dmabuf, int timeout_ms)
{
	struct pollfd wish = { .fd = dmabuf, .events = POLLOUT };

	return poll(&wish, 1, timeout_ms) == 1 && wish.revents & POLLOUT;
}

/* The exporter's GPU and the importer's, with the shared buffer as each one sees it. */
struct side {
	struct gpu gpu;
	struct buffer shared, source, target;
	struct job put, get;
};

static void make_jobs(struct side *side)
{
	side->source = make_buffer(&side->gpu, side->shared.bytes, AMDGPU_GEM_DOMAIN_GTT);
	side->target = make_buffer(&side->gpu, side->shared.bytes, AMDGPU_GEM_DOMAIN_GTT);
	side->put = make_job(&side->shared, &side->source);
	side->get = make_job(&side->target, &side->shared);
}

static void open_side(struct side *side, const char *address)
{
	if (open_gpus(&side->gpu, 1, address) != 1)
		fail("%s has no render node of amdgpu", address);
}

/* One writes, the other reads; only at the end of all is there a wait. Returns wrong bytes. */
static uint64_t pass_over(struct side *from, struct side *to, uint32_t pass)
{
	uint64_t bytes = from->shared.bytes;

	dmabuf_write(from->source.cpu, 0, bytes, pass);
	start(&from->put);
	wait_for(start(&to->get));
	return dmabuf_wrong(to->target.cpu, 0, bytes, pass);
}

int main(int argc, char **argv)
{
	static struct side first, second;
	uint64_t wrong = 0, busy = 0;
	uint32_t dmabuf;
	int rounds;

	if (argc != 5)
		fail("usage: fence-pingpong GPU OTHER BYTES ROUNDS");
	rounds = atoi(argv[4]);
	open_side(&first, argv[1]);
	open_side(&second, argv[2]);
	first.shared = make_buffer(&first.gpu, parse_bytes(argv[3]), AMDGPU_GEM_DOMAIN_VRAM);
	if (amdgpu_bo_export(first.shared.handle, amdgpu_bo_handle_type_dma_buf_fd, &dmabuf) ||
	    try_import(&second.shared, &second.gpu, (int)dmabuf, first.shared.bytes))
		fail("cannot share the buffer");
	make_jobs(&first);
	make_jobs(&second);
	for (int round = 0; round < rounds; round++) {
		struct side *from = round % 2 ? &second : &first;
		struct side *to = round % 2 ? &first : &second;

		wrong += pass_over(from, to, (uint32_t)round + 1);
		start(&from->put);
		busy += !ready((int)dmabuf, 0);
		if (!ready((int)dmabuf, POLL_TIMEOUT_MS))
			fail("poll() on the dma-buf stalls in round %d", round);
	}
	printf("{\"rounds\":%d,\"wrong\":%" PRIu64 ",\"busy\":%" PRIu64 "}\n", rounds, wrong, busy);
	return wrong != 0;
}
