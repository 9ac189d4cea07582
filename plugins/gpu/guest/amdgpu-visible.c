// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: amdgpu-visible [--seed N] [--hold FILE] [GPU]
 *
 * Exercises VRAM that the CPU does not see, of a GPU whose BAR0 is smaller than its VRAM, with the stock driver:
 *   invisible  SDMA fills a buffer that the driver placed beyond BAR0, and reads it back
 *   refused    a buffer made without CPU access cannot be mapped
 *   fault      the CPU touches the first buffer: the driver moves it to where the CPU sees it; then the CPU writes it
 *   crowd      the CPU writes more buffers than the visible part holds; SDMA reads every one back
 *
 * GPU is a PCI address; default: the first AMD function with a render node. Prints one JSON object per line. With
 * --hold the program waits after `invisible` and after `fault` until FILE exists (60 s at most), then removes it.
 */
#include "amdgpu-kit.h"

#include <sys/stat.h>

#define BUFFER_BYTES (32ull << 20)
#define MAX_CROWD 64

struct memory {
	uint64_t vram;
	uint64_t visible;
	uint64_t cpu_faults;
};

static struct memory query(struct gpu *gpu)
{
	struct drm_amdgpu_memory_info info = { 0 };
	struct memory memory = { 0 };
	int error = amdgpu_query_info(gpu->device, AMDGPU_INFO_MEMORY, sizeof(info), &info);

	if (!error)
		error = amdgpu_query_info(gpu->device, AMDGPU_INFO_NUM_VRAM_CPU_PAGE_FAULTS, sizeof(memory.cpu_faults),
					  &memory.cpu_faults);
	if (error)
		fail("%s: asking for its memory: %s", gpu->address, strerror(-error));
	memory.vram = info.vram.total_heap_size;
	memory.visible = info.cpu_accessible_vram.total_heap_size;
	return memory;
}

static void copy(struct buffer *to, struct buffer *from)
{
	struct commands commands = begin(to->gpu);

	sdma_copy(&commands, to->va, from->va, to->bytes);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ to, from }, 2);
}

static void require(const char *step, const void *memory, uint64_t bytes, uint32_t seed, uint32_t pass)
{
	uint64_t first = 0;
	uint64_t wrong = wrong_bytes(memory, bytes, seed, pass, &first);

	if (wrong)
		fail("%s: %" PRIu64 " bytes of %" PRIu64 " are wrong, the first at offset %" PRIu64, step, wrong, bytes,
		     first);
}

/* The engine reads `buffer` back; every byte must be pattern `pass`. */
static void require_by_sdma(const char *step, struct buffer *buffer, struct buffer *staging, uint32_t seed, uint32_t pass)
{
	memset(staging->cpu, 0, staging->bytes);
	copy(staging, buffer);
	require(step, staging->cpu, staging->bytes, seed, pass);
}

static void hold(const char *path, const char *step, const struct buffer *buffer)
{
	struct stat status;

	printf("{\"step\":\"%s\",\"va\":\"0x%" PRIx64 "\",\"bytes\":%" PRIu64 "}\n", step, buffer->va, buffer->bytes);
	fflush(stdout);
	for (int i = 0; path && i < 1200 && stat(path, &status) != 0; i++)
		usleep(50000);
	if (path)
		unlink(path);
}

static void require_refusal(struct gpu *gpu)
{
	struct buffer hidden = make_gpu_buffer(gpu, 1 << 20, AMDGPU_GEM_DOMAIN_VRAM, AMDGPU_GEM_CREATE_NO_CPU_ACCESS);
	int error = amdgpu_bo_cpu_map(hidden.handle, &hidden.cpu);

	if (!error)
		fail("a buffer made without CPU access could be mapped");
	printf("{\"step\":\"refused\",\"error\":\"%s\"}\n", strerror(-error));
	hidden.cpu = NULL;
	free_buffer(&hidden);
}

/* More than the CPU can see at once; what does not fit the driver keeps in system memory, or moves away again. */
static void crowd(struct gpu *gpu, struct buffer *staging, uint64_t visible, uint32_t seed)
{
	struct buffer buffers[MAX_CROWD];
	uint64_t count = visible / BUFFER_BYTES + 2;
	struct memory before = query(gpu);

	if (count > MAX_CROWD)
		fail("%" PRIu64 " visible bytes are too many for %d buffers", visible, MAX_CROWD);
	for (uint64_t i = 0; i < count; i++) {
		buffers[i] = make_gpu_buffer(gpu, BUFFER_BYTES, AMDGPU_GEM_DOMAIN_VRAM, 0);
		map_cpu(&buffers[i]);
		write_pattern(buffers[i].cpu, BUFFER_BYTES, seed, 10 + (uint32_t)i);
	}
	for (uint64_t i = 0; i < count; i++)
		require_by_sdma("crowd", &buffers[i], staging, seed, 10 + (uint32_t)i);
	printf("{\"step\":\"crowd\",\"buffers\":%" PRIu64 ",\"cpu_faults\":%" PRIu64 "}\n", count,
	       query(gpu).cpu_faults - before.cpu_faults);
	for (uint64_t i = 0; i < count; i++)
		free_buffer(&buffers[i]);
}

int main(int argc, char **argv)
{
	uint32_t seed = (uint32_t)getpid() * 2654435761u;
	const char *hold_file = NULL, *address = NULL;
	struct memory memory, after;
	struct gpu gpu;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			seed = (uint32_t)strtoul(argv[++i], NULL, 0);
		else if (strcmp(argv[i], "--hold") == 0 && i + 1 < argc)
			hold_file = argv[++i];
		else if (argv[i][0] != '-' && !address)
			address = argv[i];
		else
			fail("usage: amdgpu-visible [--seed N] [--hold FILE] [GPU]");
	}
	if (open_gpus(&gpu, 1, address) != 1)
		fail("no AMD function %s with a render node", address ? address : "");
	memory = query(&gpu);
	printf("{\"gpu\":\"%s\",\"vram\":%" PRIu64 ",\"visible\":%" PRIu64 ",\"bar0\":%" PRIu64 ",\"seed\":%u}\n",
	       gpu.address, memory.vram, memory.visible, gpu.bar0_bytes, seed);

	struct buffer staging = make_buffer(&gpu, BUFFER_BYTES, AMDGPU_GEM_DOMAIN_GTT);
	struct buffer buffer = make_gpu_buffer(&gpu, BUFFER_BYTES, AMDGPU_GEM_DOMAIN_VRAM, 0);

	write_pattern(staging.cpu, BUFFER_BYTES, seed, 1);
	copy(&buffer, &staging);
	require_by_sdma("invisible", &buffer, &staging, seed, 1);
	hold(hold_file, "placed", &buffer);
	require_refusal(&gpu);

	map_cpu(&buffer);
	require("fault", buffer.cpu, BUFFER_BYTES, seed, 1);
	after = query(&gpu);
	printf("{\"step\":\"fault\",\"cpu_faults\":%" PRIu64 "}\n", after.cpu_faults - memory.cpu_faults);
	write_pattern(buffer.cpu, BUFFER_BYTES, seed, 2);
	require_by_sdma("fault", &buffer, &staging, seed, 2);
	hold(hold_file, "moved", &buffer);
	crowd(&gpu, &staging, memory.visible, seed);
	free_buffer(&buffer);
	free_buffer(&staging);
	printf("{\"result\":\"ok\"}\n");
	return 0;
}
