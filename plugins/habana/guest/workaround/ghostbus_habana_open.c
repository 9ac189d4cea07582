// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Lets /dev/accel/accelN of the stock habanalabs driver be opened on kernels from 6.12 on.
 *
 * drm_open_helper() refuses a file whose operations lack FOP_UNSIGNED_OFFSET, and habanalabs' hl_fops lack it (see
 * docs/upstream). The driver stays as it is: when its file reaches accel_open(), the file is handed a copy of the
 * driver's operations with the flag set. Files of other drivers, and of a driver that was mended, are left alone.
 */
#include <drm/drm_accel.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/string.h>

/* All cards have the same operations; it changes only when the driver was loaded anew, and then no file is open. */
static struct file_operations mended;

static int before_accel_open(struct kprobe *probe, struct pt_regs *regs)
{
	struct file *file = (struct file *)regs_get_kernel_argument(regs, 1);
	const struct file_operations *operations = file->f_op;
	struct file_operations copy;

	if (!operations->owner || strcmp(module_name(operations->owner), "habanalabs"))
		return 0;
	if (operations->fop_flags & FOP_UNSIGNED_OFFSET)
		return 0;
	copy = *operations;
	copy.fop_flags |= FOP_UNSIGNED_OFFSET;
	/* Never a moment without the flag: another CPU may be looking at it. */
	if (memcmp(&mended, &copy, sizeof(copy)))
		mended = copy;
	file->f_op = &mended;
	return 0;
}

/* A use of its symbol, so that drm is loaded before this module. */
static const void *const needs_drm __used = accel_open;

static struct kprobe accel_open_probe = {
	.symbol_name = "accel_open",
	.pre_handler = before_accel_open,
};

static int __init ghostbus_habana_open_init(void)
{
	int error = register_kprobe(&accel_open_probe);

	if (error)
		return error;
	pr_notice("ghostbus: habanalabs cannot be opened on this kernel as it is; worked around, see docs/upstream\n");
	return 0;
}
module_init(ghostbus_habana_open_init);
/* No exit: open files point into this module. */

MODULE_DESCRIPTION("Workaround for habanalabs' missing FOP_UNSIGNED_OFFSET");
MODULE_LICENSE("Dual MIT/GPL");
