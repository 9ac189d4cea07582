// SPDX-License-Identifier: MIT
// link: -libverbs
// headers: ../../../plugins/example/guest ../../../plugins/rdma/guest
/*
 * usage: p2pmem-rdma ENGINE DEVICE PEER BYTES [unbind]
 *
 * Maps memory of the example function ENGINE (ghostbus-exampleN) that its driver offers as pages
 * (p2pmem_mib), through what the kernel has for that (drivers/pci/p2pdma.c p2pmem_alloc_mmap), registers the
 * mapping with the RDMA device DEVICE, and moves data between it and plain memory of PEER. The CPU looks at
 * it through the mapping, the engine by its own copies. With `unbind` the driver is taken away in the end,
 * and one more WRITE is tried. Prints one JSON object a line.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "dmabuf-kit.h"
#include "driver/ghostbus_example.h"
#include "verbs-kit.h"

#define MEMORY_BAR 2
#define PAGE_BYTES 4096
/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_PFN ((1ull << 55) - 1)

static uint8_t *memory, *scratch;
static uint64_t memory_bytes;
/* Where the engine finds it. */
static uint64_t bar_offset;
static int engine;

/* ---- the mapping ------------------------------------------------------------------------------------------------ */

static FILE *open_attribute(const char *name, const char *attribute, const char *mode)
{
	char path[PATH_MAX];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/misc/%s/device/%s", name, attribute);
	file = fopen(path, mode);
	if (!file)
		fail("cannot open %s: %s", path, strerror(errno));
	return file;
}

static uint64_t bar_start(const char *name)
{
	FILE *file = open_attribute(name, "resource", "r");
	uint64_t start = 0;

	for (int bar = 0; bar <= MEMORY_BAR; bar++)
		if (fscanf(file, "%" SCNx64 " %*x %*x", &start) != 1)
			fail("%s has no BAR%d", name, MEMORY_BAR);
	fclose(file);
	return start;
}

static uint64_t available_bytes(const char *name)
{
	FILE *file = open_attribute(name, "p2pmem/available", "r");
	uint64_t bytes;

	if (fscanf(file, "%" SCNu64, &bytes) != 1)
		fail("%s does not say how much is available", name);
	fclose(file);
	return bytes;
}

static void *allocate(uint64_t bytes, int flags, int fd)
{
	void *mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (mapping == MAP_FAILED)
		fail("cannot map %" PRIu64 " bytes: %s", bytes, strerror(errno));
	return mapping;
}

static void map_pages(const char *name)
{
	FILE *file = open_attribute(name, "p2pmem/allocate", "r+");

	memory = allocate(memory_bytes, MAP_SHARED, fileno(file));
	fclose(file);
}

/* Physical address behind a page of the mapping, as the page tables have it. */
static uint64_t physical_address(const void *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t item = 0;

	if (pread(fd, &item, sizeof(item), (off_t)((uintptr_t)page / PAGE_BYTES * sizeof(item))) != sizeof(item))
		fail("cannot read the page map: %s", strerror(errno));
	close(fd);
	if (!(item & PAGEMAP_PRESENT))
		fail("a page of the mapping is not there");
	return (item & PAGEMAP_PFN) * PAGE_BYTES;
}

static void find_in_bar(const char *name)
{
	uint64_t start = physical_address(memory);

	for (uint64_t done = 0; done < memory_bytes; done += PAGE_BYTES)
		if (physical_address(memory + done) != start + done)
			fail("the engine's copies want memory without gaps");
	bar_offset = start - bar_start(name);
	printf("{\"barOffset\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"available\":%" PRIu64 "}\n", bar_offset, memory_bytes / PAGE_BYTES,
	       available_bytes(name));
	fflush(stdout);
}

/* ---- the engine's view of it ------------------------------------------------------------------------------------ */

static void run_engine(struct gbx_copy copy)
{
	copy.length = (uint32_t)memory_bytes;
	if (ioctl(engine, GBX_IOC_COPY, &copy))
		fail("the engine does not copy: %s", strerror(errno));
}

static void engine_fills(uint32_t pass)
{
	dmabuf_write(scratch, 0, memory_bytes, pass);
	run_engine((struct gbx_copy){ .source = (uintptr_t)scratch, .source_end = GBX_END_USER,
				      .destination = bar_offset, .destination_end = GBX_END_DEVICE });
}

/* Wrong bytes, as the CPU and as the engine finds them. */
static uint64_t wrong_bytes(uint32_t pass)
{
	memset(scratch, 0, memory_bytes);
	run_engine((struct gbx_copy){ .source = bar_offset, .source_end = GBX_END_DEVICE,
				      .destination = (uintptr_t)scratch, .destination_end = GBX_END_USER });
	return dmabuf_wrong(memory, 0, memory_bytes, pass) + dmabuf_wrong(scratch, 0, memory_bytes, pass);
}

/* ---- the adapter ------------------------------------------------------------------------------------------------ */

static void try_pinned(const struct end *end, const char *kind, int access)
{
	struct ibv_mr *region = ibv_reg_mr(end->pd, memory, memory_bytes, access);

	printf("{\"pinned\":\"%s\",\"errno\":\"%s\"}\n", kind, region ? "none" : strerrorname_np(errno));
	fflush(stdout);
	if (region)
		ibv_dereg_mr(region);
}

static void register_on_demand(struct end *end)
{
	end->start = (uintptr_t)memory;
	end->mr = ibv_reg_mr(end->pd, memory, memory_bytes, ACCESS | IBV_ACCESS_ON_DEMAND);
	if (!end->mr)
		refused("register", errno);
}

static void move_data(struct end *pages, struct end *plain)
{
	void *words = (void *)plain->start;

	engine_fills(1);
	step_done("engine", memory_bytes, wrong_bytes(1));
	rdma(plain, pages, IBV_WR_RDMA_READ, memory_bytes, "READ");
	step_done("read", memory_bytes, dmabuf_wrong(words, 0, memory_bytes, 1));
	dmabuf_write(words, 0, memory_bytes, 2);
	rdma(plain, pages, IBV_WR_RDMA_WRITE, memory_bytes, "WRITE");
	step_done("write", memory_bytes, wrong_bytes(2));
	dmabuf_write(memory, 0, memory_bytes, 3);
	send_message(pages, plain, memory_bytes, "SEND out of the pages");
	step_done("send", memory_bytes, dmabuf_wrong(words, 0, memory_bytes, 3));
	dmabuf_write(words, 0, memory_bytes, 4);
	send_message(plain, pages, memory_bytes, "SEND into the pages");
	step_done("receive", memory_bytes, wrong_bytes(4));
}

/*
 * The kernel takes the pages out of the mapping, and so out of the region (drivers/pci/p2pdma.c
 * pci_p2pdma_unmap_mappings).
 */
static void unbind_and_write(const char *name, struct end *pages, struct end *plain)
{
	char path[PATH_MAX], *address;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/misc/%s/device", name);
	address = realpath(path, NULL);
	if (!address)
		fail("%s has no device: %s", name, strerror(errno));
	file = open_attribute(name, "driver/unbind", "w");
	fputs(strrchr(address, '/') + 1, file);
	if (fclose(file))
		fail("cannot unbind the driver: %s", strerror(errno));
	free(address);
	post_rdma(plain, pages, IBV_WR_RDMA_WRITE, memory_bytes);
	printf("{\"unbound\":true,\"status\":\"%s\"}\n", ibv_wc_status_str(completion_status(plain)));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	bool unbind = argc == 6 && strcmp(argv[5], "unbind") == 0;
	struct end pages, plain;
	char path[PATH_MAX];

	if (argc - unbind != 5)
		fail("usage: p2pmem-rdma ENGINE DEVICE PEER BYTES [unbind]");
	memory_bytes = strtoull(argv[4], NULL, 0);
	snprintf(path, sizeof(path), "/dev/%s", argv[1]);
	engine = open(path, O_RDWR | O_CLOEXEC);
	if (engine < 0)
		fail("cannot open %s: %s", path, strerror(errno));
	scratch = allocate(memory_bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	map_pages(argv[1]);
	find_in_bar(argv[1]);
	pages = make_end(argv[2]);
	plain = make_end(argv[3]);
	try_pinned(&pages, "to be written", ACCESS);
	try_pinned(&pages, "to be read", 0);
	register_on_demand(&pages);
	register_plain(&plain, memory_bytes);
	connect_end(&pages, &plain);
	connect_end(&plain, &pages);
	move_data(&pages, &plain);
	if (unbind)
		unbind_and_write(argv[1], &pages, &plain);
	free_end(&pages);
	free_end(&plain);
	finished();
	return 0;
}
