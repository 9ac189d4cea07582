// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Driver of the ghostbus example copy engine: the worked example of developing a driver without hardware.
 *
 * One character device per function, /dev/ghostbus-exampleN. GBX_IOC_COPY runs one copy and sleeps until its interrupt;
 * read() and write() reach the device memory through the CPU's mapping of BAR2. On request the end of it
 * becomes pages that other drivers can do DMA to. The file is in the order in which things happen: talk to the
 * engine, copy, file operations, reset, sleep, pages, probe.
 */
#include <linux/capability.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/idr.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/memremap.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/pm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "ghostbus_example.h"

#define DRIVER_NAME "ghostbus_example"
#define RING_LOG2_ENTRIES 6
#define RING_ENTRIES (1u << RING_LOG2_ENTRIES)
#define BOUNCE_BYTES (256u * 1024)
#define COPY_TIMEOUT (10 * HZ)

struct gbx {
	struct kref references;		/* the PCI device, and every open file */
	struct pci_dev *pdev;
	struct miscdevice misc;
	int id;

	struct mutex lock;		/* one copy at a time; also guards alive */
	bool alive;			/* false once the function is gone */

	void __iomem *registers;	/* BAR0 */
	void __iomem *memory;		/* BAR2, write-combining, without what was made pages */
	u64 memory_bytes;

	struct gbx_descriptor *ring;
	dma_addr_t ring_bus;
	u32 tail;
	void *bounce[2];		/* user data on its way out of, and into, the caller's memory */
	dma_addr_t bounce_bus[2];

	wait_queue_head_t completed;
	bool halted;
};

static DEFINE_IDA(gbx_ids);

static unsigned int p2pmem_mib;
module_param(p2pmem_mib, uint, 0444);
MODULE_PARM_DESC(p2pmem_mib, "MiB at the end of device memory for other drivers and processes, as peer-to-peer pages (default 0)");

/* --- the engine --- */

static void gbx_stop(struct gbx *gbx)
{
	writel(GBX_CONTROL_RESET, gbx->registers + GBX_REG_CONTROL);
}

static int gbx_start(struct gbx *gbx)
{
	if (readl(gbx->registers + GBX_REG_ID) != GBX_ID_VALUE)
		return -ENODEV;
	gbx_stop(gbx);
	gbx->tail = 0;
	WRITE_ONCE(gbx->halted, false);
	writel(lower_32_bits(gbx->ring_bus), gbx->registers + GBX_REG_RING_BASE_LO);
	writel(upper_32_bits(gbx->ring_bus), gbx->registers + GBX_REG_RING_BASE_HI);
	writel(RING_LOG2_ENTRIES, gbx->registers + GBX_REG_RING_SIZE);
	writel(GBX_CAUSE_COMPLETION | GBX_CAUSE_HALT, gbx->registers + GBX_REG_INTERRUPT_ENABLE);
	writel(GBX_CONTROL_ENABLE, gbx->registers + GBX_REG_CONTROL);
	if (!(readl(gbx->registers + GBX_REG_STATUS) & GBX_STATUS_RUNNING))
		return -EIO;
	return 0;
}

static irqreturn_t gbx_completion_irq(int irq, void *data)
{
	struct gbx *gbx = data;

	writel(GBX_CAUSE_COMPLETION, gbx->registers + GBX_REG_INTERRUPT_STATUS);
	wake_up(&gbx->completed);
	return IRQ_HANDLED;
}

static irqreturn_t gbx_halt_irq(int irq, void *data)
{
	struct gbx *gbx = data;

	writel(GBX_CAUSE_HALT, gbx->registers + GBX_REG_INTERRUPT_STATUS);
	WRITE_ONCE(gbx->halted, true);
	wake_up(&gbx->completed);
	return IRQ_HANDLED;
}

static u32 gbx_status(const struct gbx_descriptor *descriptor)
{
	return le32_to_cpu(READ_ONCE(descriptor->status));
}

/*
 * Runs one descriptor and waits for it. The engine writes status and count in one go, so that the count is valid here.
 */
static int gbx_execute(struct gbx *gbx, u64 source, u64 destination, u32 length, u32 flags, struct gbx_copy *result)
{
	struct gbx_descriptor *descriptor = &gbx->ring[gbx->tail];

	descriptor->source = cpu_to_le64(source);
	descriptor->destination = cpu_to_le64(destination);
	descriptor->length = cpu_to_le32(length);
	descriptor->flags = cpu_to_le32(flags | GBX_INTERRUPT);
	descriptor->copied = 0;
	WRITE_ONCE(descriptor->status, cpu_to_le32(GBX_PENDING));
	gbx->tail = (gbx->tail + 1) % RING_ENTRIES;
	/* writel() orders the stores to the ring before the doorbell. */
	writel(gbx->tail, gbx->registers + GBX_DOORBELL);

	if (!wait_event_timeout(gbx->completed,
				gbx_status(descriptor) != GBX_PENDING || READ_ONCE(gbx->halted), COPY_TIMEOUT)) {
		dev_err(&gbx->pdev->dev, "no completion in %d s; restarting the engine\n", COPY_TIMEOUT / HZ);
		return gbx_start(gbx) ?: -ETIMEDOUT;
	}
	if (READ_ONCE(gbx->halted)) {
		dev_err(&gbx->pdev->dev, "engine halted, error %u; restarting it\n",
			readl(gbx->registers + GBX_REG_ERROR));
		return gbx_start(gbx) ?: -EIO;
	}
	dma_rmb();
	result->status = gbx_status(descriptor);
	result->copied += le32_to_cpu(descriptor->copied);
	return result->status == GBX_DONE ? 0 : -EIO;
}

/* --- a copy --- */

static int gbx_check(const struct gbx_copy *copy)
{
	bool bus = copy->source_end == GBX_END_BUS || copy->destination_end == GBX_END_BUS;

	if (copy->length == 0 || copy->source_end > GBX_END_IMMEDIATE || copy->destination_end > GBX_END_BUS)
		return -EINVAL;
	if (copy->source_end == GBX_END_IMMEDIATE && copy->length > sizeof(copy->source))
		return -EINVAL;
	/* A raw bus address reaches all memory and every device. */
	if (bus && !capable(CAP_SYS_RAWIO))
		return -EPERM;
	return 0;
}

static u32 gbx_flags(const struct gbx_copy *copy)
{
	return (copy->source_end == GBX_END_DEVICE ? GBX_SOURCE_IS_LOCAL : 0) |
	       (copy->source_end == GBX_END_IMMEDIATE ? GBX_IMMEDIATE : 0) |
	       (copy->destination_end == GBX_END_DEVICE ? GBX_DESTINATION_IS_LOCAL : 0);
}

/* User memory goes through a bounce buffer, piece by piece; any other end is handed to the engine as it is. */
static int gbx_copy_locked(struct gbx *gbx, struct gbx_copy *copy)
{
	bool from_user = copy->source_end == GBX_END_USER;
	bool to_user = copy->destination_end == GBX_END_USER;
	u32 done, piece;
	int error;

	for (done = 0; done < copy->length; done += piece) {
		u64 source = copy->source_end == GBX_END_IMMEDIATE ? copy->source : copy->source + done;
		u64 destination = copy->destination + done;

		if (fatal_signal_pending(current))
			return -EINTR;
		piece = copy->length - done;
		if (from_user || to_user)
			piece = min(piece, BOUNCE_BYTES);
		if (from_user && copy_from_user(gbx->bounce[0], u64_to_user_ptr(source), piece))
			return -EFAULT;
		error = gbx_execute(gbx, from_user ? gbx->bounce_bus[0] : source,
				    to_user ? gbx->bounce_bus[1] : destination, piece, gbx_flags(copy), copy);
		if (error)
			return error;
		if (to_user && copy_to_user(u64_to_user_ptr(destination), gbx->bounce[1], piece))
			return -EFAULT;
	}
	return 0;
}

static long gbx_ioctl_copy(struct gbx *gbx, void __user *argument)
{
	struct gbx_copy copy;
	int error;

	if (copy_from_user(&copy, argument, sizeof(copy)))
		return -EFAULT;
	copy.status = GBX_PENDING;
	copy.copied = 0;
	error = gbx_check(&copy);
	if (error)
		return error;
	if (mutex_lock_interruptible(&gbx->lock))
		return -ERESTARTSYS;
	error = gbx->alive ? gbx_copy_locked(gbx, &copy) : -ENODEV;
	mutex_unlock(&gbx->lock);
	if (copy_to_user(argument, &copy, sizeof(copy)))
		return -EFAULT;
	return error;
}

static long gbx_ioctl_info(struct gbx *gbx, void __user *argument)
{
	struct gbx_info info = { .memory_bytes = gbx->memory_bytes, .ring_entries = RING_ENTRIES };
	int error = 0;

	mutex_lock(&gbx->lock);
	if (gbx->alive)
		info.version = readl(gbx->registers + GBX_REG_VERSION);
	else
		error = -ENODEV;
	mutex_unlock(&gbx->lock);
	if (!error && copy_to_user(argument, &info, sizeof(info)))
		error = -EFAULT;
	return error;
}

/* --- file operations --- */

static void gbx_free(struct kref *references)
{
	struct gbx *gbx = container_of(references, struct gbx, references);

	ida_free(&gbx_ids, gbx->id);
	kfree(gbx->misc.name);
	kfree(gbx);
}

static int gbx_open(struct inode *inode, struct file *file)
{
	/* The misc core stores its device here, and holds off misc_deregister() meanwhile. */
	struct gbx *gbx = container_of(file->private_data, struct gbx, misc);

	kref_get(&gbx->references);
	file->private_data = gbx;
	return 0;
}

static int gbx_release(struct inode *inode, struct file *file)
{
	struct gbx *gbx = file->private_data;

	kref_put(&gbx->references, gbx_free);
	return 0;
}

static long gbx_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	switch (command) {
	case GBX_IOC_COPY:
		return gbx_ioctl_copy(file->private_data, (void __user *)argument);
	case GBX_IOC_INFO:
		return gbx_ioctl_info(file->private_data, (void __user *)argument);
	default:
		return -ENOTTY;
	}
}

/*
 * Moves at most one page between the caller and the device memory; short transfers are what read() and write() allow.
 */
static ssize_t gbx_transfer(struct gbx *gbx, char __user *user, size_t count, loff_t *position, bool is_write)
{
	ssize_t result;
	void *page;

	if (*position < 0 || *position >= gbx->memory_bytes)
		return is_write && count ? -ENOSPC : 0;
	count = min_t(u64, min_t(size_t, count, PAGE_SIZE), gbx->memory_bytes - *position);
	page = (void *)__get_free_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	result = -EFAULT;
	if (is_write && copy_from_user(page, user, count))
		goto out;
	mutex_lock(&gbx->lock);
	result = gbx->alive ? count : -ENODEV;
	if (result > 0 && is_write) {
		memcpy_toio(gbx->memory + *position, page, count);
		/* The next doorbell must not overtake write-combined stores. */
		wmb();
	} else if (result > 0) {
		memcpy_fromio(page, gbx->memory + *position, count);
	}
	mutex_unlock(&gbx->lock);
	if (result > 0 && !is_write && copy_to_user(user, page, count))
		result = -EFAULT;
	if (result > 0)
		*position += result;
out:
	free_page((unsigned long)page);
	return result;
}

static ssize_t gbx_read(struct file *file, char __user *user, size_t count, loff_t *position)
{
	return gbx_transfer(file->private_data, user, count, position, false);
}

static ssize_t gbx_write(struct file *file, const char __user *user, size_t count, loff_t *position)
{
	return gbx_transfer(file->private_data, (char __user *)user, count, position, true);
}

static loff_t gbx_llseek(struct file *file, loff_t offset, int whence)
{
	struct gbx *gbx = file->private_data;

	return fixed_size_llseek(file, offset, whence, gbx->memory_bytes);
}

static const struct file_operations gbx_file_operations = {
	.owner = THIS_MODULE,
	.open = gbx_open,
	.release = gbx_release,
	.read = gbx_read,
	.write = gbx_write,
	.llseek = gbx_llseek,
	.unlocked_ioctl = gbx_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* --- reset through sysfs or by the PCI core --- */

static void gbx_reset_prepare(struct pci_dev *pdev)
{
	struct gbx *gbx = pci_get_drvdata(pdev);

	/* Held until gbx_reset_done(): copies wait instead of failing. */
	mutex_lock(&gbx->lock);
	gbx_stop(gbx);
}

static void gbx_reset_done(struct pci_dev *pdev)
{
	struct gbx *gbx = pci_get_drvdata(pdev);
	int error = gbx_start(gbx);

	if (error) {
		gbx->alive = false;
		dev_err(&pdev->dev, "engine does not start after a reset: %d\n", error);
	} else {
		dev_info(&pdev->dev, "engine restarted after a reset\n");
	}
	mutex_unlock(&gbx->lock);
}

static const struct pci_error_handlers gbx_error_handlers = {
	.reset_prepare = gbx_reset_prepare,
	.reset_done = gbx_reset_done,
};

/* --- sleep: processes are frozen, so that no copy is under way --- */

static int gbx_suspend(struct device *device)
{
	struct gbx *gbx = dev_get_drvdata(device);

	gbx_stop(gbx);
	return 0;
}

/* The engine may have lost its power, and the contents of its memory with it. */
static int gbx_resume(struct device *device)
{
	struct gbx *gbx = dev_get_drvdata(device);
	int error = gbx_start(gbx);

	if (error)
		gbx->alive = false;
	return error;
}

static DEFINE_SIMPLE_DEV_PM_OPS(gbx_pm_ops, gbx_suspend, gbx_resume);

/* --- pages: what an NVMe drive does with its controller memory buffer (drivers/nvme/host/pci.c nvme_map_cmb) --- */

/*
 * Gives struct pages to the end of device memory, and these to whoever maps the function's
 * p2pmem/allocate in sysfs. The kernel takes them back when the driver is unbound. Returns how many
 * bytes; without CONFIG_PCI_P2PDMA there are none.
 */
static u64 gbx_offer_pages(struct pci_dev *pdev)
{
	u64 bytes = (u64)p2pmem_mib << 20, all = pci_resource_len(pdev, 2);
	int error = -EINVAL;

	if (!bytes)
		return 0;
	if (bytes < all && IS_ALIGNED(bytes, memremap_compat_align()))
		error = pci_p2pdma_add_resource(pdev, 2, bytes, all - bytes);
	if (error) {
		dev_warn(&pdev->dev, "%u of %llu MiB cannot become peer-to-peer pages: %d\n", p2pmem_mib, all >> 20, error);
		return 0;
	}
	pci_p2pmem_publish(pdev, true);
	return bytes;
}

/* --- probe and remove --- */

static int gbx_map(struct gbx *gbx)
{
	struct pci_dev *pdev = gbx->pdev;

	gbx->memory_bytes = pci_resource_len(pdev, 2) - gbx_offer_pages(pdev);
	gbx->registers = pci_ioremap_bar(pdev, 0);
	gbx->memory = ioremap_wc(pci_resource_start(pdev, 2), gbx->memory_bytes);
	return gbx->registers && gbx->memory ? 0 : -ENOMEM;
}

static void gbx_unmap(struct gbx *gbx)
{
	if (gbx->memory)
		iounmap(gbx->memory);
	if (gbx->registers)
		iounmap(gbx->registers);
}

static void gbx_free_buffers(struct gbx *gbx)
{
	struct device *dev = &gbx->pdev->dev;
	int i;

	for (i = 0; i < 2; i++)
		if (gbx->bounce[i])
			dma_free_coherent(dev, BOUNCE_BYTES, gbx->bounce[i], gbx->bounce_bus[i]);
	if (gbx->ring)
		dma_free_coherent(dev, RING_ENTRIES * sizeof(*gbx->ring), gbx->ring, gbx->ring_bus);
}

static int gbx_alloc_buffers(struct gbx *gbx)
{
	struct device *dev = &gbx->pdev->dev;
	int i;

	gbx->ring = dma_alloc_coherent(dev, RING_ENTRIES * sizeof(*gbx->ring), &gbx->ring_bus, GFP_KERNEL);
	for (i = 0; i < 2; i++)
		gbx->bounce[i] = dma_alloc_coherent(dev, BOUNCE_BYTES, &gbx->bounce_bus[i], GFP_KERNEL);
	if (gbx->ring && gbx->bounce[0] && gbx->bounce[1])
		return 0;
	gbx_free_buffers(gbx);
	return -ENOMEM;
}

static void gbx_free_interrupts(struct gbx *gbx)
{
	free_irq(pci_irq_vector(gbx->pdev, GBX_VECTOR_HALT), gbx);
	free_irq(pci_irq_vector(gbx->pdev, GBX_VECTOR_COMPLETION), gbx);
	pci_free_irq_vectors(gbx->pdev);
}

static int gbx_request_interrupts(struct gbx *gbx)
{
	struct pci_dev *pdev = gbx->pdev;
	int error = pci_alloc_irq_vectors(pdev, GBX_VECTORS, GBX_VECTORS, PCI_IRQ_MSIX);

	if (error < 0)
		return error;
	error = request_irq(pci_irq_vector(pdev, GBX_VECTOR_COMPLETION), gbx_completion_irq, 0,
			    DRIVER_NAME "-completion", gbx);
	if (error)
		goto free_vectors;
	error = request_irq(pci_irq_vector(pdev, GBX_VECTOR_HALT), gbx_halt_irq, 0, DRIVER_NAME "-halt", gbx);
	if (error)
		goto free_completion;
	return 0;

free_completion:
	free_irq(pci_irq_vector(pdev, GBX_VECTOR_COMPLETION), gbx);
free_vectors:
	pci_free_irq_vectors(pdev);
	return error;
}

static int gbx_create(struct pci_dev *pdev, struct gbx **created)
{
	struct gbx *gbx = kzalloc(sizeof(*gbx), GFP_KERNEL);

	if (!gbx)
		return -ENOMEM;
	gbx->id = ida_alloc(&gbx_ids, GFP_KERNEL);
	if (gbx->id < 0) {
		int error = gbx->id;

		kfree(gbx);
		return error;
	}
	kref_init(&gbx->references);
	mutex_init(&gbx->lock);
	init_waitqueue_head(&gbx->completed);
	gbx->pdev = pdev;
	gbx->misc.minor = MISC_DYNAMIC_MINOR;
	gbx->misc.fops = &gbx_file_operations;
	gbx->misc.parent = &pdev->dev;
	gbx->misc.name = kasprintf(GFP_KERNEL, "ghostbus-example%d", gbx->id);
	if (!gbx->misc.name) {
		kref_put(&gbx->references, gbx_free);
		return -ENOMEM;
	}
	*created = gbx;
	return 0;
}

static int gbx_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct gbx *gbx;
	int error = gbx_create(pdev, &gbx);

	if (error)
		return error;
	pci_set_drvdata(pdev, gbx);
	error = pci_enable_device(pdev);
	if (error)
		goto put;
	error = pci_request_regions(pdev, DRIVER_NAME);
	if (error)
		goto disable;
	/* The engine refuses addresses from 2^53 on. */
	error = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(53));
	if (error)
		goto release;
	pci_set_master(pdev);
	error = gbx_map(gbx) ?: gbx_alloc_buffers(gbx);
	if (error)
		goto unmap;
	error = gbx_request_interrupts(gbx);
	if (error)
		goto free_buffers;
	error = gbx_start(gbx);
	if (error)
		goto free_interrupts;
	gbx->alive = true;
	error = misc_register(&gbx->misc);
	if (error)
		goto stop;
	dev_info(&pdev->dev, "%s: copy engine with %llu MiB\n", gbx->misc.name, gbx->memory_bytes >> 20);
	return 0;

stop:
	gbx_stop(gbx);
free_interrupts:
	gbx_free_interrupts(gbx);
free_buffers:
	gbx_free_buffers(gbx);
unmap:
	gbx_unmap(gbx);
	pci_clear_master(pdev);
release:
	pci_release_regions(pdev);
disable:
	pci_disable_device(pdev);
put:
	kref_put(&gbx->references, gbx_free);
	return error;
}

static void gbx_remove(struct pci_dev *pdev)
{
	struct gbx *gbx = pci_get_drvdata(pdev);

	misc_deregister(&gbx->misc);
	/* Files may stay open: they see ENODEV from now on. */
	mutex_lock(&gbx->lock);
	gbx->alive = false;
	gbx_stop(gbx);
	mutex_unlock(&gbx->lock);
	gbx_free_interrupts(gbx);
	gbx_free_buffers(gbx);
	gbx_unmap(gbx);
	pci_clear_master(pdev);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
	kref_put(&gbx->references, gbx_free);
}

static const struct pci_device_id gbx_ids_table[] = {
	{ PCI_DEVICE(GBX_VENDOR_ID, GBX_DEVICE_ID) },
	{ }
};
MODULE_DEVICE_TABLE(pci, gbx_ids_table);

static struct pci_driver gbx_driver = {
	.name = DRIVER_NAME,
	.id_table = gbx_ids_table,
	.probe = gbx_probe,
	.remove = gbx_remove,
	.err_handler = &gbx_error_handlers,
	.driver.pm = pm_sleep_ptr(&gbx_pm_ops),
};
module_pci_driver(gbx_driver);

MODULE_DESCRIPTION("Driver of the ghostbus example copy engine");
MODULE_LICENSE("Dual MIT/GPL");
