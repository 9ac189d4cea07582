// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: export-vram [--twice] [--press-gtt] GPU BYTES IMPORTER [ARGUMENT...]
 *
 * Exports VRAM of the GPU at a PCI address (drm/amdgpu: PRIME). The CPU fills and compares it through the mapped BAR,
 * or wherever the driver has moved it. The memory lives as long as a dma-buf of it. On demand the GPU uses it, or other
 * buffers take all of the VRAM for a moment, so that the driver moves this one out; with --press-gtt they take all of
 * the GTT, for a driver that has moved it there already. With --twice the dma-buf is the importer's descriptor 5, too.
 */
#define _GNU_SOURCE
#include "dmabuf-kit.h"
#include "amdgpu-kit.h"

#define PRESSURE_BYTES (16ull << 20)
#define MAX_PRESSURE 1024

static struct gpu gpu;
static struct buffer buffer;
static struct buffer pressure[MAX_PRESSURE];
static int pressures;
static uint32_t pressed_heap = AMDGPU_GEM_DOMAIN_VRAM;

static uint64_t fill(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	dmabuf_write((uint8_t *)buffer.cpu + offset, offset, bytes, pass);
	return 0;
}

static uint64_t wrong(uint64_t offset, uint64_t bytes, uint32_t pass)
{
	return dmabuf_wrong((uint8_t *)buffer.cpu + offset, offset, bytes, pass);
}

static bool release(void)
{
	free_buffer(&buffer);
	amdgpu_cs_ctx_free(gpu.context);
	amdgpu_device_deinitialize(gpu.device);
	close(gpu.fd);
	return true;
}

/* A job that does nothing with a buffer but to need it. */
static void need(struct buffer *needed)
{
	struct commands commands = begin(&gpu);

	sdma_copy(&commands, needed->va, needed->va, 8);
	submit(&commands, AMDGPU_HW_IP_DMA, &needed, 1);
}

static void use(void)
{
	need(&buffer);
}

static uint64_t heap_bytes(uint32_t heap)
{
	struct amdgpu_heap_info info;
	int error = amdgpu_query_heap_info(gpu.device, heap, 0, &info);

	if (error)
		fail("%s: cannot ask for the size of a heap: %s", gpu.address, strerror(-error));
	return info.heap_size;
}

static void evict(void)
{
	uint64_t all = heap_bytes(pressed_heap);

	for (uint64_t bytes = 0; bytes < all && pressures < MAX_PRESSURE; bytes += PRESSURE_BYTES) {
		pressure[pressures] = make_gpu_buffer(&gpu, PRESSURE_BYTES, pressed_heap, 0);
		need(&pressure[pressures++]);
	}
	while (pressures > 0)
		free_buffer(&pressure[--pressures]);
}

int main(int argc, char **argv)
{
	struct exporter exporter = { .fill = fill, .wrong = wrong, .release = release, .evict = evict, .use = use };
	bool twice = take_option(&argc, &argv, "--twice");
	uint32_t dmabuf;
	int error;

	if (take_option(&argc, &argv, "--press-gtt"))
		pressed_heap = AMDGPU_GEM_DOMAIN_GTT;
	if (argc < 4)
		fail("usage: export-vram [--twice] [--press-gtt] GPU BYTES IMPORTER [ARGUMENT...]");
	if (open_gpus(&gpu, 1, argv[1]) != 1)
		fail("%s has no render node of amdgpu", argv[1]);
	exporter.bytes = parse_bytes(argv[2]);
	buffer = make_buffer(&gpu, exporter.bytes, AMDGPU_GEM_DOMAIN_VRAM);
	error = amdgpu_bo_export(buffer.handle, amdgpu_bo_handle_type_dma_buf_fd, &dmabuf);
	if (error)
		refused("export", -error);
	serve_importer_of_two(&exporter, (int)dmabuf, twice ? dup((int)dmabuf) : NO_SECOND_DMABUF, argv + 3);
}
