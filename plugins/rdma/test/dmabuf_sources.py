"""Where the dma-bufs of rdma-dmabuf.py come from: each maker returns its descriptor and a mapping for the guest's CPU."""
import ctypes
import fcntl
import mmap
import os
import socket
import struct

SIZE = 1 << 20


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


class HbmView:
    """What hl-window gives its program: HBM as a dma-buf (descriptor 3), seen by way of the card's DMA (4 and 5)."""

    def __init__(self):
        self.memory = mmap.mmap(4, SIZE)
        self.requests = socket.socket(fileno=5)

    def ask(self, request):
        self.requests.sendall(request)
        if self.requests.recv(1) != request:
            raise EOFError("hl-window has ended")

    def __getitem__(self, everything):
        self.ask(b"r")
        return self.memory[everything]

    def __setitem__(self, everything, contents):
        self.memory[everything] = contents
        self.ask(b"w")


def hbm_buffer():
    return 3, HbmView()


def exported_bar_buffer(address, bar):
    """The beginning of a BAR, by our own module: plugins/rdma/test/bar-export GBX_IOC_EXPORT_BAR."""
    device = os.open("/dev/ghostbus-bar-export", os.O_RDWR)
    fd = fcntl.ioctl(device, 0x40284201, bytearray(struct.pack("=16sIIQQ", address.encode(), bar, 0, 0, SIZE)))
    resource = os.open(f"/sys/bus/pci/devices/{address}/resource{bar}", os.O_RDWR)
    return fd, mmap.mmap(resource, SIZE)


class VfioBar:
    """The beginning of a BAR of a function that vfio-pci has bound (linux/vfio.h; needs an IOMMU group of its own)."""
    TYPE1V2_IOMMU = 3
    SET_IOMMU, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD, DEVICE_FEATURE = 0x3B66, 0x3B68, 0x3B6A, 0x3B75
    FEATURE_GET, FEATURE_DMA_BUF = 1 << 16, 11
    CONFIG_REGION = 7
    # drivers/vfio/pci/vfio_pci_core.h VFIO_PCI_OFFSET_SHIFT
    OFFSET_SHIFT = 40
    PCI_COMMAND, PCI_COMMAND_MEMORY = 4, 2

    def __init__(self, address, bar):
        group = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{address}/iommu_group"))
        self.container = os.open("/dev/vfio/vfio", os.O_RDWR)
        self.group = os.open(f"/dev/vfio/{group}", os.O_RDWR)
        fcntl.ioctl(self.group, self.GROUP_SET_CONTAINER, struct.pack("i", self.container))
        fcntl.ioctl(self.container, self.SET_IOMMU, self.TYPE1V2_IOMMU)
        self.device = fcntl.ioctl(self.group, self.GROUP_GET_DEVICE_FD, bytearray(address.encode() + b"\0"))
        self.bar = bar

    def buffer(self):
        """VFIO_DEVICE_FEATURE_DMA_BUF with one range; OSError ENOTTY where the kernel has no such feature."""
        header = struct.pack("=II", 8 + 16 + 16, self.FEATURE_GET | self.FEATURE_DMA_BUF)
        request = header + struct.pack("=IIII", self.bar, os.O_RDWR | os.O_CLOEXEC, 0, 1) + struct.pack("=QQ", 0, SIZE)
        fd = fcntl.ioctl(self.device, self.DEVICE_FEATURE, bytearray(request))
        return fd, mmap.mmap(self.device, SIZE, offset=self.bar << self.OFFSET_SHIFT)

    def decode(self, enabled):
        """Sets Memory Space Enable; vfio-pci revokes the dma-buf while it is clear."""
        place = (self.CONFIG_REGION << self.OFFSET_SHIFT) + self.PCI_COMMAND
        command, = struct.unpack("<H", os.pread(self.device, 2, place))
        command = command | self.PCI_COMMAND_MEMORY if enabled else command & ~self.PCI_COMMAND_MEMORY
        os.pwrite(self.device, struct.pack("<H", command), place)
