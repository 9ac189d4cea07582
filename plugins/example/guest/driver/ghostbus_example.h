/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the ghostbus example engine and its driver agree on: descriptor and registers (twins of descriptor.ts and
 * registers.ts), and the ioctls of /dev/ghostbus-exampleN.
 */
#ifndef GHOSTBUS_EXAMPLE_H
#define GHOSTBUS_EXAMPLE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define GBX_VENDOR_ID 0x1234
#define GBX_DEVICE_ID 0x6762

/* BAR0: registers, doorbell page; BAR2: device memory. */
#define GBX_REG_ID 0x00
#define GBX_ID_VALUE 0x47424558
#define GBX_REG_VERSION 0x04
#define GBX_REG_CONTROL 0x08
#define GBX_CONTROL_ENABLE (1u << 0)
#define GBX_CONTROL_RESET (1u << 1)
#define GBX_REG_STATUS 0x0c
#define GBX_STATUS_RUNNING (1u << 0)
#define GBX_REG_RING_BASE_LO 0x20
#define GBX_REG_RING_BASE_HI 0x24
#define GBX_REG_RING_SIZE 0x28
#define GBX_REG_HEAD 0x2c
#define GBX_REG_INTERRUPT_STATUS 0x40
#define GBX_REG_INTERRUPT_ENABLE 0x44
#define GBX_CAUSE_COMPLETION (1u << 0)
#define GBX_CAUSE_HALT (1u << 1)
#define GBX_REG_ERROR 0x48
#define GBX_DOORBELL 0x1000

/* MSI-X vectors. */
#define GBX_VECTOR_COMPLETION 0
#define GBX_VECTOR_HALT 1
#define GBX_VECTORS 2

/* Descriptor flags. */
#define GBX_SOURCE_IS_LOCAL (1u << 0)
#define GBX_DESTINATION_IS_LOCAL (1u << 1)
#define GBX_IMMEDIATE (1u << 2)
#define GBX_INTERRUPT (1u << 3)

/* Completion status. */
#define GBX_PENDING 0
#define GBX_DONE 1
#define GBX_INVALID_DESCRIPTOR 2
#define GBX_UNSUPPORTED_REQUEST 3
#define GBX_ACCESS_DENIED 4
#define GBX_BUS_ERROR 5

struct gbx_descriptor {
	__le64 source;
	__le64 destination;
	__le32 length;
	__le32 flags;
	__le32 status;
	__le32 copied;
};

/* One end of a copy. */
enum gbx_end {
	GBX_END_USER = 0,	/* pointer into the caller's memory */
	GBX_END_DEVICE = 1,	/* offset in the engine's own memory */
	GBX_END_BUS = 2,	/* raw bus address; needs CAP_SYS_RAWIO */
	GBX_END_IMMEDIATE = 3,	/* source only: the value itself, length 1 to 8 */
};

/* GBX_IOC_COPY: fails with EIO when the engine reports an error; status and copied are valid then, too. */
struct gbx_copy {
	__u64 source;
	__u64 destination;
	__u32 length;
	__u16 source_end;
	__u16 destination_end;
	__u32 status;		/* out: completion status of the last descriptor */
	__u32 copied;		/* out: bytes copied, all descriptors together */
};

struct gbx_info {
	__u64 memory_bytes;	/* without what was made pages: the engine reaches that, too, read() and write() do not */
	__u32 version;
	__u32 ring_entries;
};

#define GBX_IOC_COPY _IOWR('G', 0x01, struct gbx_copy)
#define GBX_IOC_INFO _IOR('G', 0x02, struct gbx_info)

#endif
