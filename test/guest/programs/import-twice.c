// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm -libverbs
// headers: ../../../plugins/gpu/guest ../../../plugins/rdma/guest
/*
 * usage: export-... --twice ARGUMENT... import-twice GPU DEVICE PEER BYTES ROUNDS
 *
 * Two importers at once of the same memory, as descriptors 3 and 5 show it (two dma-bufs, or one twice): what the
 * GPU's SDMA writes through one, the adapter reads through the other, and the other way round. Meanwhile the other
 * engine is at work, too. Prints one JSON object a line.
 */
#define _GNU_SOURCE
#include "amdgpu-kit.h"
#include "dmabuf-kit.h"
#include "verbs-kit.h"

static void copy(struct buffer *to, struct buffer *from)
{
	struct commands commands = begin(to->gpu);

	sdma_copy(&commands, to->va, from->va, to->bytes);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ to, from }, 2);
}

int main(int argc, char **argv)
{
	struct end dmabuf, plain;
	struct buffer imported, own;
	struct gpu gpu;
	uint64_t bytes, wrong = 0;
	int rounds, error;

	if (argc != 6)
		fail("usage: export-... --twice ARGUMENT... import-twice GPU DEVICE PEER BYTES ROUNDS");
	bytes = parse_bytes(argv[4]);
	rounds = atoi(argv[5]);
	if (open_gpus(&gpu, 1, argv[1]) != 1)
		fail("%s has no render node of amdgpu", argv[1]);
	error = try_import(&imported, &gpu, DMABUF_FD, bytes);
	if (error)
		refused("import", -error);
	own = make_buffer(&gpu, bytes, AMDGPU_GEM_DOMAIN_VRAM);
	register_ends(&dmabuf, &plain, argv + 2, SECOND_DMABUF_FD, bytes);
	for (int round = 1; round <= rounds; round++) {
		dmabuf_write(own.cpu, 0, bytes, 2 * (uint32_t)round);
		copy(&imported, &own);
		rdma(&plain, &dmabuf, IBV_WR_RDMA_READ, bytes, "READ of what the GPU wrote");
		wrong += dmabuf_wrong((void *)plain.start, 0, bytes, 2 * (uint32_t)round);
		dmabuf_write((void *)plain.start, 0, bytes, 2 * (uint32_t)round + 1);
		post_rdma(&plain, &dmabuf, IBV_WR_RDMA_WRITE, bytes);
		/* Both at once: the GPU may see old or new words, but no others. */
		copy(&own, &imported);
		completion(&plain, "WRITE while the GPU reads");
		copy(&own, &imported);
		wrong += dmabuf_wrong(own.cpu, 0, bytes, 2 * (uint32_t)round + 1);
	}
	step_done("both", bytes, wrong + exporter_compares(2 * (uint32_t)rounds + 1, 0, bytes, 0));
	free_buffer(&imported);
	free_buffer(&own);
	free_end(&dmabuf);
	free_end(&plain);
	finished();
	return 0;
}
