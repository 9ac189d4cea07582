// SPDX-License-Identifier: MIT
/* What the habanalabs programs share: a card, mapped host memory, command buffers, submissions, packets, a pattern. */
#ifndef HL_KIT_H
#define HL_KIT_H

#include <drm/habanalabs_accel.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"

#define KIB 1024ull
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)

#define WAIT_US 60000000ull
/* Kernel: include/gaudi/gaudi.h. */
#define CFG_BASE 0x7ffc000000ull
#define SRAM_USER_BASE 0x7ff0010000ull
#define DRAM_USER_BASE 0x20000000ull
/* cfg offsets: SYNC_MNGR_W_S and E_N objects (gaudi_blocks.h). */
#define SOB_W_S 0x492000ull
#define SOB_E_N 0x4f2000ull
#define MON_ADDRL 0x2000
#define MON_ADDRH 0x2800
#define MON_DATA 0x3000
#define MON_ARM 0x3800

/* Packets, include/gaudi/gaudi_packets.h. */
#define OP_MSG_LONG 0x3u
#define OP_FENCE 0x8u
#define OP_LIN_DMA 0x9u
#define OP_NOP 0xau
#define CTL(op) ((op) << 24)
#define CTL_BARRIERS 0xe0000000u
#define DMA_LINEAR 8u
#define DMA_MEMSET 16u

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* ---- the card ------------------------------------------------------------------------------------------------- */

static inline int open_card(int index)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/accel/accel%d", index);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fail("cannot open %s: %s", path, strerror(errno));
	return fd;
}

static inline int card_info(int fd, uint32_t op, void *answer, uint32_t bytes, uint32_t argument)
{
	struct hl_info_args args = { 0 };

	args.return_pointer = (uintptr_t)answer;
	args.return_size = bytes;
	args.op = op;
	args.pll_index = argument;
	return ioctl(fd, DRM_IOCTL_HL_INFO, &args);
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

struct host_memory {
	unsigned char *cpu;
	uint64_t va;
	size_t bytes;
};

/* Memory of a file descriptor, or of its own with -1. */
static inline struct host_memory map_host_file(int fd, int memory_fd, size_t bytes)
{
	struct host_memory memory = { .bytes = bytes };
	union hl_mem_args args = { 0 };
	int flags = MAP_POPULATE | (memory_fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);

	memory.cpu = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, memory_fd, 0);
	if (memory.cpu == MAP_FAILED)
		fail("cannot allocate %zu bytes: %s", bytes, strerror(errno));
	args.in.map_host.host_virt_addr = (uintptr_t)memory.cpu;
	args.in.map_host.mem_size = bytes;
	args.in.op = HL_MEM_OP_MAP;
	args.in.flags = HL_MEM_USERPTR;
	if (ioctl(fd, DRM_IOCTL_HL_MEMORY, &args))
		fail("cannot map %zu bytes: %s", bytes, strerror(errno));
	memory.va = args.out.device_virt_addr;
	return memory;
}

static inline struct host_memory map_host(int fd, size_t bytes)
{
	return map_host_file(fd, -1, bytes);
}

static inline void unmap_host(int fd, struct host_memory *memory)
{
	union hl_mem_args args = { 0 };

	args.in.unmap.device_virt_addr = memory->va;
	args.in.op = HL_MEM_OP_UNMAP;
	if (ioctl(fd, DRM_IOCTL_HL_MEMORY, &args))
		fail("cannot unmap: %s", strerror(errno));
	munmap(memory->cpu, memory->bytes);
}

/* Different for every seed and position; cheap enough for a GiB under emulation. */
static inline uint64_t pattern_word(uint64_t seed, uint64_t index)
{
	return (index + 1) * 0x9e3779b97f4a7c15ull ^ (seed * 0xd6e8feb86659fd93ull);
}

static inline void write_pattern(void *memory, size_t bytes, uint64_t seed)
{
	uint64_t *words = memory;

	for (size_t i = 0; i < bytes / 8; i++)
		words[i] = pattern_word(seed, i);
}

static inline bool has_pattern(const void *memory, size_t bytes, uint64_t seed)
{
	const uint64_t *words = memory;

	for (size_t i = 0; i < bytes / 8; i++) {
		if (words[i] != pattern_word(seed, i)) {
			printf("# byte %zu of %zu: %016" PRIx64 ", expected %016" PRIx64 "\n", 8 * i, bytes, words[i],
			       pattern_word(seed, i));
			return false;
		}
	}
	return true;
}

/* ---- command buffers ------------------------------------------------------------------------------------------- */

struct commands {
	uint64_t handle;
	unsigned char *cpu;
	uint32_t bytes;
	uint32_t capacity;
};

/* A buffer of the driver, for the external queues. */
static inline struct commands make_commands(int fd, uint32_t capacity)
{
	struct commands commands = { .capacity = capacity };
	union hl_cb_args args = { 0 };

	args.in.op = HL_CB_OP_CREATE;
	args.in.cb_size = capacity;
	if (ioctl(fd, DRM_IOCTL_HL_CB, &args))
		fail("cannot create a command buffer: %s", strerror(errno));
	commands.handle = args.out.cb_handle;
	commands.cpu = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)commands.handle);
	if (commands.cpu == MAP_FAILED)
		fail("cannot map a command buffer: %s", strerror(errno));
	return commands;
}

static inline void free_commands(int fd, struct commands *commands)
{
	union hl_cb_args args = { 0 };

	munmap(commands->cpu, commands->capacity);
	args.in.op = HL_CB_OP_DESTROY;
	args.in.cb_handle = commands->handle;
	if (ioctl(fd, DRM_IOCTL_HL_CB, &args))
		fail("cannot destroy a command buffer: %s", strerror(errno));
}

static inline void put(struct commands *commands, const void *words, uint32_t bytes)
{
	if (commands->bytes + bytes > commands->capacity)
		fail("a command buffer of %u bytes is too small", commands->capacity);
	memcpy(commands->cpu + commands->bytes, words, bytes);
	commands->bytes += bytes;
}

static inline void put_nop(struct commands *commands)
{
	put(commands, (uint32_t[]){ 0, CTL(OP_NOP) }, 8);
}

static inline void put_copy(struct commands *commands, uint64_t to, uint64_t from, uint32_t bytes)
{
	uint32_t words[] = { bytes, CTL(OP_LIN_DMA) | CTL_BARRIERS | DMA_LINEAR,
			     (uint32_t)from, from >> 32, (uint32_t)to, to >> 32 };

	put(commands, words, sizeof(words));
}

static inline void put_fill(struct commands *commands, uint64_t to, uint64_t value, uint32_t bytes)
{
	uint32_t words[] = { bytes, CTL(OP_LIN_DMA) | CTL_BARRIERS | DMA_LINEAR | DMA_MEMSET,
			     (uint32_t)value, value >> 32, (uint32_t)to, to >> 32 };

	put(commands, words, sizeof(words));
}

static inline void put_message(struct commands *commands, uint64_t to, uint32_t value)
{
	uint32_t words[] = { value, CTL(OP_MSG_LONG) | CTL_BARRIERS, (uint32_t)to, to >> 32 };

	put(commands, words, sizeof(words));
}

static inline void put_fence(struct commands *commands, uint32_t id, uint32_t target, uint32_t decrement)
{
	put(commands, (uint32_t[]){ id << 30 | target << 16 | decrement, CTL(OP_FENCE) | CTL_BARRIERS }, 8);
}

static inline uint64_t sob_address(uint32_t sob)
{
	return CFG_BASE + SOB_W_S + 4 * sob;
}

/* Adds to a sync object. */
static inline void put_signal(struct commands *commands, uint32_t sob, uint32_t increment)
{
	put_message(commands, sob_address(sob), 0x80000000u | increment);
}

/* Fence 0 of a stream of one of the two external queue managers (DMA0, DMA1). */
static inline uint64_t external_fence(uint32_t queue)
{
	return CFG_BASE + 0x508308 + (queue / 4) * 0x20000 + (queue % 4) * 4;
}

/* Lets the stream wait until a sync object has reached a value. */
static inline void put_wait(struct commands *commands, uint32_t queue, uint32_t sob, uint32_t monitor, uint32_t value)
{
	uint64_t base = CFG_BASE + SOB_W_S;
	uint64_t fence = external_fence(queue);

	put_message(commands, base + MON_ADDRL + 4 * monitor, (uint32_t)fence);
	put_message(commands, base + MON_ADDRH + 4 * monitor, fence >> 32);
	put_message(commands, base + MON_DATA + 4 * monitor, 1);
	put_message(commands, base + MON_ARM + 4 * monitor,
		    sob / 8 | (0xffu & ~(1u << sob % 8)) << 8 | value << 17);
	put_fence(commands, 0, 1, 1);
}

/* ---- submissions ------------------------------------------------------------------------------------------------ */

static inline int submit_flags(int fd, struct hl_cs_chunk *chunks, uint32_t count, uint32_t flags, uint32_t timeout_s,
			       uint64_t *sequence)
{
	union hl_cs_args args = { 0 };

	args.in.chunks_execute = (uintptr_t)chunks;
	args.in.num_chunks_execute = count;
	args.in.cs_flags = flags;
	args.in.timeout = timeout_s;
	if (ioctl(fd, DRM_IOCTL_HL_CS, &args))
		return -errno;
	*sequence = args.out.seq;
	return 0;
}

static inline uint64_t submit(int fd, uint32_t queue, const struct commands *commands, uint32_t flags)
{
	struct hl_cs_chunk chunk = { 0 };
	uint64_t sequence;
	int error;

	chunk.cb_handle = commands->handle;
	chunk.queue_index = queue;
	chunk.cb_size = commands->bytes;
	error = submit_flags(fd, &chunk, 1, flags, 0, &sequence);
	if (error)
		fail("cannot submit to queue %u: %s", queue, strerror(-error));
	return sequence;
}

/* HL_WAIT_CS_STATUS_*; a negative errno when the wait itself failed. */
static inline int wait_for(int fd, uint64_t sequence, uint64_t timeout_us, int64_t *timestamp_ns)
{
	union hl_wait_cs_args args = { 0 };

	args.in.seq = sequence;
	args.in.timeout_us = timeout_us;
	if (ioctl(fd, DRM_IOCTL_HL_WAIT_CS, &args))
		return -errno;
	if (timestamp_ns)
		*timestamp_ns = args.out.flags & HL_WAIT_CS_STATUS_FLAG_TIMESTAMP_VLD ? args.out.timestamp_nsec : 0;
	return (int)args.out.status;
}

static inline void finish(int fd, uint64_t sequence)
{
	int status = wait_for(fd, sequence, WAIT_US, NULL);

	if (status != HL_WAIT_CS_STATUS_COMPLETED)
		fail("submission %" PRIu64 " did not complete: status %d", sequence, status);
}

static inline void run_commands(int fd, uint32_t queue, const struct commands *commands)
{
	finish(fd, submit(fd, queue, commands, 0));
}

/* One copy with a queue, waited for. Longer than a packet can say: several packets. */
static inline void copy(int fd, uint32_t queue, uint64_t to, uint64_t from, uint64_t bytes)
{
	struct commands commands = make_commands(fd, 4096);

	for (uint64_t done = 0; done < bytes;) {
		uint64_t piece = bytes - done < GIB ? bytes - done : GIB;

		put_copy(&commands, to + done, from + done, (uint32_t)piece);
		done += piece;
	}
	run_commands(fd, queue, &commands);
	free_commands(fd, &commands);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static int cases, failures;

static inline void report(bool passed, const char *format, ...)
{
	va_list arguments;

	printf("%s %d ", passed ? "ok" : "not ok", ++cases);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
	failures += !passed;
}

static inline int summary(void)
{
	printf("1..%d\n# %d failed\n", cases, failures);
	return failures != 0;
}

#endif
