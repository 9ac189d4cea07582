// SPDX-License-Identifier: MIT
/* HBM as a dma-buf, and programs that are given one. */
#ifndef HL_PROGRAM_H
#define HL_PROGRAM_H

#include "hl-kit.h"
#include <sys/wait.h>

/* Programs find what they are given from here on. */
#define FIRST_GIVEN 3
/* Above whatever this process has open. */
#define OUT_OF_THE_WAY 100

static inline int export_hbm(int fd, uint64_t address, uint64_t bytes)
{
	union hl_mem_args args = { 0 };

	args.in.export_dmabuf_fd.addr = address;
	args.in.export_dmabuf_fd.mem_size = bytes;
	args.in.op = HL_MEM_OP_EXPORT_DMABUF_FD;
	args.in.flags = O_RDWR | O_CLOEXEC;
	if (ioctl(fd, DRM_IOCTL_HL_MEMORY, &args))
		fail("cannot export a dma-buf: %s", strerror(errno));
	return args.out.fd;
}

/* Starts a program with copies of `count` file descriptors as its descriptors 3 and following. */
static inline pid_t start_program(char **argv, const int *given, int count)
{
	pid_t child = fork();

	if (child < 0)
		fail("cannot start %s: %s", argv[0], strerror(errno));
	if (child > 0)
		return child;
	for (int i = 0; i < count; i++)
		if (dup3(given[i], OUT_OF_THE_WAY + i, O_CLOEXEC) < 0)
			fail("cannot pass a file descriptor on: %s", strerror(errno));
	for (int i = 0; i < count; i++)
		if (dup2(OUT_OF_THE_WAY + i, FIRST_GIVEN + i) < 0)
			fail("cannot pass a file descriptor on: %s", strerror(errno));
	execvp(argv[0], argv);
	fail("cannot run %s: %s", argv[0], strerror(errno));
}

/* Its exit status; 255 when a signal ended it. */
static inline int end_of_program(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) < 0)
		fail("cannot wait for a program: %s", strerror(errno));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

#endif
