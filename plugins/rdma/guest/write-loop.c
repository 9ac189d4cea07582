// SPDX-License-Identifier: MIT
// link: -libverbs
/*
 * usage: export-... write-loop DEVICE PEER BYTES SECONDS
 *
 * Writes the exporter's dma-buf by RDMA, again and again, until a write fails, a SIGTERM comes or so many seconds are
 * over, whatever becomes of the exporter. Prints `{"writing":true,"pid":N}` after the first write, and at the end how
 * many succeeded and how the last one ended. If all did, it gives the region up and tries one more with the key that
 * was the region's: how that ended is `afterwards`.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <time.h>

#include "dmabuf-kit.h"
#include "verbs-kit.h"

static volatile sig_atomic_t stopped;
static struct end dmabuf, plain;
static uint64_t bytes;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static enum ibv_wc_status write_until(time_t deadline)
{
	enum ibv_wc_status status;
	uint64_t writes = 0;

	do {
		post_rdma(&plain, &dmabuf, IBV_WR_RDMA_WRITE, bytes);
		status = completion_status(&plain);
		writes += status == IBV_WC_SUCCESS;
		if (writes == 1) {
			printf("{\"writing\":true,\"pid\":%d}\n", (int)getpid());
			fflush(stdout);
		}
	} while (status == IBV_WC_SUCCESS && !stopped && time(NULL) < deadline);
	printf("{\"writes\":%" PRIu64 ",\"status\":\"%s\"}\n", writes, ibv_wc_status_str(status));
	fflush(stdout);
	return status;
}

static void write_afterwards(void)
{
	struct ibv_mr gone = *dmabuf.mr;
	struct end without_region = dmabuf;

	if (ibv_dereg_mr(dmabuf.mr))
		fail("cannot give the region up: %s", strerror(errno));
	dmabuf.mr = NULL;
	without_region.mr = &gone;
	post_rdma(&plain, &without_region, IBV_WR_RDMA_WRITE, bytes);
	printf("{\"afterwards\":\"%s\"}\n", ibv_wc_status_str(completion_status(&plain)));
}

int main(int argc, char **argv)
{
	if (argc != 5)
		fail("usage: export-... write-loop DEVICE PEER BYTES SECONDS");
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, stop);
	bytes = strtoull(argv[3], NULL, 0);
	register_ends(&dmabuf, &plain, argv + 1, DMABUF_FD, bytes);
	close(DMABUF_FD);
	if (write_until(time(NULL) + atoi(argv[4])) == IBV_WC_SUCCESS)
		write_afterwards();
	free_end(&dmabuf);
	free_end(&plain);
	finished();
	return 0;
}
