"""Registers dma-bufs as memory regions and moves bytes through them by RDMA between two adapters.

usage: rdma-dmabuf.py SERVER CLIENT KIND   (KIND: heap, udmabuf, vram)

Every byte is compared through a CPU mapping of the buffer; prints one line per check and exits 0 only if all hold.
"""
import ctypes
import fcntl
import mmap
import os
import sys
import time

from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.enums import *  # noqa: F403
from pyverbs.mr import MR, DmaBufMR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, SendWR, RecvWR

SIZE = 1 << 20
ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC


def heap_buffer():
    """linux/dma-heap.h DMA_HEAP_IOCTL_ALLOC."""
    class Allocation(ctypes.Structure):
        _fields_ = [("len", ctypes.c_uint64), ("fd", ctypes.c_uint32), ("fd_flags", ctypes.c_uint32), ("heap_flags", ctypes.c_uint64)]

    heap = os.open("/dev/dma_heap/system", os.O_RDWR)
    request = Allocation(SIZE, 0, os.O_RDWR | os.O_CLOEXEC, 0)
    fcntl.ioctl(heap, 0xC0184800, request)
    return request.fd, mmap.mmap(request.fd, SIZE)


def udmabuf_buffer():
    """linux/udmabuf.h UDMABUF_CREATE, over a sealed memfd."""
    class Creation(ctypes.Structure):
        _fields_ = [("memfd", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("offset", ctypes.c_uint64), ("size", ctypes.c_uint64)]

    memory = os.memfd_create("rdma", os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, SIZE)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    device = os.open("/dev/udmabuf", os.O_RDWR)
    fd = fcntl.ioctl(device, 0x40187542, Creation(memory, 1, 0, SIZE))
    return fd, mmap.mmap(memory, SIZE)


def vram_buffer():
    """VRAM of the first GPU: drm/amdgpu_drm.h GEM_CREATE and GEM_MMAP, drm/drm.h PRIME_HANDLE_TO_FD."""
    class Creation(ctypes.Structure):
        _fields_ = [("size", ctypes.c_uint64), ("alignment", ctypes.c_uint64), ("domains", ctypes.c_uint64), ("flags", ctypes.c_uint64)]

    class Prime(ctypes.Structure):
        _fields_ = [("handle", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("fd", ctypes.c_int32)]

    card = os.open("/dev/dri/renderD128", os.O_RDWR)
    creation = Creation(SIZE, 4096, 4, 1)
    fcntl.ioctl(card, 0xC0206440, creation)
    handle = creation.size & 0xFFFFFFFF
    place = ctypes.c_uint64(handle)
    fcntl.ioctl(card, 0xC0086441, place)
    prime = Prime(handle, os.O_RDWR | os.O_CLOEXEC, -1)
    fcntl.ioctl(card, 0xC00C642D, prime)
    return prime.fd, mmap.mmap(card, SIZE, offset=place.value)


class End:
    def __init__(self, device):
        self.context = Context(name=device)
        self.pd = PD(self.context)
        self.cq = CQ(self.context, 16)
        init = QPInitAttr(qp_type=IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=QPCap(8, 8, 1, 1))
        self.qp = QP(self.pd, init)
        self.gid = self.context.query_gid(1, 0)

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


def run(server_name, client_name, make):
    server, client = End(server_name), End(client_name)
    server.connect(client)
    client.connect(server)
    fd, view = make()
    remote = DmaBufMR(server.pd, SIZE, ACCESS, fd, 0)
    local = MR(client.pd, SIZE, ACCESS)
    pattern = bytes((index * 31 + (index >> 8)) & 0xFF for index in range(SIZE))
    local.write(pattern, SIZE)

    def post(opcode, length=SIZE, **fields):
        request = SendWR(opcode=opcode, num_sge=1, sg=[SGE(local.buf, length, local.lkey)])
        if opcode != IBV_WR_SEND:
            if "add" in fields:
                request.set_wr_atomic(remote.rkey, 0, fields["add"], 0)
            else:
                request.set_wr_rdma(remote.rkey, 0)
        client.qp.post_send(request)
        return client.completion()

    check("RDMA WRITE completes", post(IBV_WR_RDMA_WRITE) == IBV_WC_SUCCESS)
    check("RDMA WRITE: every byte", view[:] == pattern)
    view[:] = bytes(reversed(pattern))
    check("RDMA READ completes", post(IBV_WR_RDMA_READ) == IBV_WC_SUCCESS)
    check("RDMA READ: every byte", local.read(SIZE, 0) == bytes(reversed(pattern)))
    view[0:8] = (1000).to_bytes(8, "little")
    check("fetch-add completes", post(IBV_WR_ATOMIC_FETCH_AND_ADD, 8, add=5) == IBV_WC_SUCCESS)
    check("fetch-add: old value", local.read(8, 0) == (1000).to_bytes(8, "little"))
    check("fetch-add: new value", view[0:8] == (1005).to_bytes(8, "little"))
    local.write(pattern, SIZE)
    server.qp.post_recv(RecvWR(num_sge=1, sg=[SGE(0, SIZE, remote.lkey)]))
    check("SEND completes", post(IBV_WR_SEND) == IBV_WC_SUCCESS)
    check("receive completes", server.completion() == IBV_WC_SUCCESS)
    check("SEND: every byte", view[:] == pattern)
    finish(0)


run(sys.argv[1], sys.argv[2], {"heap": heap_buffer, "udmabuf": udmabuf_buffer, "vram": vram_buffer}[sys.argv[3]])
