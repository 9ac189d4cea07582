// SPDX-License-Identifier: MIT
// link: -libverbs
/*
 * usage: export-... import-rdma DEVICE PEER OFFSET BYTES ORDER
 *
 * Registers the part [OFFSET, OFFSET + BYTES) of the exporter's dma-buf (dmabuf-kit.h) as a memory region of the RDMA device DEVICE,
 * and moves data between it and plain memory registered with PEER: WRITE, READ, SEND out of it and into it, atomics on it and atomics
 * whose answer lands in it. ORDER says what is taken down first. Prints one JSON object a line.
 */
#define _GNU_SOURCE
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "dmabuf-kit.h"

#define ACCESS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)
#define PORT 1
#define ATOMIC_BYTES 8

/* One end of a connection, with the one memory region it uses. */
struct end {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_mr *mr;
	union ibv_gid gid;
	/* Where the region begins, as verbs address it. */
	uint64_t start;
};

static struct ibv_context *open_device(const char *name)
{
	int count;
	struct ibv_device **devices = ibv_get_device_list(&count);
	struct ibv_context *context = NULL;

	for (int i = 0; i < count && !context; i++)
		if (strcmp(ibv_get_device_name(devices[i]), name) == 0)
			context = ibv_open_device(devices[i]);
	if (!context)
		fail("cannot open the RDMA device %s", name);
	ibv_free_device_list(devices);
	return context;
}

static struct end make_end(const char *name)
{
	struct end end = { .context = open_device(name) };
	struct ibv_qp_init_attr attributes = { .qp_type = IBV_QPT_RC, .cap = { 8, 8, 1, 1, 0 }, .sq_sig_all = 1 };

	end.pd = ibv_alloc_pd(end.context);
	end.cq = ibv_create_cq(end.context, 16, NULL, NULL, 0);
	if (!end.pd || !end.cq || ibv_query_gid(end.context, PORT, 0, &end.gid))
		fail("%s: no protection domain, completion queue or GID: %s", name, strerror(errno));
	attributes.send_cq = attributes.recv_cq = end.cq;
	end.qp = ibv_create_qp(end.pd, &attributes);
	if (!end.qp)
		fail("%s: no queue pair: %s", name, strerror(errno));
	return end;
}

static void connect_end(struct end *end, const struct end *other)
{
	struct ibv_qp_attr init = { .qp_state = IBV_QPS_INIT, .port_num = PORT, .qp_access_flags = ACCESS };
	struct ibv_qp_attr receive = { .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = other->qp->qp_num,
				       .max_dest_rd_atomic = 1, .min_rnr_timer = 12,
				       .ah_attr = { .is_global = 1, .port_num = PORT, .grh = { .dgid = other->gid, .hop_limit = 1 } } };
	struct ibv_qp_attr send = { .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1 };

	if (ibv_modify_qp(end->qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) ||
	    ibv_modify_qp(end->qp, &receive, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						     IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) ||
	    ibv_modify_qp(end->qp, &send, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
						  IBV_QP_MAX_QP_RD_ATOMIC))
		fail("cannot connect: %s", strerror(errno));
}

static void completion(struct end *end, const char *what)
{
	struct ibv_wc wc;
	int count;

	do
		count = ibv_poll_cq(end->cq, 1, &wc);
	while (count == 0);
	if (count < 0 || wc.status != IBV_WC_SUCCESS)
		fail("%s: %s", what, count < 0 ? "cannot poll" : ibv_wc_status_str(wc.status));
}

static struct ibv_sge entry(const struct end *end, uint64_t offset, uint64_t bytes)
{
	return (struct ibv_sge){ .addr = end->start + offset, .length = (uint32_t)bytes, .lkey = end->mr->lkey };
}

static void post(struct end *end, struct ibv_send_wr *request, const char *what)
{
	struct ibv_send_wr *bad;

	if (ibv_post_send(end->qp, request, &bad))
		fail("%s: cannot post: %s", what, strerror(errno));
	completion(end, what);
}

/* WRITE or READ of all of the other end's region. */
static void rdma(struct end *from, struct end *to, enum ibv_wr_opcode opcode, uint64_t bytes, const char *what)
{
	struct ibv_sge sge = entry(from, 0, bytes);
	struct ibv_send_wr request = { .opcode = opcode, .sg_list = &sge, .num_sge = 1,
				       .wr.rdma = { to->start, to->mr->rkey } };

	post(from, &request, what);
}

static void send_message(struct end *from, struct end *to, uint64_t bytes, const char *what)
{
	struct ibv_sge source = entry(from, 0, bytes), target = entry(to, 0, bytes);
	struct ibv_recv_wr receive = { .sg_list = &target, .num_sge = 1 }, *bad;
	struct ibv_send_wr request = { .opcode = IBV_WR_SEND, .sg_list = &source, .num_sge = 1 };

	if (ibv_post_recv(to->qp, &receive, &bad))
		fail("%s: cannot post a receive: %s", what, strerror(errno));
	post(from, &request, what);
	completion(to, what);
}

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

static void register_dmabuf(struct end *end, const struct task *task)
{
	/* Verbs address the region by its offset; the driver wants offset and address equal within a page. */
	end->start = task->offset;
	end->mr = ibv_reg_dmabuf_mr(end->pd, task->offset, task->bytes, end->start, DMABUF_FD, ACCESS);
	if (!end->mr)
		refused("register", errno);
}

static void register_plain(struct end *end, uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		fail("cannot allocate %" PRIu64 " bytes: %s", bytes, strerror(errno));
	end->start = (uintptr_t)memory;
	end->mr = ibv_reg_mr(end->pd, memory, bytes, ACCESS);
	if (!end->mr)
		fail("cannot register plain memory: %s", strerror(errno));
}

static void free_end(struct end *end)
{
	if (ibv_destroy_qp(end->qp) || ibv_dereg_mr(end->mr) || ibv_destroy_cq(end->cq) || ibv_dealloc_pd(end->pd) ||
	    ibv_close_device(end->context))
		fail("cannot take the objects down: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	struct end dmabuf, plain;
	struct task task;

	if (argc != 6)
		fail("usage: export-... import-rdma DEVICE PEER OFFSET BYTES ORDER");
	task = parse_task(argv + 3);
	dmabuf = make_end(argv[1]);
	plain = make_end(argv[2]);
	register_dmabuf(&dmabuf, &task);
	register_plain(&plain, task.bytes);
	connect_end(&dmabuf, &plain);
	connect_end(&plain, &dmabuf);
	if (task.teardown == FD_FIRST)
		close_dmabuf();
	move_data(&dmabuf, &plain, &task);
	if (task.teardown == EXPORTER_FIRST && exporter_releases()) {
		memset((void *)plain.start, 0, task.bytes);
		rdma(&plain, &dmabuf, IBV_WR_RDMA_READ, task.bytes, "READ after the exporter let go");
		step_done("read", task.bytes, dmabuf_wrong((void *)plain.start, task.offset, task.bytes, 3));
	}
	free_end(&dmabuf);
	free_end(&plain);
	finished();
	return 0;
}
