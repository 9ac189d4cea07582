// SPDX-License-Identifier: MIT
/* Cases in KTAP, and what most of them do: copy by SDMA, compare with a pattern. */
#ifndef AMDGPU_CASES_H
#define AMDGPU_CASES_H

#include "amdgpu-kit.h"

/* PM4 DMA_DATA (kernel: amdgpu/soc15d.h); byte counts are 26 bits wide. */
#define PM4_DMA_DATA (3u << 30 | 5u << 16 | 0x50u << 8)
/* The single-dword filler, to a multiple of 8 dwords. */
#define PM4_FILLER 0xffff1000u

static int cases, failures;

static inline void report(bool passed, const char *what)
{
	printf("%s %d %s\n", passed ? "ok" : "not ok", ++cases, what);
	failures += !passed;
}

/* Says how many failed; the program's exit status. */
static inline int finish_cases(void)
{
	printf("# %d of %d cases failed\n", failures, cases);
	return failures ? 1 : 0;
}

static inline bool holds(const struct buffer *buffer, uint32_t seed, uint32_t pass)
{
	uint64_t first = 0;
	uint64_t wrong = wrong_bytes(buffer->cpu, buffer->bytes, seed, pass, &first);

	if (wrong)
		printf("# %" PRIu64 " bytes are wrong, the first at offset %" PRIu64 "\n", wrong, first);
	return wrong == 0;
}

static inline void copy(struct buffer *to, struct buffer *from)
{
	struct commands commands = begin(to->gpu);

	sdma_copy(&commands, to->va, from->va, to->bytes);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ to, from }, 2);
}

/* Commands for a compute ring. */
static inline void compute_copy(struct commands *commands, uint64_t to, uint64_t from, uint64_t bytes)
{
	for (uint64_t done = 0; done < bytes; done += SDMA_MAX_BYTES) {
		emit(commands, PM4_DMA_DATA);
		emit(commands, 0);
		emit_address(commands, from + done);
		emit_address(commands, to + done);
		emit(commands, (uint32_t)(bytes - done < SDMA_MAX_BYTES ? bytes - done : SDMA_MAX_BYTES));
	}
	while (commands->count % 8)
		emit(commands, PM4_FILLER);
}

#endif
