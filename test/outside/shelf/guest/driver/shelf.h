/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR MIT */
/* /dev/shelf-ADDRESS: mmap() shows the memory; the requests below give its label, and parts of it as dma-bufs. */
#ifndef SHELF_H
#define SHELF_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Stores the label that the device carries at the moment. */
#define SHELF_IOC_LABEL _IOR('S', 1, __u32)
/* Takes a number of bytes, whole pages; returns the descriptor of a dma-buf with the beginning of the memory. */
#define SHELF_IOC_EXPORT _IOW('S', 2, __u64)

#endif
