// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: amdgpu-p2p [--bytes SIZE] [--seed N] [--hold FILE] [--hive] [--unmapped] [FIRST SECOND]
 *
 * Moves a dma-buf between two GPUs with the stock driver, and compares every byte:
 *   fill      VRAM of the first GPU, by its own SDMA: a constant, then pattern 1 from a buffer in system memory
 *   export    that buffer as a dma-buf, imported by the second GPU
 *   pull      the second GPU's SDMA copies the imported buffer to its own VRAM
 *   push      the second GPU's SDMA copies pattern 2 from its own VRAM to the imported buffer
 *
 * FIRST and SECOND are PCI addresses such as 0000:03:00.0; default: the first two AMD functions with a render node.
 * Prints one JSON object per line. Pattern p of seed s: dword i is murmur3's 32-bit finalizer of
 * s + p * 0x9e3779b9 + i.
 * --hive: the GPUs are in one XGMI hive, so the imported buffer stays out of submissions' lists.
 * --unmapped: the CPU never maps the first GPU's buffer, which so may lie in VRAM that the CPU does not see; it
 * is filled and compared through copies in system memory. With --hold the program keeps the buffers until FILE
 * exists (60 s at most): freeing them wipes them.
 */
#include "amdgpu-kit.h"

#include <sys/stat.h>
#include <time.h>

static double now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* The address in the GPU's VM: from there the emulator's `translate` command leads to the place in VRAM. */
static void print_buffer(const char *name, const struct buffer *buffer)
{
	printf("{\"buffer\":\"%s\",\"gpu\":\"%s\",\"bytes\":%" PRIu64 ",\"va\":\"0x%" PRIx64 "\",\"pattern\":2}\n", name,
	       buffer->gpu->address, buffer->bytes, buffer->va);
}

static void copy(const char *step, struct buffer *to, struct buffer *from);

static void compare_buffer(const char *step, struct buffer *buffer, uint32_t seed, uint32_t pass)
{
	struct buffer staging = { 0 };
	uint64_t first = 0;
	uint64_t wrong;

	if (!buffer->cpu) {
		staging = make_buffer(buffer->gpu, buffer->bytes, AMDGPU_GEM_DOMAIN_GTT);
		copy("read back", &staging, buffer);
	}
	wrong = wrong_bytes(buffer->cpu ? buffer->cpu : staging.cpu, buffer->bytes, seed, pass, &first);
	if (staging.cpu)
		free_buffer(&staging);

	printf("{\"compare\":\"%s\",\"gpu\":\"%s\",\"pattern\":%u,\"bytes\":%" PRIu64 ",\"wrong\":%" PRIu64 "}\n", step,
	       buffer->gpu->address, pass, buffer->bytes, wrong);
	if (wrong)
		fail("%s: %" PRIu64 " bytes of %" PRIu64 " are wrong, the first at offset %" PRIu64, step, wrong,
		     buffer->bytes, first);
}

static void copy(const char *step, struct buffer *to, struct buffer *from)
{
	struct gpu *gpu = to->gpu;
	struct commands commands = begin(gpu);
	long interrupts = interrupts_of(gpu);
	double start = now_ms();

	sdma_copy(&commands, to->va, from->va, to->bytes);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ to, from }, 2);
	printf("{\"copy\":\"%s\",\"engine\":\"%s\",\"bytes\":%" PRIu64 ",\"ms\":%.2f,\"interrupts\":%ld}\n", step,
	       gpu->address, to->bytes, now_ms() - start, interrupts_of(gpu) - interrupts);
}

/* The first GPU fills its buffer: a constant, then a pattern that the CPU wrote to system memory. */
static void fill_buffer(struct buffer *buffer, uint32_t seed, uint32_t pass)
{
	struct buffer staging = make_buffer(buffer->gpu, buffer->bytes, AMDGPU_GEM_DOMAIN_GTT);
	struct commands commands = begin(buffer->gpu);

	write_pattern(staging.cpu, staging.bytes, seed, pass);
	sdma_fill(&commands, buffer->va, 0xdeadbeef, buffer->bytes);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ buffer }, 1);
	for (uint64_t i = 0; buffer->cpu && i < buffer->bytes / 4; i++)
		if (((volatile uint32_t *)buffer->cpu)[i] != 0xdeadbeef)
			fail("fill: dword %" PRIu64 " of %s is not the constant", i, buffer->gpu->address);
	copy("fill", buffer, &staging);
	free_buffer(&staging);
}

static struct buffer import_buffer(struct gpu *gpu, const struct buffer *exported, bool hive)
{
	struct buffer imported;
	uint32_t dmabuf;
	int error = amdgpu_bo_export(exported->handle, amdgpu_bo_handle_type_dma_buf_fd, &dmabuf);

	if (error)
		fail("%s: exporting a dma-buf: %s", exported->gpu->address, strerror(-error));
	error = try_import(&imported, gpu, (int)dmabuf, exported->bytes);
	if (error)
		fail("%s: importing the dma-buf of %s: %s", gpu->address, exported->gpu->address, strerror(-error));
	imported.unlisted = hive;
	close((int)dmabuf);
	printf("{\"dmabuf\":{\"from\":\"%s\",\"to\":\"%s\",\"bytes\":%" PRIu64 "}}\n", exported->gpu->address, gpu->address,
	       imported.bytes);
	return imported;
}

static void hold(const char *path)
{
	struct stat status;

	printf("{\"hold\":\"%s\"}\n", path);
	fflush(stdout);
	for (int i = 0; i < 1200 && stat(path, &status) != 0; i++)
		usleep(50000);
}

struct arguments {
	uint64_t bytes;
	uint32_t seed;
	const char *hold;
	bool hive;
	bool unmapped;
	const char *addresses[2];
};

static struct arguments parse(int argc, char **argv)
{
	struct arguments arguments = { .bytes = 8 << 20, .seed = (uint32_t)getpid() * 2654435761u };
	int positional = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--bytes") == 0 && i + 1 < argc)
			arguments.bytes = parse_bytes(argv[++i]);
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			arguments.seed = (uint32_t)strtoul(argv[++i], NULL, 0);
		else if (strcmp(argv[i], "--hold") == 0 && i + 1 < argc)
			arguments.hold = argv[++i];
		else if (strcmp(argv[i], "--hive") == 0)
			arguments.hive = true;
		else if (strcmp(argv[i], "--unmapped") == 0)
			arguments.unmapped = true;
		else if (argv[i][0] != '-' && positional < 2)
			arguments.addresses[positional++] = argv[i];
		else
			fail("usage: amdgpu-p2p [--bytes SIZE] [--seed N] [--hold FILE] [--hive] [--unmapped] [FIRST SECOND]");
	}
	if (positional == 1)
		fail("give both PCI addresses or none");
	return arguments;
}

int main(int argc, char **argv)
{
	struct arguments arguments = parse(argc, argv);
	struct gpu gpus[2];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (arguments.addresses[0]) {
		for (int i = 0; i < 2; i++)
			if (open_gpus(&gpus[i], 1, arguments.addresses[i]) != 1)
				fail("%s has no render node of amdgpu", arguments.addresses[i]);
	} else if (open_gpus(gpus, 2, NULL) != 2) {
		fail("two AMD functions with render nodes are needed; is amdgpu loaded?");
	}
	printf("{\"first\":\"%s\",\"second\":\"%s\",\"bytes\":%" PRIu64 ",\"seed\":%u}\n", gpus[0].address, gpus[1].address,
	       arguments.bytes, arguments.seed);
	struct buffer first = arguments.unmapped
				      ? make_gpu_buffer(&gpus[0], arguments.bytes, AMDGPU_GEM_DOMAIN_VRAM, 0)
				      : make_buffer(&gpus[0], arguments.bytes, AMDGPU_GEM_DOMAIN_VRAM);
	struct buffer second = make_buffer(&gpus[1], arguments.bytes, AMDGPU_GEM_DOMAIN_VRAM);

	fill_buffer(&first, arguments.seed, 1);
	compare_buffer("fill", &first, arguments.seed, 1);
	struct buffer imported = import_buffer(&gpus[1], &first, arguments.hive);

	copy("pull", &second, &imported);
	compare_buffer("pull", &second, arguments.seed, 1);
	fill_buffer(&second, arguments.seed, 2);
	copy("push", &imported, &second);
	compare_buffer("push", &first, arguments.seed, 2);
	print_buffer("first", &first);
	print_buffer("second", &second);
	if (arguments.hold)
		hold(arguments.hold);
	free_buffer(&imported);
	free_buffer(&second);
	free_buffer(&first);
	printf("{\"result\":\"ok\"}\n");
	return 0;
}
