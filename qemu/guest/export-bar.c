// SPDX-License-Identifier: MIT
/*
 * usage: export-bar [--twice] ADDRESS BAR BYTES IMPORTER [ARGUMENT...]
 *
 * Exports the beginning of a memory BAR of a function that vfio-pci has bound (since 6.19:
 * drivers/vfio/pci/vfio_pci_dmabuf.c). The CPU fills and compares it through vfio's mapping. Closing the device
 * revokes the dma-buf (vfio_pci_dma_buf_cleanup).
 */
#define _GNU_SOURCE
#include <libgen.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "dmabuf-kit.h"

/* Newer than the headers of Debian 13 (uapi/linux/vfio.h, 6.19). */
#define FEATURE_DMA_BUF 11
struct dma_range {
	uint64_t offset, length;
};
struct feature_dma_buf {
	uint32_t region_index, open_flags, flags, ranges;
	struct dma_range range[1];
};

static uint8_t *memory;
static uint64_t memory_bytes;
static int container, group, device;

static uint64_t fill(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	dmabuf_write(memory + offset, offset, bytes, pass);
	return 0;
}

static uint64_t wrong(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	return dmabuf_wrong(memory + offset, offset, bytes, pass);
}

static bool release(void)
{
	munmap(memory, memory_bytes);
	close(device);
	close(group);
	close(container);
	return false;
}

static int open_path(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail("cannot open %s: %s", path, strerror(errno));
	return fd;
}

static void open_device(const char *address)
{
	char link[PATH_MAX], target[PATH_MAX], path[PATH_MAX];
	ssize_t length;

	snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s/iommu_group", address);
	length = readlink(link, target, sizeof(target) - 1);
	if (length < 0)
		fail("%s is in no IOMMU group: %s", address, strerror(errno));
	target[length] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%s", basename(target));
	container = open_path("/dev/vfio/vfio");
	group = open_path(path);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		fail("%s: no IOMMU for the group: %s", path, strerror(errno));
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
	if (device < 0)
		fail("%s: no device for %s: %s", path, address, strerror(errno));
}

static void map_bar(uint32_t bar)
{
	struct vfio_region_info region = { .argsz = sizeof(region), .index = bar };

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region) || region.size < memory_bytes)
		fail("BAR%u has no %" PRIu64 " bytes", bar, memory_bytes);
	memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)region.offset);
	if (memory == MAP_FAILED)
		fail("cannot map BAR%u: %s", bar, strerror(errno));
}

static int export_bar(uint32_t bar)
{
	struct {
		struct vfio_device_feature header;
		struct feature_dma_buf request;
	} feature = {
		.header = { .argsz = sizeof(feature), .flags = VFIO_DEVICE_FEATURE_GET | FEATURE_DMA_BUF },
		.request = { .region_index = bar, .open_flags = O_RDWR | O_CLOEXEC, .ranges = 1,
			     .range = { { .length = memory_bytes } } },
	};
	int dmabuf = ioctl(device, VFIO_DEVICE_FEATURE, &feature);

	if (dmabuf < 0)
		refused("export", errno);
	return dmabuf;
}

int main(int argc, char **argv)
{
	struct exporter exporter = { .fill = fill, .wrong = wrong, .release = release };
	bool twice = take_option(&argc, &argv, "--twice");
	uint32_t bar;
	int dmabuf;

	if (argc < 5)
		fail("usage: export-bar [--twice] ADDRESS BAR BYTES IMPORTER [ARGUMENT...]");
	bar = (uint32_t)strtoul(argv[2], NULL, 0);
	memory_bytes = exporter.bytes = strtoull(argv[3], NULL, 0);
	open_device(argv[1]);
	map_bar(bar);
	dmabuf = export_bar(bar);
	serve_importer_of_two(&exporter, dmabuf, twice ? export_bar(bar) : NO_SECOND_DMABUF, argv + 4);
}
