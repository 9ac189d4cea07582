// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: amdgpu-memory [--bytes SIZE] [--total SIZE] [ADDRESS]
 *
 * Every kind of memory that one GPU can use: VRAM, VRAM that the CPU does not see, system memory and a process's own
 * pages, as sources and destinations of SDMA copies of SIZE; jobs that wait for one another at points of a timeline; a
 * list of buffers that is used again; and buffers of TOTAL bytes, more than the VRAM, that displace each other.
 * Compares every byte. Prints KTAP; exits with 0 when every case passed.
 */
#include "amdgpu-cases.h"

#include <pthread.h>
#include <sys/mman.h>

enum kind { VRAM, INVISIBLE, SYSTEM, USERPTR, KINDS };

static const char *const kind_names[KINDS] = { "VRAM", "invisible VRAM", "system memory", "a process's pages" };

static struct buffer make_invisible(struct gpu *gpu, uint64_t bytes)
{
	return make_gpu_buffer(gpu, bytes, AMDGPU_GEM_DOMAIN_VRAM, AMDGPU_GEM_CREATE_NO_CPU_ACCESS);
}

static struct buffer make_userptr(struct gpu *gpu, uint64_t bytes)
{
	struct buffer buffer = { .gpu = gpu, .bytes = bytes };
	int error;

	buffer.cpu = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer.cpu == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	error = amdgpu_create_bo_from_user_mem(gpu->device, buffer.cpu, bytes, &buffer.handle);
	if (error)
		fail("%s: %" PRIu64 " bytes of the process as a buffer: %s", gpu->address, bytes, strerror(-error));
	map_gpu(&buffer);
	return buffer;
}

static struct buffer make(struct gpu *gpu, uint64_t bytes, enum kind kind)
{
	switch (kind) {
	case INVISIBLE:
		return make_invisible(gpu, bytes);
	case USERPTR:
		return make_userptr(gpu, bytes);
	default:
		return make_buffer(gpu, bytes, kind == VRAM ? AMDGPU_GEM_DOMAIN_VRAM : AMDGPU_GEM_DOMAIN_GTT);
	}
}

static void release(struct buffer *buffer, enum kind kind)
{
	void *pages = kind == USERPTR ? buffer->cpu : NULL;

	if (pages)
		buffer->cpu = NULL;
	free_buffer(buffer);
	if (pages)
		munmap(pages, buffer->bytes);
}

/* From every kind to every kind. What the CPU does not see is filled and read by way of a buffer in system memory. */
static void test_directions(struct gpu *gpu, uint64_t bytes)
{
	struct buffer stage = make_buffer(gpu, bytes, AMDGPU_GEM_DOMAIN_GTT);

	for (enum kind i = 0; i < KINDS * KINDS; i++) {
		enum kind source = i % KINDS, destination = i / KINDS;
		struct buffer from = make(gpu, bytes, source), to = make(gpu, bytes, destination);
		char what[96];
		bool good;

		write_pattern(stage.cpu, bytes, i, 1);
		copy(&from, &stage);
		write_pattern(stage.cpu, bytes, i, 2);
		copy(&to, &stage);
		copy(&to, &from);
		copy(&stage, &to);
		good = holds(&stage, i, 1) && (!to.cpu || holds(&to, i, 1)) && (!from.cpu || holds(&from, i, 1));
		snprintf(what, sizeof(what), "%s to %s", kind_names[source], kind_names[destination]);
		report(good, what);
		release(&to, destination);
		release(&from, source);
	}
	free_buffer(&stage);
}

/* A copy that waits for a point of the timeline and reaches the next one. */
struct link {
	struct buffer *to, *from;
	struct commands commands;
	uint32_t engine;
	uint32_t timeline;
	uint64_t wait;
};

/* The kernel waits in the call until somebody has at least submitted what reaches the point, 5 s at most. */
static void *submit_link(void *argument)
{
	struct link *link = argument;
	struct gpu *gpu = link->to->gpu;
	struct drm_amdgpu_bo_list_entry entries[3] = { { 0 } };
	struct drm_amdgpu_bo_list_in list = {
		.operation = ~0u,
		.list_handle = ~0u,
		.bo_number = 3,
		.bo_info_size = sizeof(entries[0]),
		.bo_info_ptr = (uintptr_t)entries,
	};
	struct drm_amdgpu_cs_chunk_ib ib = {
		.va_start = link->commands.ib.va,
		.ib_bytes = link->commands.count * 4,
		.ip_type = link->engine,
	};
	struct drm_amdgpu_cs_chunk_syncobj before = {
		.handle = link->timeline,
		.flags = DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT,
		.point = link->wait,
	};
	struct drm_amdgpu_cs_chunk_syncobj after = { .handle = link->timeline, .point = link->wait + 1 };
	struct drm_amdgpu_cs_chunk chunks[4] = {
		{ AMDGPU_CHUNK_ID_IB, sizeof(ib) / 4, (uintptr_t)&ib },
		{ AMDGPU_CHUNK_ID_BO_HANDLES, sizeof(list) / 4, (uintptr_t)&list },
		{ AMDGPU_CHUNK_ID_SYNCOBJ_TIMELINE_SIGNAL, sizeof(after) / 4, (uintptr_t)&after },
		{ AMDGPU_CHUNK_ID_SYNCOBJ_TIMELINE_WAIT, sizeof(before) / 4, (uintptr_t)&before },
	};
	uint64_t sequence = 0;
	int error;

	amdgpu_bo_export(link->commands.ib.handle, amdgpu_bo_handle_type_kms, &entries[0].bo_handle);
	amdgpu_bo_export(link->to->handle, amdgpu_bo_handle_type_kms, &entries[1].bo_handle);
	amdgpu_bo_export(link->from->handle, amdgpu_bo_handle_type_kms, &entries[2].bo_handle);
	error = amdgpu_cs_submit_raw2(gpu->device, gpu->context, 0, 4, chunks, &sequence);
	if (error)
		fail("%s: submitting at point %" PRIu64 ": %s", gpu->address, link->wait, strerror(-error));
	return NULL;
}

#define LINKS 6

/*
 * A chain of copies by SDMA and compute in turn: only the points of the timeline order them. The first one waits for a
 * point that the CPU signals when it has seen that nothing ran.
 */
static void test_timeline(struct gpu *gpu, uint64_t bytes)
{
	struct buffer buffers[LINKS + 1];
	struct link links[LINKS];
	uint64_t reached = 0, last = LINKS + 1, first = 1;
	uint32_t timeline, signalled;
	pthread_t thread;
	int error = amdgpu_cs_create_syncobj2(gpu->device, 0, &timeline);

	if (error)
		fail("amdgpu_cs_create_syncobj2: %s", strerror(-error));
	for (int i = 0; i <= LINKS; i++) {
		buffers[i] = make_buffer(gpu, bytes, i % 2 ? AMDGPU_GEM_DOMAIN_VRAM : AMDGPU_GEM_DOMAIN_GTT);
		write_pattern(buffers[i].cpu, bytes, 20, (uint32_t)i);
	}
	for (int i = 0; i < LINKS; i++) {
		links[i] = (struct link){
			.to = &buffers[i + 1],
			.from = &buffers[i],
			.commands = begin(gpu),
			.engine = i % 2 ? AMDGPU_HW_IP_COMPUTE : AMDGPU_HW_IP_DMA,
			.timeline = timeline,
			.wait = (uint64_t)i + 1,
		};
		(i % 2 ? compute_copy : sdma_copy)(&links[i].commands, buffers[i + 1].va, buffers[i].va, bytes);
	}
	if (pthread_create(&thread, NULL, submit_link, &links[0]))
		fail("pthread_create");
	amdgpu_cs_syncobj_query(gpu->device, &timeline, &reached, 1);
	report(reached == 0 && holds(&buffers[1], 20, 1), "no job runs before its point of the timeline");
	error = amdgpu_cs_syncobj_timeline_signal(gpu->device, &timeline, &first, 1);
	pthread_join(thread, NULL);
	for (int i = 1; i < LINKS; i++)
		submit_link(&links[i]);
	if (!error)
		error = amdgpu_cs_syncobj_timeline_wait(gpu->device, &timeline, &last, 1, INT64_MAX,
							DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT, &signalled);
	amdgpu_cs_syncobj_query(gpu->device, &timeline, &reached, 1);
	report(!error && reached == last, "the timeline reaches its last point");
	report(holds(&buffers[LINKS], 20, 0), "the chain of jobs ran in order");
	for (int i = 0; i < LINKS; i++)
		free_buffer(&links[i].commands.ib);
	for (int i = 0; i <= LINKS; i++)
		free_buffer(&buffers[i]);
	amdgpu_cs_destroy_syncobj(gpu->device, timeline);
}

/* One list of buffers for several jobs, changed in between: a job may only touch what is in the list. */
static void test_list(struct gpu *gpu, uint64_t bytes)
{
	struct buffer from = make_buffer(gpu, bytes, AMDGPU_GEM_DOMAIN_GTT);
	struct buffer to = make_buffer(gpu, bytes, AMDGPU_GEM_DOMAIN_VRAM);
	struct commands commands = begin(gpu);
	struct amdgpu_cs_ib_info ib = { .ib_mc_address = commands.ib.va };
	struct amdgpu_cs_request request = { .ip_type = AMDGPU_HW_IP_DMA, .number_of_ibs = 1, .ibs = &ib };
	amdgpu_bo_handle handles[] = { commands.ib.handle, to.handle, from.handle };
	uint8_t priorities[] = { 0, 5, 10 };
	bool good = true;

	sdma_copy(&commands, to.va, from.va, bytes);
	ib.size = commands.count;
	if (amdgpu_bo_list_create(gpu->device, 1, handles, NULL, &request.resources))
		fail("%s: amdgpu_bo_list_create", gpu->address);
	if (amdgpu_bo_list_update(request.resources, 3, handles, priorities))
		fail("%s: amdgpu_bo_list_update", gpu->address);
	for (uint32_t pass = 0; pass < 4; pass++) {
		struct amdgpu_cs_fence fence = { .context = gpu->context, .ip_type = AMDGPU_HW_IP_DMA };
		uint32_t expired = 0;

		write_pattern(from.cpu, bytes, 30, pass);
		if (amdgpu_cs_submit(gpu->context, 0, &request, 1))
			fail("%s: submitting with a list of buffers", gpu->address);
		fence.fence = request.seq_no;
		amdgpu_cs_query_fence_status(&fence, FENCE_TIMEOUT_NS, 0, &expired);
		good = good && expired && holds(&to, 30, pass);
	}
	report(good, "one list of buffers serves several jobs");
	amdgpu_bo_list_destroy(request.resources);
	free_buffer(&commands.ib);
	free_buffer(&to);
	free_buffer(&from);
}

static uint64_t query(struct gpu *gpu, unsigned int what)
{
	uint64_t value = 0;

	if (amdgpu_query_info(gpu->device, what, sizeof(value), &value))
		fail("%s: amdgpu_query_info(%u)", gpu->address, what);
	return value;
}

#define MAX_PIECES 256

/*
 * Buffers that all want VRAM and do not fit: every use of one displaces others. Each is filled by the GPU from a
 * staging buffer with its own pattern, and read back by the GPU when all the others have been used since.
 */
static void test_eviction(struct gpu *gpu, uint64_t total, uint64_t piece)
{
	static struct buffer buffers[MAX_PIECES];
	struct buffer stage = make_buffer(gpu, piece, AMDGPU_GEM_DOMAIN_GTT);
	uint64_t before = query(gpu, AMDGPU_INFO_NUM_EVICTIONS), moved = query(gpu, AMDGPU_INFO_NUM_BYTES_MOVED);
	uint32_t count = (uint32_t)(total / piece);
	bool good = true;

	if (count > MAX_PIECES)
		fail("--total is more than %d times the size of a piece", MAX_PIECES);
	for (uint32_t i = 0; i < count; i++) {
		buffers[i] = make_invisible(gpu, piece);
		write_pattern(stage.cpu, piece, 40, i);
		copy(&buffers[i], &stage);
	}
	/* Twice, in different order: the second round finds them where the first one left them. */
	for (uint32_t round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < count; i++) {
			uint32_t at = round ? count - 1 - i : i;

			copy(&stage, &buffers[at]);
			good = holds(&stage, 40, at) && good;
		}
	}
	before = query(gpu, AMDGPU_INFO_NUM_EVICTIONS) - before;
	moved = query(gpu, AMDGPU_INFO_NUM_BYTES_MOVED) - moved;
	printf("# %" PRIu64 " MiB in %u buffers, %" PRIu64 " evictions, %" PRIu64 " MiB moved for jobs\n", total >> 20,
	       count, before, moved >> 20);
	report(good, "every byte survives eviction");
	report(before > 0, "buffers were evicted");
	for (uint32_t i = 0; i < count; i++)
		free_buffer(&buffers[i]);
	free_buffer(&stage);
}

int main(int argc, char **argv)
{
	uint64_t bytes = 1 << 20, total = 1 << 30;
	const char *address = NULL;
	struct gpu gpu;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--bytes") == 0 && i + 1 < argc)
			bytes = parse_bytes(argv[++i]);
		else if (strcmp(argv[i], "--total") == 0 && i + 1 < argc)
			total = parse_bytes(argv[++i]);
		else if (argv[i][0] != '-' && !address)
			address = argv[i];
		else
			fail("usage: amdgpu-memory [--bytes SIZE] [--total SIZE] [ADDRESS]");
	}
	if (open_gpus(&gpu, 1, address) != 1)
		fail("no AMD function with a render node; is amdgpu loaded?");
	printf("KTAP version 1\n1..%d\n", KINDS * KINDS + 3 + 1 + 2);
	test_directions(&gpu, bytes);
	test_timeline(&gpu, bytes);
	test_list(&gpu, bytes);
	test_eviction(&gpu, total, 16 << 20);
	return finish_cases();
}
