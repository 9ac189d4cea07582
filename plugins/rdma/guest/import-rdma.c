// SPDX-License-Identifier: MIT
// link: -libverbs -lmlx5
/*
 * usage: export-... import-rdma [--pinned] DEVICE PEER OFFSET BYTES ORDER
 *
 * Registers the part [OFFSET, OFFSET + BYTES) of the exporter's dma-buf (dmabuf-kit.h) as a memory region of the RDMA
 * device DEVICE, and moves data between it and plain memory registered with PEER: WRITE, READ, SEND out of it and into
 * it, atomics on it and atomics whose answer lands in it. ORDER says what is taken down first; as `ring`, all that
 * happens is that a WRITE rings the doorbell that the export is. --pinned registers by mlx5's data-direct path, the
 * only one that pins (infiniband/hw/mlx5/mr.c). Prints one JSON object a line.
 */
#define _GNU_SOURCE
#include <infiniband/mlx5dv.h>
#include <stdlib.h>

#include "dmabuf-kit.h"
#include "verbs-kit.h"

#define ATOMIC_BYTES 8

/* An atomic on the first word of `to`; the old value lands in the first word of `from`. */
static void atomic(struct end *from, struct end *to, enum ibv_wr_opcode opcode, uint64_t compare_add, uint64_t swap, const char *what)
{
	struct ibv_sge sge = entry(from, 0, ATOMIC_BYTES);
	struct ibv_send_wr request = { .opcode = opcode, .sg_list = &sge, .num_sge = 1,
				       .wr.atomic = { to->start, compare_add, swap, to->mr->rkey } };

	post(from, &request, what);
}

static uint64_t wrong_word(uint64_t found, uint64_t expected)
{
	return found == expected ? 0 : ATOMIC_BYTES;
}

/* Everything that moves between the exporter's part and plain memory. */
static void move_data(struct end *dmabuf, struct end *plain, const struct task *task)
{
	uint64_t from = task->offset, to = task->offset + task->bytes, *words = (uint64_t *)plain->start;
	uint64_t first = from / 8;

	exporter_fills(1);
	memset(words, 0, task->bytes);
	rdma(plain, dmabuf, IBV_WR_RDMA_READ, task->bytes, "READ");
	step_done("read", task->bytes, dmabuf_wrong(words, from, task->bytes, 1));
	dmabuf_write(words, from, task->bytes, 2);
	rdma(plain, dmabuf, IBV_WR_RDMA_WRITE, task->bytes, "WRITE");
	step_done("write", task->bytes, exporter_compares(2, from, to, 1));
	memset(words, 0, task->bytes);
	send_message(dmabuf, plain, task->bytes, "SEND out of the dma-buf");
	step_done("send", task->bytes, dmabuf_wrong(words, from, task->bytes, 2));
	dmabuf_write(words, from, task->bytes, 3);
	send_message(plain, dmabuf, task->bytes, "SEND into the dma-buf");
	step_done("receive", task->bytes, exporter_compares(3, from, to, 1));

	/* Two atomics on the first word leave the word of pass 4 there, a third brings the plain memory's word of pass 5. */
	atomic(plain, dmabuf, IBV_WR_ATOMIC_FETCH_AND_ADD, dmabuf_word(4, first) - dmabuf_word(3, first) - 1, 0, "fetch-and-add");
	step_done("fetch-add", ATOMIC_BYTES, wrong_word(words[0], dmabuf_word(3, first)));
	atomic(plain, dmabuf, IBV_WR_ATOMIC_CMP_AND_SWP, dmabuf_word(4, first) - 1, dmabuf_word(4, first), "compare-and-swap");
	step_done("compare-swap", ATOMIC_BYTES, wrong_word(words[0], dmabuf_word(4, first) - 1));
	words[0] = dmabuf_word(5, first);
	rdma(plain, dmabuf, IBV_WR_RDMA_READ, ATOMIC_BYTES, "READ of the swapped word");
	step_done("read-word", ATOMIC_BYTES, wrong_word(words[0], dmabuf_word(4, first)));
	words[0] = dmabuf_word(3, first);
	atomic(dmabuf, plain, IBV_WR_ATOMIC_FETCH_AND_ADD, 1, 0, "fetch-and-add into the dma-buf");
	step_done("atomic-answer", ATOMIC_BYTES,
		  exporter_compares(3, from, to, 1) + wrong_word(words[0], dmabuf_word(3, first) + 1));
}

static void register_dmabuf(struct end *end, const struct task *task, bool pinned)
{
	/* Verbs address the region by its offset; the driver wants offset and address equal within a page. */
	end->start = task->offset;
	if (pinned)
		end->mr = mlx5dv_reg_dmabuf_mr(end->pd, task->offset, task->bytes, end->start, DMABUF_FD, ACCESS,
					       MLX5DV_REG_DMABUF_ACCESS_DATA_DIRECT);
	else
		end->mr = ibv_reg_dmabuf_mr(end->pd, task->offset, task->bytes, end->start, DMABUF_FD, ACCESS);
	if (!end->mr)
		refused("register", errno);
}

static void use_dmabuf(struct end *dmabuf, struct end *plain, const struct task *task)
{
	if (task->teardown == RING) {
		*(uint64_t *)plain->start = exporter_fills(0);
		rdma(plain, dmabuf, IBV_WR_RDMA_WRITE, task->bytes, "WRITE to the doorbell");
		step_done("ring", task->bytes, exporter_compares(0, 0, task->bytes, 0));
		return;
	}
	if (task->teardown == FD_FIRST)
		close_dmabuf();
	move_data(dmabuf, plain, task);
	if (task->teardown == EXPORTER_FIRST && exporter_releases()) {
		memset((void *)plain->start, 0, task->bytes);
		rdma(plain, dmabuf, IBV_WR_RDMA_READ, task->bytes, "READ after the exporter let go");
		step_done("read", task->bytes, dmabuf_wrong((void *)plain->start, task->offset, task->bytes, 3));
	}
}

int main(int argc, char **argv)
{
	bool pinned = take_option(&argc, &argv, "--pinned");
	struct end dmabuf, plain;
	struct task task;

	if (argc != 6)
		fail("usage: export-... import-rdma [--pinned] DEVICE PEER OFFSET BYTES ORDER");
	task = parse_task(argv + 3);
	dmabuf = make_end(argv[1]);
	plain = make_end(argv[2]);
	register_dmabuf(&dmabuf, &task, pinned);
	register_plain(&plain, task.bytes);
	connect_end(&dmabuf, &plain);
	connect_end(&plain, &dmabuf);
	use_dmabuf(&dmabuf, &plain, &task);
	free_end(&dmabuf);
	free_end(&plain);
	finished();
	return 0;
}
