// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: amdgpu-copy [--bytes SIZE] [ADDRESS]
 *
 * Exercises one GPU with the stock driver: buffers in VRAM and in system memory, copies and fills by
 * SDMA, copies by every compute ring (DMA_DATA packets), fences by interrupt. Compares every byte.
 * Prints KTAP; exits with 0 when every case passed.
 */
#include "amdgpu-cases.h"

#define COMPUTE_RINGS 8

/* VRAM and system memory in every combination; each copy goes to a buffer that held something else. */
static void test_sdma(struct gpu *gpu, uint64_t bytes)
{
	static const char *const names[] = { "system memory", "VRAM" };
	static const uint32_t domains[] = { AMDGPU_GEM_DOMAIN_GTT, AMDGPU_GEM_DOMAIN_VRAM };

	for (uint32_t i = 0; i < 4; i++) {
		struct buffer from = make_buffer(gpu, bytes, domains[i & 1]);
		struct buffer to = make_buffer(gpu, bytes, domains[i >> 1]);
		char what[64];

		write_pattern(from.cpu, bytes, i, 1);
		write_pattern(to.cpu, bytes, i, 2);
		copy(&to, &from);
		snprintf(what, sizeof(what), "SDMA copies %s to %s", names[i & 1], names[i >> 1]);
		report(holds(&to, i, 1) && holds(&from, i, 1), what);
		free_buffer(&to);
		free_buffer(&from);
	}
}

static void test_fill(struct gpu *gpu, uint64_t bytes)
{
	struct buffer buffer = make_buffer(gpu, bytes, AMDGPU_GEM_DOMAIN_VRAM);
	struct commands commands = begin(gpu);
	const uint32_t *dwords = buffer.cpu;
	bool good = true;

	write_pattern(buffer.cpu, bytes, 5, 1);
	sdma_fill(&commands, buffer.va + 4096, 0x12345678, bytes - 8192);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ &buffer }, 1);
	for (uint64_t i = 0; i < bytes / 4; i++) {
		bool inside = i >= 1024 && i < bytes / 4 - 1024;

		good = good && dwords[i] == (inside ? 0x12345678 : pattern(5, 1, i));
	}
	report(good, "SDMA fills exactly its range");
	free_buffer(&buffer);
}

static void test_compute(struct gpu *gpu, uint64_t bytes)
{
	struct buffer from = make_buffer(gpu, bytes, AMDGPU_GEM_DOMAIN_GTT);
	struct buffer to = make_buffer(gpu, bytes, AMDGPU_GEM_DOMAIN_VRAM);

	for (uint32_t ring = 0; ring < COMPUTE_RINGS; ring++) {
		struct commands commands = begin(gpu);
		char what[64];

		write_pattern(from.cpu, bytes, ring, 3);
		compute_copy(&commands, to.va, from.va, bytes);
		/* The kernel spreads a context's jobs over the compute rings. */
		submit(&commands, AMDGPU_HW_IP_COMPUTE, (struct buffer *[]){ &to, &from }, 2);
		snprintf(what, sizeof(what), "compute job %u copies by DMA_DATA", ring);
		report(holds(&to, ring, 3), what);
	}
	free_buffer(&to);
	free_buffer(&from);
}

static void test_interrupts(struct gpu *gpu)
{
	struct buffer from = make_buffer(gpu, 4096, AMDGPU_GEM_DOMAIN_GTT);
	struct buffer to = make_buffer(gpu, 4096, AMDGPU_GEM_DOMAIN_VRAM);
	long before = interrupts_of(gpu);

	for (int i = 0; i < 10; i++)
		copy(&to, &from);
	printf("# %ld interrupts for 10 jobs\n", interrupts_of(gpu) - before);
	report(interrupts_of(gpu) - before >= 1, "fences arrive by interrupt");
	free_buffer(&to);
	free_buffer(&from);
}

int main(int argc, char **argv)
{
	uint64_t bytes = 4 << 20;
	const char *address = NULL;
	struct gpu gpu;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--bytes") == 0 && i + 1 < argc)
			bytes = parse_bytes(argv[++i]);
		else if (argv[i][0] != '-' && !address)
			address = argv[i];
		else
			fail("usage: amdgpu-copy [--bytes SIZE] [ADDRESS]");
	}
	if (bytes < 16384)
		fail("--bytes must be at least 16K");
	if (open_gpus(&gpu, 1, address) != 1)
		fail("no AMD function with a render node; is amdgpu loaded?");
	printf("KTAP version 1\n1..%d\n", 4 + 1 + COMPUTE_RINGS + 1);
	printf("# %s, %" PRIu64 " MiB VRAM window\n", gpu.address, gpu.bar0_bytes >> 20);
	test_sdma(&gpu, bytes);
	test_fill(&gpu, bytes);
	test_compute(&gpu, bytes);
	test_interrupts(&gpu);
	return finish_cases();
}
