// SPDX-License-Identifier: MIT
/*
 * What the amdgpu programs share: devices by PCI address, mapped buffers, SDMA and PM4 commands, a pattern to compare.
 */
#ifndef AMDGPU_KIT_H
#define AMDGPU_KIT_H

#include <amdgpu.h>
#include <amdgpu_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xf86drm.h>

#include "fail.h"

#define FENCE_TIMEOUT_NS 30000000000ull
#define IB_BYTES 65536
#define MAX_GPUS 8

/* SDMA opcodes (kernel: amdgpu/vega10_sdma_pkt_open.h). CONST_FILL_DWORDS has fillsize 2 in bits 31:30. */
#define SDMA_COPY_LINEAR 1u
#define SDMA_CONST_FILL_DWORDS (11u | 2u << 30)
/* The count fields are 22 bits wide; half of that keeps pieces aligned. */
#define SDMA_MAX_BYTES (1u << 21)

struct gpu {
	char address[24];
	int fd;
	uint64_t bar0;
	uint64_t bar0_bytes;
	amdgpu_device_handle device;
	amdgpu_context_handle context;
	struct amdgpu_gpu_info info;
};

struct buffer {
	struct gpu *gpu;
	amdgpu_bo_handle handle;
	uint64_t bytes;
	uint64_t va;
	amdgpu_va_handle va_handle;
	void *cpu;
	/* Stays out of submissions' lists: the driver refuses the memory of a hive peer there (amdgpu_dma_buf_map). */
	bool unlisted;
};

/* Address and length of a PCI resource, from sysfs. */
static inline void read_bar(struct gpu *gpu, unsigned int index)
{
	unsigned long long start = 0, end = 0, flags = 0;
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.23s/resource", gpu->address);
	file = fopen(path, "r");
	if (!file)
		fail("%s: %s", path, strerror(errno));
	for (unsigned int line = 0; line <= index; line++)
		if (fscanf(file, "%llx %llx %llx", &start, &end, &flags) != 3)
			fail("%s has no line %u", path, index);
	fclose(file);
	gpu->bar0 = start;
	gpu->bar0_bytes = end - start + 1;
}

static inline void open_gpu(struct gpu *gpu, const char *address, const char *node)
{
	uint32_t major, minor;
	int error;

	snprintf(gpu->address, sizeof(gpu->address), "%s", address);
	gpu->fd = open(node, O_RDWR | O_CLOEXEC);
	if (gpu->fd < 0)
		fail("%s: %s", node, strerror(errno));
	error = amdgpu_device_initialize(gpu->fd, &major, &minor, &gpu->device);
	if (error)
		fail("amdgpu_device_initialize(%s): %s", node, strerror(-error));
	error = amdgpu_cs_ctx_create(gpu->device, &gpu->context);
	if (error)
		fail("amdgpu_cs_ctx_create(%s): %s", node, strerror(-error));
	amdgpu_query_gpu_info(gpu->device, &gpu->info);
	read_bar(gpu, 0);
}

static inline void address_of(drmDevicePtr device, char *text, size_t bytes)
{
	drmPciBusInfoPtr bus = device->businfo.pci;

	snprintf(text, bytes, "%04x:%02x:%02x.%u", bus->domain, bus->bus, bus->dev, bus->func & 7u);
}

static inline int by_address(const void *left, const void *right)
{
	char texts[2][24];

	address_of(*(const drmDevicePtr *)left, texts[0], sizeof(texts[0]));
	address_of(*(const drmDevicePtr *)right, texts[1], sizeof(texts[1]));
	return strcmp(texts[0], texts[1]);
}

/* Render nodes of AMD functions in order of their PCI addresses; `only` (may be NULL) picks one address. */
static inline int open_gpus(struct gpu *gpus, int limit, const char *only)
{
	drmDevicePtr found[16], devices[16];
	int total = drmGetDevices2(0, found, 16);
	int count = 0, opened = 0;

	for (int i = 0; i < total; i++)
		if (found[i]->bustype == DRM_BUS_PCI && found[i]->deviceinfo.pci->vendor_id == 0x1002 &&
		    found[i]->available_nodes & 1 << DRM_NODE_RENDER)
			devices[count++] = found[i];
	qsort(devices, count, sizeof(devices[0]), by_address);
	for (int i = 0; i < count && opened < limit; i++) {
		char address[24];

		address_of(devices[i], address, sizeof(address));
		if (!only || strcmp(only, address) == 0)
			open_gpu(&gpus[opened++], address, devices[i]->nodes[DRM_NODE_RENDER]);
	}
	drmFreeDevices(found, total > 0 ? total : 0);
	return opened;
}

/* Gives a buffer an address in its GPU's VM. */
static inline void map_gpu(struct buffer *buffer)
{
	int error = amdgpu_va_range_alloc(buffer->gpu->device, amdgpu_gpu_va_range_general, buffer->bytes, 4096, 0,
					  &buffer->va, &buffer->va_handle, 0);

	if (!error)
		error = amdgpu_bo_va_op(buffer->handle, 0, buffer->bytes, buffer->va, 0, AMDGPU_VA_OP_MAP);
	if (error)
		fail("%s: mapping %" PRIu64 " bytes in the GPU's VM: %s", buffer->gpu->address, buffer->bytes,
		     strerror(-error));
}

/* A buffer that only the GPU sees so far. `flags`: AMDGPU_GEM_CREATE_*. */
static inline struct buffer make_gpu_buffer(struct gpu *gpu, uint64_t bytes, uint32_t domain, uint64_t flags)
{
	struct amdgpu_bo_alloc_request request = {
		.alloc_size = bytes,
		.phys_alignment = 4096,
		.preferred_heap = domain,
		.flags = flags,
	};
	struct buffer buffer = { .gpu = gpu, .bytes = bytes };
	int error = amdgpu_bo_alloc(gpu->device, &request, &buffer.handle);

	if (error)
		fail("%s: allocating %" PRIu64 " bytes: %s", gpu->address, bytes, strerror(-error));
	map_gpu(&buffer);
	return buffer;
}

static inline void map_cpu(struct buffer *buffer)
{
	int error = amdgpu_bo_cpu_map(buffer->handle, &buffer->cpu);

	if (error)
		fail("%s: mapping %" PRIu64 " bytes for the CPU: %s", buffer->gpu->address, buffer->bytes,
		     strerror(-error));
}

static inline struct buffer make_buffer(struct gpu *gpu, uint64_t bytes, uint32_t domain)
{
	uint64_t flags = domain == AMDGPU_GEM_DOMAIN_VRAM ? AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED : 0;
	struct buffer buffer = make_gpu_buffer(gpu, bytes, domain, flags);

	map_cpu(&buffer);
	return buffer;
}

/*
 * Makes a buffer of a dma-buf that some device exported, and maps it. A negative errno when the
 * driver refuses the import.
 */
static inline int try_import(struct buffer *imported, struct gpu *gpu, int dmabuf, uint64_t bytes)
{
	struct amdgpu_bo_import_result result;
	int error = amdgpu_bo_import(gpu->device, amdgpu_bo_handle_type_dma_buf_fd, (uint32_t)dmabuf, &result);

	if (error)
		return error;
	*imported = (struct buffer){ .gpu = gpu, .bytes = bytes, .handle = result.buf_handle };
	map_gpu(imported);
	return 0;
}

static inline void free_buffer(struct buffer *buffer)
{
	if (buffer->cpu)
		amdgpu_bo_cpu_unmap(buffer->handle);
	amdgpu_bo_va_op(buffer->handle, 0, buffer->bytes, buffer->va, 0, AMDGPU_VA_OP_UNMAP);
	amdgpu_va_range_free(buffer->va_handle);
	amdgpu_bo_free(buffer->handle);
}

/* Commands under construction, in a buffer of their own. */
struct commands {
	struct buffer ib;
	uint32_t *dwords;
	uint32_t count;
};

static inline struct commands begin(struct gpu *gpu)
{
	struct commands commands = { .ib = make_buffer(gpu, IB_BYTES, AMDGPU_GEM_DOMAIN_GTT) };

	commands.dwords = commands.ib.cpu;
	return commands;
}

static inline void emit(struct commands *commands, uint32_t dword)
{
	if (commands->count >= IB_BYTES / 4)
		fail("more commands than a buffer of %d bytes holds", IB_BYTES);
	commands->dwords[commands->count++] = dword;
}

static inline void emit_address(struct commands *commands, uint64_t address)
{
	emit(commands, (uint32_t)address);
	emit(commands, (uint32_t)(address >> 32));
}

static inline void sdma_copy(struct commands *commands, uint64_t to, uint64_t from, uint64_t bytes)
{
	while (bytes > 0) {
		uint32_t piece = bytes > SDMA_MAX_BYTES ? SDMA_MAX_BYTES : (uint32_t)bytes;

		emit(commands, SDMA_COPY_LINEAR);
		emit(commands, piece - 1);
		emit(commands, 0);
		emit_address(commands, from);
		emit_address(commands, to);
		to += piece;
		from += piece;
		bytes -= piece;
	}
}

static inline void sdma_fill(struct commands *commands, uint64_t to, uint32_t value, uint64_t bytes)
{
	while (bytes > 0) {
		uint32_t piece = bytes > SDMA_MAX_BYTES ? SDMA_MAX_BYTES : (uint32_t)bytes;

		emit(commands, SDMA_CONST_FILL_DWORDS);
		emit_address(commands, to);
		emit(commands, value);
		emit(commands, piece - 1);
		to += piece;
		bytes -= piece;
	}
}

/*
 * Submits to the engine, waits for the fence, frees the commands. A negative errno when the
 * driver refuses the submission.
 */
static inline int try_submit(struct commands *commands, uint32_t engine, struct buffer **buffers, int count)
{
	struct gpu *gpu = commands->ib.gpu;
	amdgpu_bo_handle handles[8] = { commands->ib.handle };
	struct amdgpu_cs_ib_info ib = { .ib_mc_address = commands->ib.va, .size = commands->count };
	struct amdgpu_cs_request request = { .ip_type = engine, .number_of_ibs = 1, .ibs = &ib };
	struct amdgpu_cs_fence fence = { .context = gpu->context, .ip_type = engine };
	uint32_t expired = 0;
	int listed = 1;
	int refused, error;

	for (int i = 0; i < count; i++)
		if (!buffers[i]->unlisted)
			handles[listed++] = buffers[i]->handle;
	refused = amdgpu_bo_list_create(gpu->device, listed, handles, NULL, &request.resources);
	if (!refused) {
		refused = amdgpu_cs_submit(gpu->context, 0, &request, 1);
		amdgpu_bo_list_destroy(request.resources);
	}
	fence.fence = request.seq_no;
	error = refused ? 0 : amdgpu_cs_query_fence_status(&fence, FENCE_TIMEOUT_NS, 0, &expired);
	if (error || (!refused && !expired))
		fail("%s: waiting for fence %" PRIu64 ": %s", gpu->address, fence.fence,
		     error ? strerror(-error) : "timed out");
	free_buffer(&commands->ib);
	return refused;
}

static inline void submit(struct commands *commands, uint32_t engine, struct buffer **buffers, int count)
{
	int error = try_submit(commands, engine, buffers, count);

	if (error)
		fail("%s: submitting %u dwords: %s", commands->ib.gpu->address, commands->count, strerror(-error));
}

/* The value of dword `index` of pattern `pass`: the host computes the same (finalizer of MurmurHash3). */
static inline uint32_t pattern(uint32_t seed, uint32_t pass, uint64_t index)
{
	uint32_t value = seed + pass * 0x9e3779b9u + (uint32_t)index;

	value = (value ^ value >> 16) * 0x85ebca6bu;
	value = (value ^ value >> 13) * 0xc2b2ae35u;
	return value ^ value >> 16;
}

static inline void write_pattern(void *memory, uint64_t bytes, uint32_t seed, uint32_t pass)
{
	volatile uint32_t *dwords = memory;

	for (uint64_t i = 0; i < bytes / 4; i++)
		dwords[i] = pattern(seed, pass, i);
}

/* Number of wrong bytes; `first` gets the offset of the first one. Reads through a copy: the source may be a BAR. */
static inline uint64_t wrong_bytes(const void *memory, uint64_t bytes, uint32_t seed, uint32_t pass, uint64_t *first)
{
	static uint32_t copy[16384];
	uint64_t wrong = 0;

	for (uint64_t done = 0; done < bytes; done += sizeof(copy)) {
		uint64_t piece = bytes - done < sizeof(copy) ? bytes - done : sizeof(copy);

		memcpy(copy, (const uint8_t *)memory + done, piece);
		for (uint64_t i = 0; i < piece / 4; i++) {
			uint32_t different = copy[i] ^ pattern(seed, pass, done / 4 + i);

			for (unsigned int byte = 0; different; byte++, different >>= 8)
				if ((different & 0xff) && wrong++ == 0)
					*first = done + 4 * i + byte;
		}
	}
	return wrong;
}

/* Interrupts of one function so far, from /proc/interrupts; -1 if it has no line. */
static inline long interrupts_of(const struct gpu *gpu)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[4096];
	long total = -1;

	while (file && fgets(line, sizeof(line), file)) {
		char *rest = strchr(line, ':');
		char *end;

		if (!rest || !strstr(line, gpu->address))
			continue;
		total = total < 0 ? 0 : total;
		for (rest++;; rest = end) {
			long count = strtol(rest, &end, 10);

			if (end == rest || (*end != ' ' && *end != '\t'))
				break;
			total += count;
		}
	}
	if (file)
		fclose(file);
	return total;
}

/* Reads 64K, 4M, 1G or plain bytes. */
static inline uint64_t parse_bytes(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	switch (*end) {
	case 'G': case 'g': value <<= 10; /* fall through */
	case 'M': case 'm': value <<= 10; /* fall through */
	case 'K': case 'k': value <<= 10; end++;
	}
	if (*end || value == 0 || value % 4096)
		fail("\"%s\" is not a size; write a multiple of 4096 such as 64K or 16M", text);
	return value;
}

#endif
