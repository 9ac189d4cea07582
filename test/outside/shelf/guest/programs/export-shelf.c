// SPDX-License-Identifier: MIT
// headers: ../driver
/* usage: export-shelf ADDRESS BYTES IMPORTER [ARGUMENT...]: an exporter of the dma-buf matrix, see dmabuf-kit.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "dmabuf-kit.h"
#include "shelf.h"

static uint8_t *memory;
static int device;
static struct exporter exporter;

static uint64_t fill(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	dmabuf_write(memory + offset, offset, bytes, pass);
	return 0;
}

static uint64_t wrong(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	return dmabuf_wrong(memory + offset, offset, bytes, pass);
}

/* The memory is the card's: it stays. */
static bool release(void)
{
	munmap(memory, exporter.bytes);
	close(device);
	return true;
}

int main(int argc, char **argv)
{
	char path[64];
	__u64 bytes;
	int dmabuf;

	if (argc < 4)
		fail("usage: export-shelf ADDRESS BYTES IMPORTER [ARGUMENT...]");
	snprintf(path, sizeof(path), "/dev/shelf-%s", argv[1]);
	exporter = (struct exporter){ .fill = fill, .wrong = wrong, .release = release };
	exporter.bytes = bytes = strtoull(argv[2], NULL, 0);
	device = open(path, O_RDWR | O_CLOEXEC);
	if (device < 0)
		fail("cannot open %s: %s", path, strerror(errno));
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	if (memory == MAP_FAILED)
		fail("cannot map %s: %s", path, strerror(errno));
	dmabuf = ioctl(device, SHELF_IOC_EXPORT, &bytes);
	if (dmabuf < 0)
		refused("export", errno);
	serve_importer(&exporter, dmabuf, argv + 3);
}
