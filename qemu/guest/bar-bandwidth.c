// SPDX-License-Identifier: MIT
/*
 * usage: bar-bandwidth RESOURCE
 * Maps a PCI resource file (/sys/bus/pci/devices/…/resource2) and as much anonymous memory, writes and reads both with
 * memcpy, and prints "write NS_BAR NS_RAM" and "read NS_BAR NS_RAM" for one pass over the block: the fastest of many,
 * since whatever else runs on the host makes single passes several times slower.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BLOCK_BYTES = 2 * 1024 * 1024, PASSES = 64 };

static double now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static double pass_ns(char *to, const char *from)
{
	double best = 1e18;

	memcpy(to, from, BLOCK_BYTES);
	for (int pass = 0; pass < PASSES; pass++) {
		double start = now_ns(), taken;

		memcpy(to, from, BLOCK_BYTES);
		__asm__ volatile("" ::"r"(to), "r"(from) : "memory");
		taken = now_ns() - start;
		best = taken < best ? taken : best;
	}
	return best;
}

static char *map(int fd)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	char *bytes = mmap(NULL, BLOCK_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (bytes == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return bytes;
}

int main(int argc, char **argv)
{
	int fd = argc == 2 ? open(argv[1], O_RDWR) : -1;

	if (fd < 0) {
		fprintf(stderr, "usage: %s RESOURCE (a file that can be opened and mapped)\n", argv[0]);
		return 2;
	}
	char *bar = map(fd), *ram = map(-1), *other = map(-1);
	memset(other, 1, BLOCK_BYTES);
	memset(ram, 2, BLOCK_BYTES);
	printf("write %.0f %.0f\n", pass_ns(bar, other), pass_ns(ram, other));
	printf("read %.0f %.0f\n", pass_ns(other, bar), pass_ns(other, ram));
	return 0;
}
