// SPDX-License-Identifier: MIT
// link: -ldrm_amdgpu -ldrm
/*
 * usage: export-vram GPU BYTES IMPORTER [ARGUMENT...]
 *
 * Exports VRAM of the GPU at a PCI address (drm/amdgpu: PRIME). The CPU fills and compares it through the mapped BAR, or wherever the
 * driver has moved it. The memory lives as long as a dma-buf of it. On demand other buffers take all of the VRAM for a moment, so that
 * the driver moves this one out.
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

/* A job that does nothing with the buffer but to need it. */
static void use(struct buffer *needed)
{
	struct commands commands = begin(&gpu);

	sdma_copy(&commands, needed->va, needed->va, 8);
	submit(&commands, AMDGPU_HW_IP_DMA, &needed, 1);
}

static void evict(void)
{
	for (uint64_t bytes = 0; bytes < gpu.bar0_bytes && pressures < MAX_PRESSURE; bytes += PRESSURE_BYTES) {
		pressure[pressures] = make_buffer(&gpu, PRESSURE_BYTES, AMDGPU_GEM_DOMAIN_VRAM);
		use(&pressure[pressures++]);
	}
	while (pressures > 0)
		free_buffer(&pressure[--pressures]);
}

int main(int argc, char **argv)
{
	struct exporter exporter = { .fill = fill, .wrong = wrong, .release = release, .evict = evict };
	uint32_t dmabuf;
	int error;

	if (argc < 4)
		fail("usage: export-vram GPU BYTES IMPORTER [ARGUMENT...]");
	if (open_gpus(&gpu, 1, argv[1]) != 1)
		fail("%s has no render node of amdgpu", argv[1]);
	exporter.bytes = parse_bytes(argv[2]);
	buffer = make_buffer(&gpu, exporter.bytes, AMDGPU_GEM_DOMAIN_VRAM);
	error = amdgpu_bo_export(buffer.handle, amdgpu_bo_handle_type_dma_buf_fd, &dmabuf);
	if (error)
		refused("export", -error);
	serve_importer(&exporter, (int)dmabuf, argv + 3);
}
