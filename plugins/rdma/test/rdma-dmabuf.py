"""Registers dma-bufs as memory regions and moves bytes through them by RDMA between two adapters.

usage: rdma-dmabuf.py SERVER CLIENT KIND [ADDRESS BAR]   (KIND: heap, udmabuf, vram, hbm under hl-window,
or vfio with a function's address and BAR)

Every byte is compared through a CPU mapping of the buffer, or a copy by the card whose memory it is; prints one line per check and exits 0 only if all hold. The last line,
`moved WRITTEN READ`, says how many bytes the server's adapter had to write into the buffer and to read from it.
"""
import os
import sys
import time

from dmabuf_sources import SIZE, VfioBar, exported_bar_buffer, hbm_buffer, heap_buffer, udmabuf_buffer, vram_buffer
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.enums import *  # noqa: F403
from pyverbs.mr import MR, DmaBufMR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, SendWR, RecvWR

ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC
ATOMIC_BYTES = 8
PATTERN = bytes((index * 31 + (index >> 8)) & 0xFF for index in range(SIZE))
REVERSED = bytes(reversed(PATTERN))


class End:
    def __init__(self, device):
        self.context = Context(name=device)
        self.pd = PD(self.context)
        self.cq = CQ(self.context, 16)
        self.gid = self.context.query_gid(1, 0)
        self.renew()

    def renew(self):
        """A queue pair that was not in error yet."""
        init = QPInitAttr(qp_type=IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=QPCap(8, 8, 1, 1))
        self.qp = QP(self.pd, init)

    def connect(self, other):
        attributes = QPAttr(port_num=1)
        attributes.dest_qp_num = other.qp.qp_num
        route = GlobalRoute(dgid=other.gid, sgid_index=0)
        attributes.ah_attr = AHAttr(port_num=1, is_global=1, gr=route)
        attributes.path_mtu = IBV_MTU_1024
        attributes.max_rd_atomic = 1
        attributes.max_dest_rd_atomic = 1
        attributes.qp_access_flags = ACCESS
        attributes.min_rnr_timer = 12
        attributes.timeout = 14
        attributes.retry_cnt = 7
        attributes.rnr_retry = 7
        self.qp.to_rts(attributes)

    def completion(self):
        for _ in range(10000):
            count, entries = self.cq.poll()
            if count:
                return entries[0].status
            time.sleep(0.001)
        check("a completion arrives", False)


def check(name, holds):
    print(("ok " if holds else "FAILED ") + name, flush=True)
    if not holds:
        finish(1)


def finish(status):
    """Leaves without destructors: pyverbs 56 crashes when it frees objects in the order Python chooses."""
    sys.stdout.flush()
    os._exit(status)


def word(value):
    return value.to_bytes(ATOMIC_BYTES, "little")


class Session:
    """Two connected queue pairs, a buffer of the client's, and the dma-buf as a memory region of the server's."""

    def __init__(self, server_name, client_name, fd, view):
        self.server, self.client = End(server_name), End(client_name)
        self.connect()
        self.view = view
        self.remote = DmaBufMR(self.server.pd, SIZE, ACCESS, fd, 0)
        self.local = MR(self.client.pd, SIZE, ACCESS)
        self.written = self.read = 0

    def connect(self):
        self.server.connect(self.client)
        self.client.connect(self.server)

    def renew(self):
        self.server.renew()
        self.client.renew()
        self.connect()

    def rdma(self, opcode):
        request = SendWR(opcode=opcode, num_sge=1, sg=[SGE(self.local.buf, SIZE, self.local.lkey)])
        request.set_wr_rdma(self.remote.rkey, 0)
        self.client.qp.post_send(request)
        return self.client.completion()

    def atomic(self, opcode, at, *operands):
        request = SendWR(opcode=opcode, num_sge=1, sg=[SGE(self.local.buf, ATOMIC_BYTES, self.local.lkey)])
        request.set_wr_atomic(self.remote.rkey, at, *operands)
        self.client.qp.post_send(request)
        return self.client.completion()

    def check_write(self, pattern):
        self.local.write(pattern, SIZE)
        check("RDMA WRITE completes", self.rdma(IBV_WR_RDMA_WRITE) == IBV_WC_SUCCESS)
        check("RDMA WRITE: every byte", self.view[:] == pattern)
        self.written += SIZE

    def check_read(self, pattern):
        self.view[:] = pattern
        check("RDMA READ completes", self.rdma(IBV_WR_RDMA_READ) == IBV_WC_SUCCESS)
        check("RDMA READ: every byte", self.local.read(SIZE, 0) == pattern)
        self.read += SIZE

    def check_atomic(self, name, opcode, at, operands, before, after):
        """`after` None: memory stays."""
        around = bytearray(self.view[:])
        around[at:at + ATOMIC_BYTES] = word(before)
        self.view[:] = bytes(around)
        check(f"{name} completes", self.atomic(opcode, at, *operands) == IBV_WC_SUCCESS)
        check(f"{name}: old value", self.local.read(ATOMIC_BYTES, 0) == word(before))
        if after is not None:
            around[at:at + ATOMIC_BYTES] = word(after)
            self.written += ATOMIC_BYTES
        check(f"{name}: new value and its surroundings", self.view[:] == bytes(around))
        self.read += ATOMIC_BYTES

    def check_atomics(self):
        last = SIZE - ATOMIC_BYTES
        self.check_atomic("fetch-add", IBV_WR_ATOMIC_FETCH_AND_ADD, 0, (5, 0), 1000, 1005)
        self.check_atomic("fetch-add across 2^64", IBV_WR_ATOMIC_FETCH_AND_ADD, last, (2, 0), 2**64 - 1, 1)
        self.check_atomic("compare-swap", IBV_WR_ATOMIC_CMP_AND_SWP, 4096, (77, 2**63 + 1), 77, 2**63 + 1)
        self.check_atomic("compare-swap of another value", IBV_WR_ATOMIC_CMP_AND_SWP, 4096, (76, 5), 77, None)

    def check_send_into(self, pattern):
        self.local.write(pattern, SIZE)
        self.server.qp.post_recv(RecvWR(num_sge=1, sg=[SGE(0, SIZE, self.remote.lkey)]))
        self.client.qp.post_send(SendWR(opcode=IBV_WR_SEND, num_sge=1, sg=[SGE(self.local.buf, SIZE, self.local.lkey)]))
        check("SEND into the buffer completes", self.client.completion() == IBV_WC_SUCCESS)
        check("receive in the buffer completes", self.server.completion() == IBV_WC_SUCCESS)
        check("SEND into the buffer: every byte", self.view[:] == pattern)
        self.written += SIZE

    def check_send_from(self, pattern):
        self.view[:] = pattern
        self.client.qp.post_recv(RecvWR(num_sge=1, sg=[SGE(self.local.buf, SIZE, self.local.lkey)]))
        self.server.qp.post_send(SendWR(opcode=IBV_WR_SEND, num_sge=1, sg=[SGE(0, SIZE, self.remote.lkey)]))
        check("SEND from the buffer completes", self.server.completion() == IBV_WC_SUCCESS)
        check("its receive completes", self.client.completion() == IBV_WC_SUCCESS)
        check("SEND from the buffer: every byte", self.local.read(SIZE, 0) == pattern)
        self.read += SIZE

    def check_all(self):
        self.check_write(PATTERN)
        self.check_read(REVERSED)
        self.check_atomics()
        self.check_send_into(PATTERN)
        self.check_send_from(REVERSED)

    def check_revocation(self, bar):
        """While the exporter has revoked its buffer, requests fail; afterwards they find it again, with the bytes of before."""
        before = self.view[:]
        bar.decode(False)
        self.local.write(PATTERN, SIZE)
        check("RDMA WRITE fails while revoked", self.rdma(IBV_WR_RDMA_WRITE) in (IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_OP_ERR))
        bar.decode(True)
        check("no byte was written while revoked", self.view[:] == before)
        self.renew()
        self.check_write(PATTERN)


def main(server_name, client_name, kind, *place):
    if kind == "vfio":
        bar = VfioBar(place[0], int(place[1]))
        session = Session(server_name, client_name, *bar.buffer())
    elif kind == "bar":
        session = Session(server_name, client_name, *exported_bar_buffer(place[0], int(place[1])))
    else:
        make = {"heap": heap_buffer, "udmabuf": udmabuf_buffer, "vram": vram_buffer, "hbm": hbm_buffer}[kind]
        session = Session(server_name, client_name, *make())
    session.check_all()
    if kind == "vfio":
        session.check_revocation(bar)
    print(f"moved {session.written} {session.read}")
    finish(0)


main(*sys.argv[1:])
