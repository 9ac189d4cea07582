// SPDX-License-Identifier: MIT
/*
 * usage: export-hbm [--twice] CARD BYTES IMPORTER [ARGUMENT...]
 *
 * Exports HBM of a Gaudi (accelCARD). The CPU cannot reach it: the card's own DMA fills it from, and copies it
 * back to, mapped host memory. The driver keeps card and context while a dma-buf is open
 * (habanalabs/common/memory.c hl_release_dmabuf).
 */
#define _GNU_SOURCE
#include "dmabuf-kit.h"
#include "hl-kit.h"

/* Above what the driver keeps for itself at the start of the user's part. */
static const uint64_t hbm = DRAM_USER_BASE + 16 * MIB;
static struct host_memory area;
static int card;

static uint64_t fill(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	dmabuf_write(area.cpu + offset, offset, bytes, pass);
	copy(card, GAUDI_QUEUE_ID_DMA_0_0, hbm + offset, area.va + offset, bytes);
	return 0;
}

static uint64_t wrong(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	memset(area.cpu + offset, 0, bytes);
	copy(card, GAUDI_QUEUE_ID_DMA_1_0, area.va + offset, hbm + offset, bytes);
	return dmabuf_wrong(area.cpu + offset, offset, bytes, pass);
}

static bool release(void)
{
	unmap_host(card, &area);
	close(card);
	return true;
}

static int export_memory(uint64_t bytes)
{
	union hl_mem_args args = { 0 };

	args.in.export_dmabuf_fd.addr = hbm;
	args.in.export_dmabuf_fd.mem_size = bytes;
	args.in.op = HL_MEM_OP_EXPORT_DMABUF_FD;
	args.in.flags = O_RDWR | O_CLOEXEC;
	if (ioctl(card, DRM_IOCTL_HL_MEMORY, &args))
		refused("export", errno);
	return args.out.fd;
}

int main(int argc, char **argv)
{
	struct exporter exporter = { .fill = fill, .wrong = wrong, .release = release };
	bool twice = take_option(&argc, &argv, "--twice");
	int dmabuf;

	if (argc < 4)
		fail("usage: export-hbm [--twice] CARD BYTES IMPORTER [ARGUMENT...]");
	exporter.bytes = strtoull(argv[2], NULL, 0);
	card = open_card(atoi(argv[1]));
	area = map_host(card, exporter.bytes);
	dmabuf = export_memory(exporter.bytes);
	serve_importer_of_two(&exporter, dmabuf, twice ? export_memory(exporter.bytes) : NO_SECOND_DMABUF, argv + 3);
}
