// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Exports a part of a function's BAR as a dma-buf. Importers get its bus address, whether or not the kernel was built
 * with CONFIG_PCI_P2PDMA or thinks that the two functions can reach each other: for tests, where both are emulated.
 *
 * A buffer never moves; the caller keeps the function bound and its memory space enabled while a buffer lives.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "ghostbus_bar_export.h"

struct exported_bar {
	struct pci_dev *pdev;
	phys_addr_t start;
	size_t bytes;
};

static int bar_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attachment)
{
	return attachment->peer2peer ? 0 : -EOPNOTSUPP;
}

static struct sg_table *bar_map(struct dma_buf_attachment *attachment, enum dma_data_direction direction)
{
	struct exported_bar *bar = attachment->dmabuf->priv;
	struct sg_table *table = kzalloc(sizeof(*table), GFP_KERNEL);
	dma_addr_t address;
	int error;

	if (!table)
		return ERR_PTR(-ENOMEM);
	error = sg_alloc_table(table, 1, GFP_KERNEL);
	if (error)
		goto free_table;
	address = dma_map_resource(attachment->dev, bar->start, bar->bytes, direction, 0);
	error = dma_mapping_error(attachment->dev, address);
	if (error)
		goto free_entries;
	sg_set_page(table->sgl, NULL, bar->bytes, 0);
	sg_dma_address(table->sgl) = address;
	sg_dma_len(table->sgl) = bar->bytes;
	return table;

free_entries:
	sg_free_table(table);
free_table:
	kfree(table);
	return ERR_PTR(error);
}

static void bar_unmap(struct dma_buf_attachment *attachment, struct sg_table *table, enum dma_data_direction direction)
{
	dma_unmap_resource(attachment->dev, sg_dma_address(table->sgl), sg_dma_len(table->sgl), direction, 0);
	sg_free_table(table);
	kfree(table);
}

static void bar_release(struct dma_buf *dmabuf)
{
	struct exported_bar *bar = dmabuf->priv;

	pci_dev_put(bar->pdev);
	kfree(bar);
}

static const struct dma_buf_ops bar_ops = {
	.attach = bar_attach,
	.map_dma_buf = bar_map,
	.unmap_dma_buf = bar_unmap,
	.release = bar_release,
};

static struct pci_dev *find_function(const char *name)
{
	unsigned int domain, bus, slot, function;

	if (sscanf(name, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		return NULL;
	return pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, function));
}

static int check_range(struct pci_dev *pdev, const struct gbx_bar_range *range)
{
	resource_size_t length;

	if (range->reserved || range->bar >= PCI_STD_NUM_BARS)
		return -EINVAL;
	if (!(pci_resource_flags(pdev, range->bar) & IORESOURCE_MEM))
		return -ENODEV;
	length = pci_resource_len(pdev, range->bar);
	if (!range->bytes || range->bytes > UINT_MAX || !PAGE_ALIGNED(range->offset) || !PAGE_ALIGNED(range->bytes))
		return -EINVAL;
	if (range->offset > length || range->bytes > length - range->offset)
		return -EINVAL;
	return 0;
}

static int export_range(struct pci_dev *pdev, const struct gbx_bar_range *range)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct exported_bar *bar = kzalloc(sizeof(*bar), GFP_KERNEL);
	struct dma_buf *dmabuf;
	int fd;

	if (!bar)
		return -ENOMEM;
	bar->pdev = pci_dev_get(pdev);
	bar->start = pci_resource_start(pdev, range->bar) + range->offset;
	bar->bytes = range->bytes;
	info.ops = &bar_ops;
	info.size = bar->bytes;
	info.flags = O_RDWR;
	info.priv = bar;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		pci_dev_put(pdev);
		kfree(bar);
		return PTR_ERR(dmabuf);
	}
	fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (fd < 0)
		dma_buf_put(dmabuf);
	return fd;
}

static long export_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct gbx_bar_range range;
	struct pci_dev *pdev;
	int result;

	if (command != GBX_IOC_EXPORT_BAR)
		return -ENOTTY;
	if (copy_from_user(&range, (void __user *)argument, sizeof(range)))
		return -EFAULT;
	range.function[sizeof(range.function) - 1] = '\0';
	pdev = find_function(range.function);
	if (!pdev)
		return -ENODEV;
	result = check_range(pdev, &range);
	if (!result)
		result = export_range(pdev, &range);
	pci_dev_put(pdev);
	return result;
}

static const struct file_operations export_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = export_ioctl,
};

static struct miscdevice export_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ghostbus-bar-export",
	.fops = &export_operations,
};
module_misc_device(export_device);

MODULE_DESCRIPTION("dma-bufs of BARs, for tests of peer-to-peer DMA");
MODULE_LICENSE("Dual MIT/GPL");
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(DMA_BUF);
#else
MODULE_IMPORT_NS("DMA_BUF");
#endif
