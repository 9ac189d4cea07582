// SPDX-License-Identifier: MIT
/*
 * usage: hl-bench [CARD]
 *
 * Times copies by a Gaudi's DMA and submissions with the stock driver, against memcpy in the guest and an ioctl that
 * asks the driver for what it knows. One line of JSON.
 */
#include "hl-kit.h"

#define BYTES (64 * MIB)
#define ROUNDS 4
#define SUBMISSIONS 500

static int fd;

static double mib_per_s(uint64_t ns)
{
	return (double)BYTES * ROUNDS / MIB / ((double)ns / 1e9);
}

static double time_copy(uint64_t to, uint64_t from)
{
	uint64_t start = now_ns();

	for (int i = 0; i < ROUNDS; i++)
		copy(fd, GAUDI_QUEUE_ID_DMA_0_0, to, from, BYTES);
	return mib_per_s(now_ns() - start);
}

static double time_memcpy(struct host_memory *to, struct host_memory *from)
{
	uint64_t start = now_ns();

	for (int i = 0; i < ROUNDS; i++) {
		memcpy(to->cpu, from->cpu, BYTES);
		__asm__ volatile("" ::: "memory");
	}
	return mib_per_s(now_ns() - start);
}

static double round_trip_us(void)
{
	struct commands commands = make_commands(fd, 4096);
	uint64_t start;

	put_nop(&commands);
	start = now_ns();
	for (int i = 0; i < SUBMISSIONS; i++)
		run_commands(fd, GAUDI_QUEUE_ID_DMA_0_0, &commands);
	return (double)(now_ns() - start) / 1e3 / SUBMISSIONS;
}

static double information_us(void)
{
	struct hl_info_device_status status;
	uint64_t start = now_ns();

	for (int i = 0; i < SUBMISSIONS; i++)
		if (card_info(fd, HL_INFO_DEVICE_STATUS, &status, sizeof(status), 0))
			fail("cannot ask for the status: %s", strerror(errno));
	return (double)(now_ns() - start) / 1e3 / SUBMISSIONS;
}

int main(int argc, char **argv)
{
	struct host_memory from, to;
	double plain, down, up, inside;

	fd = open_card(argc > 1 ? atoi(argv[1]) : 0);
	from = map_host(fd, BYTES);
	to = map_host(fd, BYTES);
	write_pattern(from.cpu, BYTES, 1);
	memset(to.cpu, 0, BYTES);
	plain = time_memcpy(&to, &from);
	copy(fd, GAUDI_QUEUE_ID_DMA_0_0, DRAM_USER_BASE, from.va, BYTES);
	copy(fd, GAUDI_QUEUE_ID_DMA_0_0, DRAM_USER_BASE + GIB, DRAM_USER_BASE, BYTES);
	down = time_copy(DRAM_USER_BASE, from.va);
	inside = time_copy(DRAM_USER_BASE + GIB, DRAM_USER_BASE);
	up = time_copy(to.va, DRAM_USER_BASE);
	printf("{\"memcpyMiBps\":%.0f,\"hostToHbm\":%.0f,\"hbmToHbm\":%.0f,\"hbmToHost\":%.0f,", plain, down, inside, up);
	printf("\"roundTripUs\":%.0f,\"informationUs\":%.1f}\n", round_trip_us(), information_us());
	return has_pattern(to.cpu, BYTES, 1) ? 0 : 1;
}
