// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: amdgpu-import FD BYTES SEED
 *
 * Imports the dma-buf that some other device exported as descriptor FD: SDMA copies it into VRAM, where it must hold
 * pattern 1 of SEED, and then writes pattern 2 from VRAM into it. Exits with 0 when it went well.
 */
#include "amdgpu-kit.h"

static void copy(struct gpu *gpu, struct buffer *to, struct buffer *from)
{
	struct commands commands = begin(gpu);

	sdma_copy(&commands, to->va, from->va, to->bytes);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ to, from }, 2);
}

int main(int argc, char **argv)
{
	struct buffer imported, own;
	uint64_t wrong, first = 0;
	uint32_t seed;
	struct gpu gpu;
	int error;

	if (argc != 4)
		fail("usage: amdgpu-import FD BYTES SEED");
	seed = (uint32_t)strtoul(argv[3], NULL, 0);
	if (open_gpus(&gpu, 1, NULL) != 1)
		fail("there is no AMD GPU");
	error = try_import(&imported, &gpu, atoi(argv[1]), parse_bytes(argv[2]));
	if (error)
		fail("importing the dma-buf: %s", strerror(-error));
	own = make_buffer(&gpu, imported.bytes, AMDGPU_GEM_DOMAIN_VRAM);
	copy(&gpu, &own, &imported);
	wrong = wrong_bytes(own.cpu, own.bytes, seed, 1, &first);
	if (wrong)
		fail("%" PRIu64 " bytes are wrong, the first at offset %" PRIu64, wrong, first);
	write_pattern(own.cpu, own.bytes, seed, 2);
	copy(&gpu, &imported, &own);
	free_buffer(&own);
	return 0;
}
