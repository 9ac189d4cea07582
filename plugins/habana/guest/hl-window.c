// SPDX-License-Identifier: MIT
/*
 * usage: hl-window BYTES PROGRAM [ARGUMENT...]
 *
 * Runs PROGRAM with a part of HBM as a dma-buf (file descriptor 3), and copies for it with the card's own DMA: memory
 * of as many bytes (4, a memfd) is filled from that part when PROGRAM sends `r` to a socket (5), and goes there when it
 * sends `w`. The same byte is the answer. The exit status is PROGRAM's.
 */
#define _GNU_SOURCE
#include "hl-kit.h"
#include "hl-program.h"
#include <sys/socket.h>

/* Serves until the program closes its end. */
static void serve(int fd, int requests, const struct host_memory *window, uint64_t hbm)
{
	char request;

	while (read(requests, &request, 1) == 1) {
		if (request == 'r')
			copy(fd, GAUDI_QUEUE_ID_DMA_1_0, window->va, hbm, window->bytes);
		else if (request == 'w')
			copy(fd, GAUDI_QUEUE_ID_DMA_0_0, hbm, window->va, window->bytes);
		else
			fail("unknown request 0x%02x", request);
		if (write(requests, &request, 1) != 1)
			fail("cannot answer: %s", strerror(errno));
	}
}

int main(int argc, char **argv)
{
	uint64_t bytes = argc > 2 ? strtoull(argv[1], NULL, 0) : 0;
	const uint64_t hbm = DRAM_USER_BASE + 16 * MIB;
	struct host_memory window;
	int fd, memory, ends[2];
	pid_t program;

	if (!bytes || bytes % 4096)
		fail("usage: hl-window BYTES PROGRAM [ARGUMENT...]");
	fd = open_card(0);
	memory = memfd_create("window", MFD_CLOEXEC);
	if (memory < 0 || ftruncate(memory, (off_t)bytes) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		fail("cannot make a window: %s", strerror(errno));
	window = map_host_file(fd, memory, bytes);
	program = start_program(argv + 2, (int[]){ export_hbm(fd, hbm, bytes), memory, ends[1] }, 3);
	close(ends[1]);
	serve(fd, ends[0], &window, hbm);
	return end_of_program(program);
}
