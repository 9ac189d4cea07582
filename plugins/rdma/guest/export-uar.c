// SPDX-License-Identifier: MIT
// link: -libverbs -lmlx5
/*
 * usage: export-uar DEVICE IMPORTER [ARGUMENT...]
 *
 * Exports the page of doorbells (UAR) of an mlx5 queue pair (since 7.1:
 * infiniband/core/uverbs_std_types_dmabuf.c). The queue pair has a no-operation in its send queue that nobody has
 * rung for: when the importer's engine writes the doorbell, it completes.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <infiniband/mlx5dv.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <sys/ioctl.h>
#include <time.h>

#include "dmabuf-kit.h"
#include "verbs-kit.h"

/* Newer than the headers of Debian 13 (uapi/rdma/ib_user_ioctl_cmds.h, 7.3). */
#define OBJECT_DMABUF 18
#define METHOD_DMABUF_ALLOC 0
enum { ATTR_HANDLE, ATTR_PAGE_OFFSET };
#define DOORBELL_BYTES 8
#define PATIENCE_S 60

static struct end end;
static struct mlx5dv_qp queue;
static uint32_t posted;

/*
 * A no-operation that asks for a completion, in the next entry; the doorbell record says so, the doorbell stays silent.
 */
static uint64_t fill(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	struct mlx5_wqe_ctrl_seg *entry = (void *)((char *)queue.sq.buf + posted % queue.sq.wqe_cnt * queue.sq.stride);
	struct ibv_wc wc;
	uint64_t doorbell;

	(void)offset, (void)bytes, (void)pass;
	memset(entry, 0, sizeof(*entry));
	entry->opmod_idx_opcode = htobe32(posted << 8 | MLX5_OPCODE_NOP);
	entry->qpn_ds = htobe32(end.qp->qp_num << 8 | 1);
	entry->fm_ce_se = MLX5_WQE_CTRL_CQ_UPDATE;
	posted++;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	queue.dbrec[MLX5_SND_DBR] = htobe32(posted);
	if (ibv_poll_cq(end.cq, 1, &wc) != 0)
		fail("the send queue ran before anybody rang");
	memcpy(&doorbell, entry, sizeof(doorbell));
	return doorbell;
}

static uint64_t wrong(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	time_t deadline = time(NULL) + PATIENCE_S;
	struct mlx5dv_cq ring;
	struct mlx5dv_obj object = { .cq = { end.cq, &ring } };

	(void)offset, (void)pass;
	/* libmlx5 has not posted the entry and could not match its completion: the ring is looked at directly. */
	if (mlx5dv_init_obj(&object, MLX5DV_OBJ_CQ))
		fail("no access to the completion queue");
	while (time(NULL) < deadline) {
		struct mlx5_cqe64 *entry = (void *)((char *)ring.buf + (posted - 1) % ring.cqe_cnt * ring.cqe_size);
		uint8_t operation = *(volatile uint8_t *)&entry->op_own;

		if (operation >> 4 != MLX5_CQE_INVALID && (operation & 1) == ((posted - 1) / ring.cqe_cnt & 1))
			return operation >> 4 == MLX5_CQE_REQ ? 0 : bytes;
	}
	return bytes;
}

static bool release(void)
{
	ibv_close_device(end.context);
	return false;
}

/* UVERBS_METHOD_DMABUF_ALLOC: the dma-buf of what mmap would give at this offset. */
static int export_mapping(uint64_t mmap_offset)
{
	struct {
		struct ib_uverbs_ioctl_hdr header;
		struct ib_uverbs_attr attributes[2];
	} command = {
		.header = { .length = sizeof(command), .object_id = OBJECT_DMABUF, .method_id = METHOD_DMABUF_ALLOC,
			    .num_attrs = 2, .driver_id = RDMA_DRIVER_MLX5 },
		.attributes = { { .attr_id = ATTR_HANDLE, .flags = UVERBS_ATTR_F_MANDATORY },
				{ .attr_id = ATTR_PAGE_OFFSET, .len = 8, .flags = UVERBS_ATTR_F_MANDATORY,
				  .data = mmap_offset } },
	};

	if (ioctl(end.context->cmd_fd, RDMA_VERBS_IOCTL, &command))
		refused("export", errno);
	return (int)command.attributes[0].data;
}

int main(int argc, char **argv)
{
	struct exporter exporter = { .bytes = DOORBELL_BYTES, .fill = fill, .wrong = wrong, .release = release };
	struct mlx5dv_obj object;

	if (argc < 3)
		fail("usage: export-uar DEVICE IMPORTER [ARGUMENT...]");
	end = make_end(argv[1]);
	connect_end(&end, &end);
	queue.comp_mask = MLX5DV_QP_MASK_UAR_MMAP_OFFSET;
	object.qp.in = end.qp;
	object.qp.out = &queue;
	if (mlx5dv_init_obj(&object, MLX5DV_OBJ_QP))
		fail("no access to the queue pair");
	serve_importer(&exporter, export_mapping((uint64_t)queue.uar_mmap_offset), argv + 2);
}
