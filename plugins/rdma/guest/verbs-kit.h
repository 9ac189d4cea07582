// SPDX-License-Identifier: MIT
/*
 * What the programs of the dma-buf matrix share that speak verbs: one end of a reliable
 * connection over the ports' first GIDs.
 */
#ifndef VERBS_KIT_H
#define VERBS_KIT_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "fail.h"

#define ACCESS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)
#define PORT 1

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

static inline struct ibv_context *open_device(const char *name)
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

static inline struct end make_end(const char *name)
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

static inline void connect_end(struct end *end, const struct end *other)
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

/* Waits for one completion. */
static inline enum ibv_wc_status completion_status(struct end *end)
{
	struct ibv_wc wc;
	int count;

	do
		count = ibv_poll_cq(end->cq, 1, &wc);
	while (count == 0);
	if (count < 0)
		fail("cannot poll a completion queue");
	return wc.status;
}

static inline void completion(struct end *end, const char *what)
{
	enum ibv_wc_status status = completion_status(end);

	if (status != IBV_WC_SUCCESS)
		fail("%s: %s", what, ibv_wc_status_str(status));
}

static inline struct ibv_sge entry(const struct end *end, uint64_t offset, uint64_t bytes)
{
	return (struct ibv_sge){ .addr = end->start + offset, .length = (uint32_t)bytes, .lkey = end->mr->lkey };
}

/* Posts WRITE or READ of the first `bytes` of the other end's region, without waiting. */
static inline void post_rdma(struct end *from, struct end *to, enum ibv_wr_opcode opcode, uint64_t bytes)
{
	struct ibv_sge sge = entry(from, 0, bytes);
	struct ibv_send_wr request = { .opcode = opcode, .sg_list = &sge, .num_sge = 1,
				       .wr.rdma = { to->start, to->mr->rkey } }, *bad;

	if (ibv_post_send(from->qp, &request, &bad))
		fail("cannot post: %s", strerror(errno));
}

static inline void rdma(struct end *from, struct end *to, enum ibv_wr_opcode opcode, uint64_t bytes, const char *what)
{
	post_rdma(from, to, opcode, bytes);
	completion(from, what);
}

/* Posts one request and waits for it. */
static inline void post(struct end *end, struct ibv_send_wr *request, const char *what)
{
	struct ibv_send_wr *bad;

	if (ibv_post_send(end->qp, request, &bad))
		fail("%s: cannot post: %s", what, strerror(errno));
	completion(end, what);
}

/* SEND of the beginning of one region into the other. */
static inline void send_message(struct end *from, struct end *to, uint64_t bytes, const char *what)
{
	struct ibv_sge source = entry(from, 0, bytes), target = entry(to, 0, bytes);
	struct ibv_recv_wr receive = { .sg_list = &target, .num_sge = 1 }, *bad;
	struct ibv_send_wr request = { .opcode = IBV_WR_SEND, .sg_list = &source, .num_sge = 1 };

	if (ibv_post_recv(to->qp, &receive, &bad))
		fail("%s: cannot post a receive: %s", what, strerror(errno));
	post(from, &request, what);
	completion(to, what);
}

/* Memory of the program's own, on the plain end of a connection. */
static inline void register_plain(struct end *end, uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (memory == MAP_FAILED)
		fail("cannot allocate %" PRIu64 " bytes: %s", bytes, strerror(errno));
	end->start = (uintptr_t)memory;
	end->mr = ibv_reg_mr(end->pd, memory, bytes, ACCESS);
	if (!end->mr)
		fail("cannot register plain memory: %s", strerror(errno));
}

/*
 * Connects the two named devices: the first with all of a dma-buf as its region, the other with
 * plain memory of that size.
 */
static inline void register_ends(struct end *dmabuf, struct end *plain, char **names, int fd, uint64_t bytes)
{
	*dmabuf = make_end(names[0]);
	*plain = make_end(names[1]);
	dmabuf->mr = ibv_reg_dmabuf_mr(dmabuf->pd, 0, bytes, 0, fd, ACCESS);
	if (!dmabuf->mr)
		fail("%s does not register the dma-buf: %s", names[0], strerror(errno));
	register_plain(plain, bytes);
	connect_end(dmabuf, plain);
	connect_end(plain, dmabuf);
}

/* The region may be gone before. */
static inline void free_end(struct end *end)
{
	if (ibv_destroy_qp(end->qp) || (end->mr && ibv_dereg_mr(end->mr)) || ibv_destroy_cq(end->cq) || ibv_dealloc_pd(end->pd) ||
	    ibv_close_device(end->context))
		fail("cannot take the objects down: %s", strerror(errno));
}

#endif
