// SPDX-License-Identifier: MIT
/*
 * usage: export-memory heap|udmabuf BYTES IMPORTER [ARGUMENT...]
 *
 * Exports system memory: of the dma-buf heap `system`, or pages of a sealed memfd by /dev/udmabuf. The CPU fills and
 * compares it through a mapping. The memory lives as long as the dma-buf.
 */
#define _GNU_SOURCE
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "dmabuf-kit.h"

static uint8_t *memory;
static uint64_t memory_bytes;
/* For the heap only: its mapping is not coherent unless the CPU announces itself. */
static int synchronized = -1;

static void access_by_cpu(uint64_t flags)
{
	struct dma_buf_sync sync = { .flags = flags | DMA_BUF_SYNC_RW };

	if (synchronized >= 0 && ioctl(synchronized, DMA_BUF_IOCTL_SYNC, &sync))
		fail("DMA_BUF_IOCTL_SYNC: %s", strerror(errno));
}

static uint64_t fill(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	access_by_cpu(DMA_BUF_SYNC_START);
	dmabuf_write(memory + offset, offset, bytes, pass);
	access_by_cpu(DMA_BUF_SYNC_END);
	return 0;
}

static uint64_t wrong(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	uint64_t count;

	access_by_cpu(DMA_BUF_SYNC_START);
	count = dmabuf_wrong(memory + offset, offset, bytes, pass);
	access_by_cpu(DMA_BUF_SYNC_END);
	return count;
}

static bool release(void)
{
	munmap(memory, memory_bytes);
	if (synchronized >= 0)
		close(synchronized);
	synchronized = -1;
	return true;
}

static int open_device(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail("cannot open %s: %s", path, strerror(errno));
	return fd;
}

static void map_memory(int fd)
{
	memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		fail("cannot map %" PRIu64 " bytes: %s", memory_bytes, strerror(errno));
}

static int export_heap(void)
{
	struct dma_heap_allocation_data request = { .len = memory_bytes, .fd_flags = O_RDWR | O_CLOEXEC };
	int heap = open_device("/dev/dma_heap/system");

	if (ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &request))
		refused("export", errno);
	close(heap);
	map_memory((int)request.fd);
	synchronized = dup((int)request.fd);
	return (int)request.fd;
}

static int export_udmabuf(void)
{
	int memfd = memfd_create("export-memory", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	int device = open_device("/dev/udmabuf");
	struct udmabuf_create request = { .memfd = (uint32_t)memfd, .flags = UDMABUF_FLAGS_CLOEXEC, .size = memory_bytes };
	int dmabuf;

	if (memfd < 0 || ftruncate(memfd, (off_t)memory_bytes) || fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		fail("no sealed memfd of %" PRIu64 " bytes: %s", memory_bytes, strerror(errno));
	dmabuf = ioctl(device, UDMABUF_CREATE, &request);
	if (dmabuf < 0)
		refused("export", errno);
	map_memory(memfd);
	close(memfd);
	close(device);
	return dmabuf;
}

int main(int argc, char **argv)
{
	struct exporter exporter = { .fill = fill, .wrong = wrong, .release = release };
	int dmabuf;

	if (argc < 4)
		fail("usage: export-memory heap|udmabuf BYTES IMPORTER [ARGUMENT...]");
	memory_bytes = exporter.bytes = strtoull(argv[2], NULL, 0);
	if (strcmp(argv[1], "heap") == 0)
		dmabuf = export_heap();
	else if (strcmp(argv[1], "udmabuf") == 0)
		dmabuf = export_udmabuf();
	else
		fail("\"%s\" is neither heap nor udmabuf", argv[1]);
	serve_importer(&exporter, dmabuf, argv + 3);
}
