// SPDX-License-Identifier: MIT
// link: -libverbs
/*
 * Many objects on two adapters, every one of them used, and connections that end in the middle of a transfer.
 *
 *   rdma-scale ADAPTER ADAPTER PAIRS KEYS TORN
 *
 * Connects PAIRS pairs of queue pairs and writes a message through each; registers KEYS regions and
 * writes through each; tears TORN connections down under transfers, half of them by destroying queue
 * pairs, half by killing their process. Every byte that must have arrived is compared. Exits 0 when all
 * held; what it leaves behind is for the caller to look at.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rdma-kit.h"

#define PAGE 4096u
#define MESSAGE 64u
/* Sends of one connection that are under way when it ends, and their length. */
#define DEPTH 16u
#define LONG_BYTES (4u * 1024u * 1024u)

struct end {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	union ibv_gid gid;
};

struct pair {
	struct ibv_qp *from, *to;
};

static void open_end(struct end *end, const char *name, int entries)
{
	end->context = open_adapter(name);
	end->pd = ibv_alloc_pd(end->context);
	end->cq = ibv_create_cq(end->context, entries, NULL, NULL, 0);
	if (!end->pd || !end->cq || ibv_query_gid(end->context, 1, 0, &end->gid))
		fail("preparing an adapter");
}

static void close_end(struct end *end)
{
	if (ibv_destroy_cq(end->cq) || ibv_dealloc_pd(end->pd) || ibv_close_device(end->context))
		fail("closing an adapter");
}

static struct pair connect_pair(struct end *from, struct end *to)
{
	struct pair pair = { create_rc(from->pd, from->cq, DEPTH), create_rc(to->pd, to->cq, 1) };

	connect_rc(pair.from, pair.to->qp_num, &to->gid);
	connect_rc(pair.to, pair.from->qp_num, &from->gid);
	return pair;
}

static void destroy_pair(struct pair pair, int target_first)
{
	if (ibv_destroy_qp(target_first ? pair.to : pair.from) || ibv_destroy_qp(target_first ? pair.from : pair.to))
		fail("ibv_destroy_qp");
}

static struct ibv_mr *memory_region(struct end *end, void *memory, size_t bytes)
{
	struct ibv_mr *region = ibv_reg_mr(end->pd, memory, bytes, RDMA_ACCESS);

	if (!region)
		fail("ibv_reg_mr");
	return region;
}

static void forget(struct ibv_mr *region)
{
	if (ibv_dereg_mr(region))
		fail("ibv_dereg_mr");
}

static uint8_t expected(size_t index)
{
	return (uint8_t)(index * 2654435761u >> 11);
}

static void fill(uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = expected(i);
}

/* Compares MESSAGE bytes at every multiple of `stride`. */
static void verify(const char *what, const uint8_t *got, size_t count, size_t stride)
{
	size_t wrong = 0;

	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < MESSAGE; j++)
			wrong += got[i * stride + j] != expected(i * MESSAGE + j);
	printf("%s %zu %s, %zu bytes wrong\n", wrong ? "not ok" : "ok", count, what, wrong);
	fflush(stdout);
	if (wrong)
		exit(1);
}

static void many_queue_pairs(struct end *from, struct end *to, size_t count)
{
	struct pair *pairs = calloc(count, sizeof(*pairs));
	uint8_t *source = allocate_pages(count * MESSAGE), *target = allocate_pages(count * MESSAGE);
	struct ibv_mr *local = memory_region(from, source, count * MESSAGE);
	struct ibv_mr *remote = memory_region(to, target, count * MESSAGE);

	fill(source, count * MESSAGE);
	for (size_t i = 0; i < count; i++)
		pairs[i] = connect_pair(from, to);
	/* All at once: the adapter has to take turns. */
	for (size_t i = 0; i < count; i++) {
		struct ibv_sge part = { (uintptr_t)source + i * MESSAGE, MESSAGE, local->lkey };

		post(pairs[i].from, IBV_WR_RDMA_WRITE, i, part, remote, (uintptr_t)target + i * MESSAGE);
	}
	for (size_t i = 0; i < count; i++)
		completed(from->cq);
	verify("connections carried their message", target, count, MESSAGE);
	for (size_t i = 0; i < count; i++)
		destroy_pair(pairs[i], i % 2);
	forget(local);
	forget(remote);
	free(source);
	free(target);
	free(pairs);
}

static void many_keys(struct end *from, struct end *to, size_t count)
{
	struct ibv_mr **keys = calloc(count, sizeof(*keys));
	uint8_t *source = allocate_pages(count * MESSAGE), *target = allocate_pages(count * PAGE);
	struct ibv_mr *local = memory_region(from, source, count * MESSAGE);
	struct pair pair = connect_pair(from, to);
	size_t done = 0;

	fill(source, count * MESSAGE);
	for (size_t i = 0; i < count; i++)
		keys[i] = memory_region(to, target + i * PAGE, PAGE);
	for (size_t i = 0; i < count; i++) {
		struct ibv_sge part = { (uintptr_t)source + i * MESSAGE, MESSAGE, local->lkey };

		if (i >= DEPTH) {
			completed(from->cq);
			done++;
		}
		post(pair.from, IBV_WR_RDMA_WRITE, i, part, keys[i], (uintptr_t)target + i * PAGE);
	}
	for (; done < count; done++)
		completed(from->cq);
	verify("memory regions were written through", target, count, PAGE);
	for (size_t i = 0; i < count; i++)
		forget(keys[i]);
	destroy_pair(pair, 0);
	forget(local);
	free(source);
	free(target);
	free(keys);
}

/* `count` connections with transfers under way, more than the adapter can have finished when this returns. */
static struct pair *start_transfers(struct end *from, struct end *to, size_t count, struct ibv_mr *local, struct ibv_mr *remote)
{
	struct pair *pairs = calloc(count, sizeof(*pairs));

	for (size_t i = 0; i < count; i++)
		pairs[i] = connect_pair(from, to);
	for (size_t i = 0; i < count; i++)
		for (uint64_t j = 0; j < DEPTH; j++) {
			struct ibv_sge part = { (uintptr_t)local->addr, LONG_BYTES, local->lkey };

			post(pairs[i].from, j % 2 ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, j, part, remote, (uintptr_t)remote->addr);
		}
	return pairs;
}

/* How many completions are there; they may be of any kind. */
static size_t drain(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	size_t count = 0;

	while (ibv_poll_cq(cq, 1, &wc) > 0)
		count++;
	return count;
}

static void destroyed_under_transfers(struct end *from, struct end *to, size_t count)
{
	struct ibv_mr *local = memory_region(from, allocate_pages(LONG_BYTES), LONG_BYTES);
	struct ibv_mr *remote = memory_region(to, allocate_pages(LONG_BYTES), LONG_BYTES);
	struct pair *pairs = start_transfers(from, to, count, local, remote);
	size_t finished;

	for (size_t i = 0; i < count; i++)
		destroy_pair(pairs[i], i % 2);
	finished = drain(from->cq);
	printf("%s %zu connections destroyed, %zu of their %zu transfers had ended\n",
	       finished < count * DEPTH ? "ok" : "not ok", count, finished, count * (size_t)DEPTH);
	forget(local);
	forget(remote);
	free(pairs);
	if (finished >= count * DEPTH)
		exit(1);
}

/* The process of the connections: says when they are busy, and waits to be killed. */
static void __attribute__((noreturn)) busy_process(const char *one, const char *other, size_t count, int ready)
{
	struct end from, to;

	open_end(&from, one, (int)(count * DEPTH));
	open_end(&to, other, 1);
	start_transfers(&from, &to, count, memory_region(&from, allocate_pages(LONG_BYTES), LONG_BYTES),
			memory_region(&to, allocate_pages(LONG_BYTES), LONG_BYTES));
	if (write(ready, "", 1) != 1)
		fail("telling the parent");
	for (;;)
		pause();
}

static void killed_under_transfers(const char *one, const char *other, size_t count)
{
	int pipe_ends[2], status;
	char byte;
	pid_t child;

	if (pipe(pipe_ends))
		fail("pipe");
	child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0)
		busy_process(one, other, count, pipe_ends[1]);
	close(pipe_ends[1]);
	if (read(pipe_ends[0], &byte, 1) != 1)
		fail("the process with the connections");
	close(pipe_ends[0]);
	kill(child, SIGKILL);
	if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status))
		fail("waitpid");
	printf("ok a process with %zu busy connections was killed\n", count);
}

int main(int argc, char **argv)
{
	size_t pairs, keys, torn;
	struct end from, to;

	if (argc != 6) {
		fprintf(stderr, "usage: rdma-scale ADAPTER ADAPTER PAIRS KEYS TORN\n");
		return 2;
	}
	pairs = strtoul(argv[3], NULL, 0);
	keys = strtoul(argv[4], NULL, 0);
	torn = strtoul(argv[5], NULL, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	killed_under_transfers(argv[1], argv[2], torn / 2);
	open_end(&from, argv[1], (int)(pairs > torn * DEPTH ? pairs : torn * DEPTH));
	open_end(&to, argv[2], 1);
	many_queue_pairs(&from, &to, pairs);
	many_keys(&from, &to, keys);
	destroyed_under_transfers(&from, &to, torn - torn / 2);
	close_end(&from);
	close_end(&to);
	return 0;
}
