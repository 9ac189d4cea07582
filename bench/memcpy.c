// SPDX-License-Identifier: MIT
/* Prints, for each size given, the nanoseconds that one memcpy between two shared memory files takes. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static char *shared(size_t size)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, size)) {
		perror("memfd");
		exit(1);
	}
	char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	memset(bytes, 1, size);
	return bytes;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		size_t size = strtoull(argv[i], NULL, 0);
		long rounds = 256 * 1024 * 1024L / size;
		char *to = shared(size), *from = shared(size);
		struct timespec start, end;

		if (rounds > 1000000)
			rounds = 1000000;
		clock_gettime(CLOCK_MONOTONIC, &start);
		for (long round = 0; round < rounds; round++) {
			memcpy(to, from, size);
			__asm__ volatile("" ::"r"(to), "r"(from) : "memory");
		}
		clock_gettime(CLOCK_MONOTONIC, &end);
		printf("%zu %.2f\n", size,
		       ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / rounds);
	}
	return 0;
}
