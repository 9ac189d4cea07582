// SPDX-License-Identifier: MIT
// link: -libverbs
// headers: ../bar-export ../../guest
/*
 * Whether an adapter sees another function's register as the CPU left it before it rang the adapter's doorbell.
 *
 *   rdma-order ADAPTER FUNCTION BAR OFFSET ROUNDS
 *
 * The 32-bit register at OFFSET of the BAR must keep what is written. It becomes a memory region
 * (ghostbus_bar_export must be loaded); the CPU stores a number there and posts an RDMA READ of it at once, while
 * another queue pair of the adapter moves long messages, so that store and doorbell wait on their two sockets
 * together. Exits 1 when a READ found an older number.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ghostbus_bar_export.h"
#include "rdma-kit.h"

#define PAGE 4096u
#define DEPTH 32u
#define LOAD_BYTES (256u * 1024u)
#define LOAD_ID (1ull << 32)

struct bench {
	struct ibv_cq *reads, *loads;
	struct ibv_qp *reader, *loader;
	struct ibv_mr *registers, *seen, *load;
	/* READ number i puts what it found in results[i % DEPTH]. */
	volatile uint32_t *results;
	volatile uint32_t *reg;
	uint64_t offset;
};

static int export_page(const char *function, uint32_t bar, uint64_t page)
{
	struct gbx_bar_range range = { .bar = bar, .offset = page, .bytes = PAGE };
	int device = open("/dev/ghostbus-bar-export", O_RDWR);
	int fd;

	if (device < 0)
		fail("/dev/ghostbus-bar-export");
	strncpy(range.function, function, sizeof(range.function) - 1);
	fd = ioctl(device, GBX_IOC_EXPORT_BAR, &range);
	if (fd < 0)
		fail("GBX_IOC_EXPORT_BAR");
	close(device);
	return fd;
}

static volatile uint32_t *map_page(const char *function, uint32_t bar, uint64_t page)
{
	char path[128];
	void *memory;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource%u", function, bar);
	fd = open(path, O_RDWR | O_SYNC);
	if (fd < 0)
		fail(path);
	memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)page);
	if (memory == MAP_FAILED)
		fail("mapping the register");
	close(fd);
	return memory;
}

static struct ibv_mr *memory_region(struct ibv_pd *pd, void *memory, size_t bytes)
{
	struct ibv_mr *region = ibv_reg_mr(pd, memory, bytes, RDMA_ACCESS);

	if (!region)
		fail("ibv_reg_mr");
	return region;
}

/* One READ of the register; its number is `id`. */
static void post_read(struct bench *bench, uint64_t id)
{
	struct ibv_sge local = {
		.addr = (uintptr_t)(bench->results + id % DEPTH), .length = 4, .lkey = bench->seen->lkey,
	};

	post(bench->reader, IBV_WR_RDMA_READ, id, local, bench->registers, bench->offset);
}

static void post_load(struct bench *bench)
{
	struct ibv_sge local = {
		.addr = (uintptr_t)bench->load->addr, .length = LOAD_BYTES, .lkey = bench->load->lkey,
	};

	post(bench->loader, IBV_WR_RDMA_WRITE, LOAD_ID, local, bench->load, (uintptr_t)bench->load->addr + LOAD_BYTES);
}

/* One store and one READ at a time: it has to find exactly that. Returns how often it did not. */
static unsigned int one_at_a_time(struct bench *bench, uint32_t rounds)
{
	unsigned int stale = 0;

	for (uint32_t i = 1; i <= rounds; i++) {
		post_load(bench);
		*bench->reg = i;
		post_read(bench, i);
		completed(bench->reads);
		completed(bench->loads);
		stale += bench->results[i % DEPTH] != i;
	}
	return stale;
}

/* Stores and READs without waiting in between: none may find less than the store before it. */
static unsigned int many_under_way(struct bench *bench, uint32_t rounds)
{
	unsigned int stale = 0;
	uint32_t done = 0;

	*bench->reg = 0;
	for (uint32_t i = 1; i <= rounds || done < rounds;) {
		if (i <= rounds && i - done <= DEPTH) {
			*bench->reg = i;
			post_read(bench, i++);
			continue;
		}
		done = (uint32_t)completed(bench->reads);
		stale += bench->results[done % DEPTH] < done;
	}
	return stale;
}

/* The other way: an RDMA WRITE into the register is a register write. Returns whether the CPU read it back. */
static bool write_register(struct bench *bench, uint32_t value)
{
	struct ibv_sge local = { .addr = (uintptr_t)bench->results, .length = 4, .lkey = bench->seen->lkey };

	bench->results[0] = value;
	post(bench->reader, IBV_WR_RDMA_WRITE, 0, local, bench->registers, bench->offset);
	completed(bench->reads);
	return *bench->reg == value;
}

static void prepare(struct bench *bench, char **argv)
{
	uint32_t bar = (uint32_t)strtoul(argv[3], NULL, 0);
	uint64_t offset = strtoull(argv[4], NULL, 0), page = offset / PAGE * PAGE;
	struct ibv_context *context = open_adapter(argv[1]);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	union ibv_gid gid;

	if (!pd || ibv_query_gid(context, 1, 0, &gid))
		fail("preparing the adapter");
	bench->offset = offset % PAGE;
	bench->reg = map_page(argv[2], bar, page) + bench->offset / 4;
	bench->registers = ibv_reg_dmabuf_mr(pd, 0, PAGE, 0, export_page(argv[2], bar, page), RDMA_ACCESS);
	if (!bench->registers)
		fail("ibv_reg_dmabuf_mr");
	bench->results = allocate_pages(PAGE);
	bench->seen = memory_region(pd, (void *)bench->results, PAGE);
	bench->load = memory_region(pd, allocate_pages(2 * LOAD_BYTES), 2 * LOAD_BYTES);
	bench->reads = ibv_create_cq(context, 2 * DEPTH, NULL, NULL, 0);
	bench->loads = ibv_create_cq(context, 2 * DEPTH, NULL, NULL, 0);
	if (!bench->reads || !bench->loads)
		fail("ibv_create_cq");
	bench->reader = create_rc(pd, bench->reads, DEPTH);
	bench->loader = create_rc(pd, bench->loads, DEPTH);
	connect_rc(bench->reader, bench->reader->qp_num, &gid);
	connect_rc(bench->loader, bench->loader->qp_num, &gid);
}

int main(int argc, char **argv)
{
	struct bench bench;
	unsigned int one, many;
	uint32_t rounds;
	bool written;

	if (argc != 6) {
		fprintf(stderr, "usage: rdma-order ADAPTER FUNCTION BAR OFFSET ROUNDS\n");
		return 2;
	}
	prepare(&bench, argv);
	rounds = (uint32_t)strtoul(argv[5], NULL, 0);
	one = one_at_a_time(&bench, rounds);
	many = many_under_way(&bench, rounds);
	written = write_register(&bench, 0xa5a5f00d);
	printf("one at a time: %u of %u READs were stale\n", one, rounds);
	printf("many under way: %u of %u READs were stale\n", many, rounds);
	printf("an RDMA WRITE into the register %s\n", written ? "arrived" : "did not arrive");
	return one || many || !written;
}
