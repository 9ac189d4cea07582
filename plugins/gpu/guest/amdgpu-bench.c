// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: amdgpu-bench
 *
 * Prints one JSON object about the first AMD GPU: what SDMA copies and what the CPU's memcpy copies, in
 * MiB/s; the CPU's reads and writes of mapped VRAM and of its own memory, in MiB/s; microseconds of a
 * submission with its fence, and of an ioctl that asks the driver for something it knows. Each figure is the
 * best of some rounds: whatever disturbs makes it worse.
 */
#include "amdgpu-kit.h"

#include <sys/mman.h>
#include <time.h>

enum { ROUNDS = 8, JOBS = 200 };
#define COPY_BYTES (32ull << 20)
#define ACCESS_BYTES (2ull << 20)

static double now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static double mib_per_second(uint64_t bytes, double microseconds)
{
	return (double)bytes / (1 << 20) / (microseconds / 1e6);
}

static void *own_memory(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	return memory;
}

/* MiB/s of the CPU's memcpy. */
static double cpu_copy(void *to, const void *from, uint64_t bytes, int rounds)
{
	double best = 0;

	memcpy(to, from, bytes);
	for (int round = 0; round < rounds; round++) {
		double start = now_us(), speed;

		memcpy(to, from, bytes);
		__asm__ volatile("" ::"r"(to), "r"(from) : "memory");
		speed = mib_per_second(bytes, now_us() - start);
		best = speed > best ? speed : best;
	}
	return best;
}

static double sdma_speed(struct gpu *gpu, uint32_t to_domain, uint32_t from_domain)
{
	struct buffer from = make_buffer(gpu, COPY_BYTES, from_domain), to = make_buffer(gpu, COPY_BYTES, to_domain);
	double best = 0;

	memset(from.cpu, 1, COPY_BYTES);
	memset(to.cpu, 2, COPY_BYTES);
	for (int round = 0; round < ROUNDS; round++) {
		struct commands commands = begin(gpu);
		double start, speed;

		sdma_copy(&commands, to.va, from.va, COPY_BYTES);
		start = now_us();
		submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ &to, &from }, 2);
		speed = mib_per_second(COPY_BYTES, now_us() - start);
		best = speed > best ? speed : best;
	}
	free_buffer(&to);
	free_buffer(&from);
	return best;
}

/* Microseconds of a submission that does nothing, until its fence. */
static double round_trip(struct gpu *gpu)
{
	struct commands commands = begin(gpu);
	struct amdgpu_cs_ib_info ib = { .ib_mc_address = commands.ib.va, .size = 8 };
	struct amdgpu_cs_request request = { .ip_type = AMDGPU_HW_IP_DMA, .number_of_ibs = 1, .ibs = &ib };
	double best = 1e9;

	memset(commands.dwords, 0, 32);
	if (amdgpu_bo_list_create(gpu->device, 1, &commands.ib.handle, NULL, &request.resources))
		fail("amdgpu_bo_list_create");
	for (int job = 0; job < JOBS; job++) {
		struct amdgpu_cs_fence fence = { .context = gpu->context, .ip_type = AMDGPU_HW_IP_DMA };
		double start = now_us(), taken;
		uint32_t expired = 0;

		if (amdgpu_cs_submit(gpu->context, 0, &request, 1))
			fail("amdgpu_cs_submit");
		fence.fence = request.seq_no;
		if (amdgpu_cs_query_fence_status(&fence, FENCE_TIMEOUT_NS, 0, &expired) || !expired)
			fail("no fence");
		taken = now_us() - start;
		best = taken < best ? taken : best;
	}
	amdgpu_bo_list_destroy(request.resources);
	free_buffer(&commands.ib);
	return best;
}

static double information(struct gpu *gpu)
{
	double best = 1e9;

	for (int count = 0; count < JOBS; count++) {
		double start = now_us(), taken;
		uint32_t working = 0;

		amdgpu_query_info(gpu->device, AMDGPU_INFO_ACCEL_WORKING, sizeof(working), &working);
		taken = now_us() - start;
		best = taken < best ? taken : best;
	}
	return best;
}

int main(void)
{
	void *own[2] = { own_memory(COPY_BYTES), own_memory(COPY_BYTES) };
	struct buffer vram;
	struct gpu gpu;

	if (open_gpus(&gpu, 1, NULL) != 1)
		fail("no AMD function with a render node; is amdgpu loaded?");
	vram = make_buffer(&gpu, ACCESS_BYTES, AMDGPU_GEM_DOMAIN_VRAM);
	memset(vram.cpu, 1, ACCESS_BYTES);
	printf("{\"memcpyMiBps\":%.0f,", cpu_copy(own[0], own[1], COPY_BYTES, ROUNDS));
	printf("\"vramToVram\":%.0f,", sdma_speed(&gpu, AMDGPU_GEM_DOMAIN_VRAM, AMDGPU_GEM_DOMAIN_VRAM));
	printf("\"vramToSystem\":%.0f,", sdma_speed(&gpu, AMDGPU_GEM_DOMAIN_GTT, AMDGPU_GEM_DOMAIN_VRAM));
	printf("\"systemToVram\":%.0f,", sdma_speed(&gpu, AMDGPU_GEM_DOMAIN_VRAM, AMDGPU_GEM_DOMAIN_GTT));
	printf("\"barRead\":%.0f,", cpu_copy(own[0], vram.cpu, ACCESS_BYTES, 8 * ROUNDS));
	printf("\"barWrite\":%.0f,", cpu_copy(vram.cpu, own[0], ACCESS_BYTES, 8 * ROUNDS));
	printf("\"ramRead\":%.0f,", cpu_copy(own[0], own[1], ACCESS_BYTES, 8 * ROUNDS));
	printf("\"roundTripUs\":%.1f,\"informationUs\":%.1f}\n", round_trip(&gpu), information(&gpu));
	free_buffer(&vram);
	return 0;
}
