// SPDX-License-Identifier: MIT
// link: -ldrm_amdgpu -ldrm
/*
 * usage: amdgpu-copy [--bytes SIZE] [ADDRESS]
 *
 * Exercises one GPU with the stock driver: buffers in VRAM and in system memory, copies and fills by SDMA, copies by every
 * compute ring (DMA_DATA packets), fences by interrupt. Compares every byte. Prints KTAP; exits with 0 when every case passed.
 */
#include "amdgpu-kit.h"

/* PM4 DMA_DATA (kernel: amdgpu/soc15d.h); byte counts are 26 bits wide. */
#define PM4_DMA_DATA (3u << 30 | 5u << 16 | 0x50u << 8)
/* The single-dword filler, to a multiple of 8 dwords. */
#define PM4_FILLER 0xffff1000u
#define COMPUTE_RINGS 8

static int cases, failures;

static void report(bool passed, const char *what)
{
	printf("%s %d %s\n", passed ? "ok" : "not ok", ++cases, what);
	failures += !passed;
}

static bool holds(const struct buffer *buffer, uint32_t seed, uint32_t pass)
{
	uint64_t first = 0;
	uint64_t wrong = wrong_bytes(buffer->cpu, buffer->bytes, seed, pass, &first);

	if (wrong)
		printf("# %" PRIu64 " bytes are wrong, the first at offset %" PRIu64 "\n", wrong, first);
	return wrong == 0;
}

static void copy(struct buffer *to, struct buffer *from)
{
	struct commands commands = begin(to->gpu);

	sdma_copy(&commands, to->va, from->va, to->bytes);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ to, from }, 2);
}

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
		for (uint64_t done = 0; done < bytes; done += SDMA_MAX_BYTES) {
			uint64_t piece = bytes - done < SDMA_MAX_BYTES ? bytes - done : SDMA_MAX_BYTES;

			emit(&commands, PM4_DMA_DATA);
			emit(&commands, 0);
			emit_address(&commands, from.va + done);
			emit_address(&commands, to.va + done);
			emit(&commands, (uint32_t)piece);
		}
		while (commands.count % 8)
			emit(&commands, PM4_FILLER);
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
	printf("# %d of %d cases failed\n", failures, cases);
	return failures ? 1 : 0;
}
