// SPDX-License-Identifier: MIT
/*
 * usage: export-... import-iommufd ADDRESS OFFSET BYTES ORDER
 *
 * Maps the dma-buf of the exporter that started this program (dmabuf-kit.h) into an I/O address space of iommufd,
 * for the example engine at a PCI address, which vfio-pci has bound and this program drives through its mapped
 * registers. The engine copies the part [OFFSET, OFFSET + BYTES) to memory of this program and back. ORDER says
 * what is taken down first. Prints one JSON object a line.
 *
 * iommufd takes vfio-pci's dma-bufs only (since 6.19: drivers/iommu/iommufd/pages.c iopt_map_dmabuf).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <limits.h>
#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include "dmabuf-kit.h"
#include "driver/ghostbus_example.h"

/* Newer than the headers of Debian 13 (uapi/linux/iommufd.h, 6.13). */
#define IOAS_MAP_FILE _IO(IOMMUFD_TYPE, 0x8f)
struct ioas_map_file {
	uint32_t size, flags, ioas_id;
	int32_t fd;
	uint64_t start, length, iova;
};

#define PAGE_BYTES 4096ull
#define RING_LOG2 1
/* A copy of 64 MiB by DMA messages takes some seconds. */
#define PATIENCE_S 120
#define READ_WRITE (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)

struct engine {
	int device, iommufd;
	uint32_t ioas;
	volatile uint8_t *registers;
	volatile struct gbx_descriptor *ring;
	uint32_t tail;
};

/* Memory as the CPU and as the engine see it. */
struct plain {
	uint8_t *memory;
	uint64_t bytes, iova;
};

static uint64_t whole_pages(uint64_t bytes)
{
	return (bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

static int open_path(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		fail("cannot open %s: %s", path, strerror(errno));
	return fd;
}

/* The character device that vfio made for a function: the one entry of its vfio-dev/. */
static int open_device(const char *address)
{
	char folder[PATH_MAX], path[PATH_MAX] = "";
	struct dirent *entry;
	DIR *entries;

	snprintf(folder, sizeof(folder), "/sys/bus/pci/devices/%s/vfio-dev", address);
	entries = opendir(folder);
	if (!entries)
		fail("no %s: is %s bound to vfio-pci, and is CONFIG_VFIO_DEVICE_CDEV there?", folder, address);
	while ((entry = readdir(entries)))
		if (!strncmp(entry->d_name, "vfio", 4))
			snprintf(path, sizeof(path), "/dev/vfio/devices/%.64s", entry->d_name);
	closedir(entries);
	return open_path(path);
}

static void attach(struct engine *engine)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind), .iommufd = engine->iommufd };
	struct iommu_ioas_alloc ioas = { .size = sizeof(ioas) };
	struct vfio_device_attach_iommufd_pt table = { .argsz = sizeof(table) };

	if (ioctl(engine->device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		fail("cannot bind the device to iommufd: %s", strerror(errno));
	if (ioctl(engine->iommufd, IOMMU_IOAS_ALLOC, &ioas))
		fail("no I/O address space: %s", strerror(errno));
	table.pt_id = engine->ioas = ioas.out_ioas_id;
	if (ioctl(engine->device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &table))
		fail("cannot attach the device to its I/O address space: %s", strerror(errno));
}

static struct vfio_region_info region_of(const struct engine *engine, uint32_t index)
{
	struct vfio_region_info region = { .argsz = sizeof(region), .index = index };

	if (ioctl(engine->device, VFIO_DEVICE_GET_REGION_INFO, &region))
		fail("no region %u: %s", index, strerror(errno));
	return region;
}

/* vfio hands a device over with bus mastering off (vfio_pci_core_enable). Returns where BAR0 lies on the bus. */
static uint64_t enable_bus_master(const struct engine *engine)
{
	off_t config = (off_t)region_of(engine, VFIO_PCI_CONFIG_REGION_INDEX).offset;
	uint16_t command;
	uint32_t bar;

	if (pread(engine->device, &command, sizeof(command), config + PCI_COMMAND) != sizeof(command))
		fail("cannot read the command register: %s", strerror(errno));
	command |= PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY;
	if (pwrite(engine->device, &command, sizeof(command), config + PCI_COMMAND) != sizeof(command) ||
	    pread(engine->device, &bar, sizeof(bar), config + PCI_BASE_ADDRESS_0) != sizeof(bar))
		fail("cannot enable bus mastering: %s", strerror(errno));
	return bar & PCI_BASE_ADDRESS_MEM_MASK;
}

static void *anonymous(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		fail("no memory: %s", strerror(errno));
	return memory;
}

/* At the IOVA that is given; or anywhere, and returned, if that is NULL. */
static uint64_t map_memory(const struct engine *engine, void *memory, uint64_t bytes, const uint64_t *iova)
{
	struct iommu_ioas_map map = { .size = sizeof(map), .flags = READ_WRITE, .ioas_id = engine->ioas,
				      .user_va = (uintptr_t)memory, .length = bytes };

	if (iova) {
		map.flags |= IOMMU_IOAS_MAP_FIXED_IOVA;
		map.iova = *iova;
	}
	if (ioctl(engine->iommufd, IOMMU_IOAS_MAP, &map))
		fail("cannot map %" PRIu64 " bytes of memory: %s", bytes, strerror(errno));
	return map.iova;
}

static uint32_t get(const struct engine *engine, uint32_t offset)
{
	return *(volatile uint32_t *)(engine->registers + offset);
}

static void set(const struct engine *engine, uint32_t offset, uint32_t value)
{
	*(volatile uint32_t *)(engine->registers + offset) = value;
}

/*
 * The ring lies at the IOVA that is BAR0's own address on the bus. An address space of one's own makes that as good as
 * any other, and the engine would fetch from its registers if anything took the IOVA for a bus address.
 */
static struct engine open_engine(const char *address)
{
	struct engine engine = { .device = open_device(address), .iommufd = open_path("/dev/iommu") };
	struct vfio_region_info bar;
	uint64_t ring_iova;

	attach(&engine);
	bar = region_of(&engine, VFIO_PCI_BAR0_REGION_INDEX);
	engine.registers = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, engine.device, (off_t)bar.offset);
	if (engine.registers == MAP_FAILED)
		fail("cannot map BAR0: %s", strerror(errno));
	ring_iova = enable_bus_master(&engine);
	if (get(&engine, GBX_REG_ID) != GBX_ID_VALUE)
		fail("%s is no example engine", address);
	engine.ring = anonymous(PAGE_BYTES);
	map_memory(&engine, (void *)engine.ring, PAGE_BYTES, &ring_iova);
	set(&engine, GBX_REG_RING_BASE_LO, (uint32_t)ring_iova);
	set(&engine, GBX_REG_RING_BASE_HI, (uint32_t)(ring_iova >> 32));
	set(&engine, GBX_REG_RING_SIZE, RING_LOG2);
	set(&engine, GBX_REG_CONTROL, GBX_CONTROL_ENABLE);
	return engine;
}

/* One descriptor at a time; no interrupt is asked for. Returns its status. */
static uint32_t execute(struct engine *engine, uint64_t to, uint64_t from, uint64_t bytes)
{
	volatile struct gbx_descriptor *descriptor = &engine->ring[engine->tail];

	*descriptor = (struct gbx_descriptor){ .source = from, .destination = to, .length = (uint32_t)bytes };
	engine->tail = (engine->tail + 1) % (1u << RING_LOG2);
	__sync_synchronize();
	set(engine, GBX_DOORBELL, engine->tail);
	for (time_t start = time(NULL); descriptor->status == GBX_PENDING; sched_yield()) {
		if (get(engine, GBX_REG_ERROR))
			fail("the engine halted for reason %u", get(engine, GBX_REG_ERROR));
		if (time(NULL) - start > PATIENCE_S)
			fail("the engine left a descriptor untouched for %d s", PATIENCE_S);
	}
	if (descriptor->status == GBX_DONE && descriptor->copied != bytes)
		fail("a copy of %" PRIu64 " bytes ended after %u", bytes, descriptor->copied);
	return descriptor->status;
}

static void copy(struct engine *engine, uint64_t to, uint64_t from, uint64_t bytes)
{
	uint32_t status = execute(engine, to, from, bytes);

	if (status != GBX_DONE)
		fail("a copy from 0x%" PRIx64 " to 0x%" PRIx64 " ended with status %u", from, to, status);
}

/* Whole pages around the part: an I/O page table has no smaller ones. Returns the IOVA of the part itself. */
static uint64_t map_dmabuf(const struct engine *engine, const struct task *task)
{
	uint64_t start = task->offset & ~(PAGE_BYTES - 1);
	struct ioas_map_file map = { .size = sizeof(map), .flags = READ_WRITE, .ioas_id = engine->ioas, .fd = DMABUF_FD,
				     .start = start, .length = whole_pages(task->offset + task->bytes) - start };

	if (ioctl(engine->iommufd, IOAS_MAP_FILE, &map))
		refused("map", errno);
	return map.iova + (task->offset - start);
}

static void use_dmabuf(struct engine *engine, uint64_t dmabuf, const struct plain *plain, const struct task *task)
{
	uint64_t from = task->offset, to = task->offset + task->bytes;

	if (task->teardown == RING)
		fail("this importer rings no doorbell: iommufd maps none");
	exporter_fills(1);
	if (task->teardown == FD_FIRST)
		close_dmabuf();
	memset(plain->memory, 0, task->bytes);
	copy(engine, plain->iova, dmabuf, task->bytes);
	step_done("read", task->bytes, dmabuf_wrong(plain->memory, from, task->bytes, 1));
	dmabuf_write(plain->memory, from, task->bytes, 2);
	copy(engine, dmabuf, plain->iova, task->bytes);
	step_done("write", task->bytes, exporter_compares(2, from, to, 1));
	if (task->teardown != EXPORTER_FIRST)
		return;
	if (exporter_releases()) {
		memset(plain->memory, 0, task->bytes);
		copy(engine, plain->iova, dmabuf, task->bytes);
		step_done("read", task->bytes, dmabuf_wrong(plain->memory, from, task->bytes, 2));
	} else if (execute(engine, plain->iova, dmabuf, task->bytes) != GBX_UNSUPPORTED_REQUEST) {
		/* iopt_revoke_notify has to have emptied the I/O page table. */
		fail("the engine still gets an answer where the dma-buf was, after it was revoked");
	}
}

int main(int argc, char **argv)
{
	struct engine engine;
	struct plain plain;
	struct task task;
	uint64_t dmabuf;

	if (argc != 5)
		fail("usage: export-... import-iommufd ADDRESS OFFSET BYTES ORDER");
	task = parse_task(argv + 2);
	engine = open_engine(argv[1]);
	dmabuf = map_dmabuf(&engine, &task);
	plain.bytes = whole_pages(task.bytes);
	plain.memory = anonymous(plain.bytes);
	plain.iova = map_memory(&engine, plain.memory, plain.bytes, NULL);
	use_dmabuf(&engine, dmabuf, &plain, &task);
	close(engine.device);
	close(engine.iommufd);
	finished();
	return 0;
}
