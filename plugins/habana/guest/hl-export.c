// SPDX-License-Identifier: MIT
/*
 * usage: hl-export BYTES PROGRAM [ARGUMENT...]
 *
 * Fills HBM with pattern 1 by the card's own DMA, exports it as a dma-buf, and runs PROGRAM with the dma-buf as file
 * descriptor 3. PROGRAM reads pattern 1 and writes pattern 2 (amdgpu-import does); the card's DMA then reads HBM back
 * and every byte is compared. Prints KTAP; the exit status is 0 when all went well, 2 when PROGRAM failed.
 */
#define _GNU_SOURCE
#include "hl-kit.h"
#include "hl-program.h"

#define SEED 4711

/* The pattern of the amdgpu programs: murmur3's 32-bit finalizer of seed, pass and position. */
static uint32_t gpu_pattern(uint32_t pass, uint32_t index)
{
	uint32_t value = SEED + pass * 0x9e3779b9u + index;

	value = (value ^ value >> 16) * 0x85ebca6bu;
	value = (value ^ value >> 13) * 0xc2b2ae35u;
	return value ^ value >> 16;
}

int main(int argc, char **argv)
{
	uint64_t bytes = argc > 2 ? strtoull(argv[1], NULL, 0) : 0;
	const uint64_t hbm = DRAM_USER_BASE + 16 * MIB;
	struct host_memory area;
	uint32_t *words, wrong = 0;
	int fd, status;

	if (!bytes || bytes % 4096)
		fail("usage: hl-export BYTES PROGRAM [ARGUMENT...]");
	fd = open_card(0);
	area = map_host(fd, bytes);
	words = (uint32_t *)area.cpu;
	for (uint32_t i = 0; i < bytes / 4; i++)
		words[i] = gpu_pattern(1, i);
	copy(fd, GAUDI_QUEUE_ID_DMA_0_0, hbm, area.va, bytes);
	status = end_of_program(start_program(argv + 2, (int[]){ export_hbm(fd, hbm, bytes) }, 1));
	report(status == 0, "%s used the dma-buf (%d)", argv[2], status);
	if (status)
		return 2;
	memset(area.cpu, 0, bytes);
	copy(fd, GAUDI_QUEUE_ID_DMA_1_0, area.va, hbm, bytes);
	for (uint32_t i = 0; i < bytes / 4; i++)
		wrong += words[i] != gpu_pattern(2, i);
	report(wrong == 0, "the card's DMA reads back what the other device wrote (%u words wrong)", wrong);
	return summary();
}
