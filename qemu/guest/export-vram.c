// SPDX-License-Identifier: MIT
// link: -ldrm_amdgpu -ldrm
/*
 * usage: export-vram GPU BYTES IMPORTER [ARGUMENT...]
 *
 * Exports VRAM of the GPU at a PCI address (drm/amdgpu: PRIME). The CPU fills and compares it through the mapped BAR, or wherever the
 * driver has moved it. The memory lives as long as a dma-buf of it.
 */
#define _GNU_SOURCE
#include "dmabuf-kit.h"
#include "amdgpu-kit.h"

static struct gpu gpu;
static struct buffer buffer;

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

int main(int argc, char **argv)
{
	struct exporter exporter = { .fill = fill, .wrong = wrong, .release = release };
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
