// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Driver of the shelf: memory behind a BAR that programs map, and that other devices reach as a dma-buf, peer to
 * peer or not at all.
 *
 * A function stays bound as long as the module is loaded, and the module as long as a file or a dma-buf is open.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "shelf.h"

#define SHELF_REGISTERS_BAR 0
#define SHELF_MEMORY_BAR 2
#define SHELF_REG_ID 0x0
#define SHELF_REG_LABEL 0x4
#define SHELF_ID_VALUE 0x53484c46

struct shelf {
	struct pci_dev *pdev;
	struct miscdevice misc;
	void __iomem *registers;
};

struct shelf_part {
	struct pci_dev *pdev;
	size_t bytes;
};

static int part_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attachment)
{
	struct shelf_part *part = dmabuf->priv;

	if (pci_p2pdma_distance(part->pdev, attachment->dev, true) < 0)
		attachment->peer2peer = false;
	return 0;
}

static struct sg_table *part_map(struct dma_buf_attachment *attachment, enum dma_data_direction direction)
{
	struct shelf_part *part = attachment->dmabuf->priv;
	phys_addr_t start = pci_resource_start(part->pdev, SHELF_MEMORY_BAR);
	struct sg_table *table;
	dma_addr_t address;
	int error;

	if (!attachment->peer2peer)
		return ERR_PTR(-EPERM);
	table = kzalloc(sizeof(*table), GFP_KERNEL);
	if (!table)
		return ERR_PTR(-ENOMEM);
	error = sg_alloc_table(table, 1, GFP_KERNEL);
	if (error)
		goto free_table;
	address = dma_map_resource(attachment->dev, start, part->bytes, direction, 0);
	error = dma_mapping_error(attachment->dev, address);
	if (error)
		goto free_entries;
	/* No page stands for it. */
	sg_set_page(table->sgl, NULL, part->bytes, 0);
	sg_dma_address(table->sgl) = address;
	sg_dma_len(table->sgl) = part->bytes;
	return table;

free_entries:
	sg_free_table(table);
free_table:
	kfree(table);
	return ERR_PTR(error);
}

static void part_unmap(struct dma_buf_attachment *attachment, struct sg_table *table, enum dma_data_direction direction)
{
	dma_unmap_resource(attachment->dev, sg_dma_address(table->sgl), sg_dma_len(table->sgl), direction, 0);
	sg_free_table(table);
	kfree(table);
}

static void part_release(struct dma_buf *dmabuf)
{
	struct shelf_part *part = dmabuf->priv;

	pci_dev_put(part->pdev);
	kfree(part);
}

static const struct dma_buf_ops part_ops = {
	.attach = part_attach,
	.map_dma_buf = part_map,
	.unmap_dma_buf = part_unmap,
	.release = part_release,
};

static long shelf_export(struct shelf *shelf, u64 bytes)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct shelf_part *part;
	struct dma_buf *dmabuf;
	int fd;

	if (!bytes || !PAGE_ALIGNED(bytes) || bytes > pci_resource_len(shelf->pdev, SHELF_MEMORY_BAR))
		return -EINVAL;
	part = kzalloc(sizeof(*part), GFP_KERNEL);
	if (!part)
		return -ENOMEM;
	part->pdev = pci_dev_get(shelf->pdev);
	part->bytes = bytes;
	info.ops = &part_ops;
	info.size = bytes;
	info.flags = O_RDWR;
	info.priv = part;
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		pci_dev_put(part->pdev);
		kfree(part);
		return PTR_ERR(dmabuf);
	}
	fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (fd < 0)
		dma_buf_put(dmabuf);
	return fd;
}

static struct shelf *shelf_of(struct file *file)
{
	/* misc_open() left it there. */
	return container_of(file->private_data, struct shelf, misc);
}

static long shelf_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct shelf *shelf = shelf_of(file);
	u32 label;
	u64 bytes;

	switch (command) {
	case SHELF_IOC_LABEL:
		label = readl(shelf->registers + SHELF_REG_LABEL);
		return copy_to_user((void __user *)argument, &label, sizeof(label)) ? -EFAULT : 0;
	case SHELF_IOC_EXPORT:
		if (copy_from_user(&bytes, (void __user *)argument, sizeof(bytes)))
			return -EFAULT;
		return shelf_export(shelf, bytes);
	default:
		return -ENOTTY;
	}
}

static int shelf_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct pci_dev *pdev = shelf_of(file)->pdev;

	vma->vm_page_prot = pgprot_writecombine(vma->vm_page_prot);
	return vm_iomap_memory(vma, pci_resource_start(pdev, SHELF_MEMORY_BAR), pci_resource_len(pdev, SHELF_MEMORY_BAR));
}

static const struct file_operations shelf_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = shelf_ioctl,
	.mmap = shelf_mmap,
};

static int shelf_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct shelf *shelf = devm_kzalloc(&pdev->dev, sizeof(*shelf), GFP_KERNEL);
	int error;

	if (!shelf)
		return -ENOMEM;
	shelf->pdev = pdev;
	error = pcim_enable_device(pdev);
	if (error)
		return error;
	shelf->registers = pcim_iomap(pdev, SHELF_REGISTERS_BAR, 0);
	if (!shelf->registers)
		return -ENOMEM;
	if (readl(shelf->registers + SHELF_REG_ID) != SHELF_ID_VALUE)
		return dev_err_probe(&pdev->dev, -ENODEV, "this is no shelf\n");
	shelf->misc.minor = MISC_DYNAMIC_MINOR;
	shelf->misc.fops = &shelf_operations;
	shelf->misc.parent = &pdev->dev;
	shelf->misc.name = devm_kasprintf(&pdev->dev, GFP_KERNEL, "shelf-%s", pci_name(pdev));
	if (!shelf->misc.name)
		return -ENOMEM;
	pci_set_drvdata(pdev, shelf);
	error = misc_register(&shelf->misc);
	if (!error)
		dev_info(&pdev->dev, "/dev/%s has %llu bytes\n", shelf->misc.name,
			 (u64)pci_resource_len(pdev, SHELF_MEMORY_BAR));
	return error;
}

static void shelf_remove(struct pci_dev *pdev)
{
	struct shelf *shelf = pci_get_drvdata(pdev);

	misc_deregister(&shelf->misc);
}

static const struct pci_device_id shelf_ids[] = {
	{ PCI_DEVICE(0x1234, 0x6763) },
	{ }
};
MODULE_DEVICE_TABLE(pci, shelf_ids);

static struct pci_driver shelf_driver = {
	.name = "shelf",
	.id_table = shelf_ids,
	.probe = shelf_probe,
	.remove = shelf_remove,
	.driver.suppress_bind_attrs = true,
};
module_pci_driver(shelf_driver);

MODULE_DESCRIPTION("Memory that its driver shares with other devices");
MODULE_LICENSE("Dual MIT/GPL");
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(DMA_BUF);
#else
MODULE_IMPORT_NS("DMA_BUF");
#endif
