// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: export-... import-gpu GPU EXPORT_BYTES OFFSET BYTES ORDER
 *
 * Imports the dma-buf of the exporter that started this program (dmabuf-kit.h) into the GPU at a PCI address: its SDMA
 * copies the part [OFFSET, OFFSET + BYTES) to VRAM of its own and back. ORDER says what is taken down first; as `ring`,
 * all that happens is that SDMA rings the doorbell that the export is. Prints one JSON object a line.
 */
#define _GNU_SOURCE
#include "dmabuf-kit.h"
#include "amdgpu-kit.h"

/* The driver maps an import when a job first uses it: that is where an exporter can still refuse. */
static void copy(struct buffer *to, uint64_t to_offset, struct buffer *from, uint64_t from_offset, uint64_t bytes)
{
	struct commands commands = begin(to->gpu);
	int error;

	sdma_copy(&commands, to->va + to_offset, from->va + from_offset, bytes);
	error = try_submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ to, from }, 2);
	if (error)
		refused("job", -error);
}

static void read_import(struct buffer *own, struct buffer *imported, const struct task *task, uint32_t pass)
{
	dmabuf_write(own->cpu, 0, task->bytes, 99);
	copy(own, 0, imported, task->offset, task->bytes);
	step_done("read", task->bytes, dmabuf_wrong(own->cpu, task->offset, task->bytes, pass));
}

static void write_import(struct buffer *own, struct buffer *imported, const struct task *task, uint32_t pass, uint32_t outside)
{
	dmabuf_write(own->cpu, task->offset, task->bytes, pass);
	copy(imported, task->offset, own, 0, task->bytes);
	step_done("write", task->bytes, exporter_compares(pass, task->offset, task->offset + task->bytes, outside));
}

static void ring(struct buffer *own, struct buffer *imported, const struct task *task)
{
	*(uint64_t *)own->cpu = exporter_fills(0);
	copy(imported, task->offset, own, 0, task->bytes);
	step_done("ring", task->bytes, exporter_compares(0, 0, task->bytes, 0));
}

static void use_import(struct buffer *own, struct buffer *imported, const struct task *task)
{
	if (task->teardown == RING)
		return ring(own, imported, task);
	exporter_fills(1);
	if (task->teardown == FD_FIRST)
		close_dmabuf();
	read_import(own, imported, task, 1);
	write_import(own, imported, task, 2, 1);
	if (task->teardown == EXPORTER_FIRST && exporter_releases())
		read_import(own, imported, task, 2);
}

int main(int argc, char **argv)
{
	struct buffer imported, own;
	struct task task;
	struct gpu gpu;
	int error;

	if (argc != 6)
		fail("usage: export-... import-gpu GPU EXPORT_BYTES OFFSET BYTES ORDER");
	task = parse_task(argv + 3);
	if (open_gpus(&gpu, 1, argv[1]) != 1)
		fail("%s has no render node of amdgpu", argv[1]);
	own = make_buffer(&gpu, (task.bytes + 4095) & ~4095ull, AMDGPU_GEM_DOMAIN_VRAM);
	error = try_import(&imported, &gpu, DMABUF_FD, parse_bytes(argv[2]));
	if (error)
		refused("import", -error);
	use_import(&own, &imported, &task);
	free_buffer(&imported);
	free_buffer(&own);
	finished();
	return 0;
}
