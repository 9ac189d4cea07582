// SPDX-License-Identifier: MIT
// link: -libverbs
/*
 * usage: export-... write-loop DEVICE PEER BYTES SECONDS
 *
 * Writes the exporter's dma-buf by RDMA, again and again, until a write fails or so many seconds are over, whatever becomes of the
 * exporter. Prints `{"writing":true}` after the first write, and at the end how many succeeded and how the last one ended.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <time.h>

#include "dmabuf-kit.h"
#include "verbs-kit.h"

int main(int argc, char **argv)
{
	enum ibv_wc_status status = IBV_WC_SUCCESS;
	struct end dmabuf, plain;
	uint64_t bytes, writes = 0;
	time_t deadline;

	if (argc != 5)
		fail("usage: export-... write-loop DEVICE PEER BYTES SECONDS");
	signal(SIGHUP, SIG_IGN);
	bytes = strtoull(argv[3], NULL, 0);
	deadline = time(NULL) + atoi(argv[4]);
	register_ends(&dmabuf, &plain, argv + 1, DMABUF_FD, bytes);
	close(DMABUF_FD);
	while (status == IBV_WC_SUCCESS && time(NULL) < deadline) {
		post_rdma(&plain, &dmabuf, IBV_WR_RDMA_WRITE, bytes);
		status = completion_status(&plain);
		writes += status == IBV_WC_SUCCESS;
		if (writes == 1) {
			printf("{\"writing\":true}\n");
			fflush(stdout);
		}
	}
	printf("{\"writes\":%" PRIu64 ",\"status\":\"%s\"}\n", writes, ibv_wc_status_str(status));
	free_end(&dmabuf);
	free_end(&plain);
	finished();
	return 0;
}
