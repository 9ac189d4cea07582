// SPDX-License-Identifier: MIT
// link: -libverbs
// headers: ../../../plugins/rdma/guest
/*
 * usage: export-vram GPU BYTES import-again DEVICE PEER BYTES ROUNDS
 *
 * Registers a dma-buf, writes it by RDMA, lets the exporter's device use it meanwhile, reads it back, gives it up, and
 * lets the device use it once more: a driver that moves the buffer for an importer has a reason to move it each time.
 * Each end compares what the other one left there. Prints one JSON object a line.
 */
#define _GNU_SOURCE
#include "dmabuf-kit.h"
#include "verbs-kit.h"

static uint64_t wrong_in_a_round(struct end *dmabuf, struct end *plain, uint64_t bytes, uint32_t pass)
{
	void *words = (void *)plain->start;
	uint64_t wrong;

	dmabuf_write(words, 0, bytes, pass);
	rdma(plain, dmabuf, IBV_WR_RDMA_WRITE, bytes, "WRITE");
	exporter_uses();
	memset(words, 0, bytes);
	rdma(plain, dmabuf, IBV_WR_RDMA_READ, bytes, "READ");
	wrong = dmabuf_wrong(words, 0, bytes, pass);
	free_end(dmabuf);
	free_end(plain);
	exporter_uses();
	return wrong + exporter_compares(pass, 0, bytes, 0);
}

int main(int argc, char **argv)
{
	struct end dmabuf, plain;
	uint64_t bytes, wrong = 0;

	if (argc != 5)
		fail("usage: export-vram GPU BYTES import-again DEVICE PEER BYTES ROUNDS");
	bytes = strtoull(argv[3], NULL, 0);
	for (uint32_t round = 1; round <= (uint32_t)atoi(argv[4]); round++) {
		register_ends(&dmabuf, &plain, argv + 1, DMABUF_FD, bytes);
		wrong += wrong_in_a_round(&dmabuf, &plain, bytes, round);
	}
	step_done("again", bytes, wrong);
	finished();
	return 0;
}
