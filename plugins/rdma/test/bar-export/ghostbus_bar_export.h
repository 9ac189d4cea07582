/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR MIT */
/*
 * /dev/ghostbus-bar-export: any part of any function's BAR as a dma-buf, registers too. For tests of peer-to-peer DMA.
 */
#ifndef GHOSTBUS_BAR_EXPORT_H
#define GHOSTBUS_BAR_EXPORT_H

#include <linux/ioctl.h>
#include <linux/types.h>

struct gbx_bar_range {
	/* As lspci -D has it: 0000:01:00.0 */
	char function[16];
	__u32 bar;
	__u32 reserved;
	/* Whole pages. */
	__u64 offset;
	__u64 bytes;
};

/* Returns a file descriptor of the dma-buf. */
#define GBX_IOC_EXPORT_BAR _IOW('B', 1, struct gbx_bar_range)

#endif
