// SPDX-License-Identifier: MIT
// link: -libverbs
// headers: ../../../plugins/rdma/guest
/*
 * usage: export-vram GPU BYTES follow-move DEVICE PEER BYTES
 *
 * Holds a memory region over a dma-buf that its driver moves out of the VRAM for want of room: RDMA before,
 * writes that are under way while it moves, and RDMA after, with the same key all the time. The adapter's
 * next access faults and brings the buffer to where there is room by then. Each time the exporter's CPU
 * sees every byte. Prints one JSON object a line.
 */
#define _GNU_SOURCE
#include "dmabuf-kit.h"
#include "verbs-kit.h"

/* As many as the send queue takes. */
#define WRITES_UNDER_WAY 8

static struct end dmabuf, plain;
static uint64_t bytes;

static void write_and_read(const char *where, uint32_t pass)
{
	void *words = (void *)plain.start;

	dmabuf_write(words, 0, bytes, pass);
	rdma(&plain, &dmabuf, IBV_WR_RDMA_WRITE, bytes, where);
	step_done(where, bytes, exporter_compares(pass, 0, bytes, 0));
	memset(words, 0, bytes);
	rdma(&plain, &dmabuf, IBV_WR_RDMA_READ, bytes, where);
	step_done(where, bytes, dmabuf_wrong(words, 0, bytes, pass));
}

static void write_while_moving(const char *where, uint32_t pass)
{
	dmabuf_write((void *)plain.start, 0, bytes, pass);
	for (int i = 0; i < WRITES_UNDER_WAY; i++)
		post_rdma(&plain, &dmabuf, IBV_WR_RDMA_WRITE, bytes);
	exporter_evicts();
	for (int i = 0; i < WRITES_UNDER_WAY; i++)
		completion(&plain, where);
	step_done(where, bytes, exporter_compares(pass, 0, bytes, 0));
}

int main(int argc, char **argv)
{
	if (argc != 4)
		fail("usage: export-vram GPU BYTES follow-move DEVICE PEER BYTES");
	bytes = strtoull(argv[3], NULL, 0);
	register_ends(&dmabuf, &plain, argv + 1, DMABUF_FD, bytes);
	write_and_read("before", 1);
	write_while_moving("while it moves", 2);
	write_and_read("after", 3);
	free_end(&dmabuf);
	free_end(&plain);
	finished();
	return 0;
}
