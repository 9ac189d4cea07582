// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm
/*
 * usage: amdgpu-fault CASE…
 *
 * Makes one GPU fail with the stock driver and checks what user space gets to see; the kernel's
 * log tells the rest. Cases:
 *
 *   sdma-page        SDMA reads and writes addresses that nothing is mapped at; the job ends, its other work is done
 *   compute-page     a compute job writes such an address
 *   read-only        SDMA writes a page that is mapped for reading: it keeps its contents
 *   sdma-hang        an SDMA job waits for what never comes, until the driver gives it up
 *   compute-hang     a compute job does
 *   compute-opcode   a compute job has a packet that does not exist
 *
 * Prints KTAP; exits with 0 when every case passed. After a hang the VM of this process may be lost with the
 * VRAM: another process must find the GPU working.
 */
#include "amdgpu-kit.h"

#define PAGE 4096u
/* PM4 headers (kernel: amdgpu/soc15d.h): type 3, count of dwords after the first payload dword, opcode. */
#define PM4(opcode, count) (3u << 30 | (uint32_t)(count) << 16 | (uint32_t)(opcode) << 8)
#define PM4_WRITE_DATA 0x37
#define PM4_WAIT_REG_MEM 0x3c
#define PM4_UNKNOWN 0xfe
#define PM4_FILLER 0xffff1000u
#define SDMA_POLL_MEMORY (8u | 3u << 28 | 1u << 31)
#define FILL 0x600dcafeu
#define MARK 0x0badf00du

static int cases, failures;

static void report(bool passed, const char *what)
{
	printf("%s %d %s\n", passed ? "ok" : "not ok", ++cases, what);
	failures += !passed;
}

static bool filled_with(const struct buffer *buffer, uint32_t value)
{
	const volatile uint32_t *dwords = buffer->cpu;

	for (uint64_t i = 0; i < buffer->bytes / 4; i++)
		if (dwords[i] != value)
			return false;
	return true;
}

/* An address in the GPU's VM at which nothing is: allocated, never mapped. */
static uint64_t unmapped_address(struct gpu *gpu)
{
	amdgpu_va_handle handle;
	uint64_t va;

	if (amdgpu_va_range_alloc(gpu->device, amdgpu_gpu_va_range_general, 1 << 20, PAGE, 0, &va, &handle, 0))
		fail("no addresses left");
	return va;
}

static void sdma_page(struct gpu *gpu)
{
	struct buffer target = make_buffer(gpu, PAGE, AMDGPU_GEM_DOMAIN_VRAM);
	struct buffer after = make_buffer(gpu, PAGE, AMDGPU_GEM_DOMAIN_VRAM);
	uint64_t nowhere = unmapped_address(gpu);
	struct commands commands = begin(gpu);

	printf("# nothing is mapped at 0x%016" PRIx64 "\n", nowhere);
	sdma_fill(&commands, target.va, FILL, PAGE);
	sdma_copy(&commands, target.va, nowhere, PAGE);
	sdma_fill(&commands, nowhere + PAGE, FILL, PAGE);
	sdma_fill(&commands, after.va, FILL, PAGE);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ &target, &after }, 2);
	report(filled_with(&after, FILL), "SDMA goes on behind a page fault");
	free_buffer(&after);
	free_buffer(&target);
}

static void pad(struct commands *commands)
{
	while (commands->count % 8)
		emit(commands, PM4_FILLER);
}

static void write_data(struct commands *commands, uint64_t to, uint32_t value)
{
	emit(commands, PM4(PM4_WRITE_DATA, 3));
	emit(commands, 5u << 8);
	emit_address(commands, to);
	emit(commands, value);
}

static void compute_page(struct gpu *gpu)
{
	struct buffer after = make_buffer(gpu, PAGE, AMDGPU_GEM_DOMAIN_VRAM);
	uint64_t nowhere = unmapped_address(gpu);
	struct commands commands = begin(gpu);

	printf("# nothing is mapped at 0x%016" PRIx64 "\n", nowhere);
	write_data(&commands, nowhere, FILL);
	write_data(&commands, after.va, FILL);
	pad(&commands);
	submit(&commands, AMDGPU_HW_IP_COMPUTE, (struct buffer *[]){ &after }, 1);
	report(*(volatile uint32_t *)after.cpu == FILL, "compute goes on behind a page fault");
	free_buffer(&after);
}

static void read_only(struct gpu *gpu)
{
	struct buffer buffer = make_buffer(gpu, PAGE, AMDGPU_GEM_DOMAIN_VRAM);
	struct commands commands = begin(gpu);
	int error;

	write_pattern(buffer.cpu, PAGE, 1, 1);
	error = amdgpu_bo_va_op(buffer.handle, 0, PAGE, buffer.va, 0, AMDGPU_VA_OP_UNMAP);
	if (!error)
		error = amdgpu_bo_va_op_raw(gpu->device, buffer.handle, 0, PAGE, buffer.va, AMDGPU_VM_PAGE_READABLE,
					    AMDGPU_VA_OP_MAP);
	if (error)
		fail("mapping for reading: %s", strerror(-error));
	printf("# read only at 0x%016" PRIx64 "\n", buffer.va);
	sdma_fill(&commands, buffer.va, FILL, PAGE);
	submit(&commands, AMDGPU_HW_IP_DMA, (struct buffer *[]){ &buffer }, 1);
	report(wrong_bytes(buffer.cpu, PAGE, 1, 1, &(uint64_t){ 0 }) == 0, "a page for reading keeps its contents");
	free_buffer(&buffer);
}

/* Submits without waiting; the fence. */
static struct amdgpu_cs_fence start(struct commands *commands, uint32_t engine)
{
	struct gpu *gpu = commands->ib.gpu;
	struct amdgpu_cs_ib_info ib = { .ib_mc_address = commands->ib.va, .size = commands->count };
	struct amdgpu_cs_request request = { .ip_type = engine, .number_of_ibs = 1, .ibs = &ib };
	struct amdgpu_cs_fence fence = { .context = gpu->context, .ip_type = engine };
	int error = amdgpu_bo_list_create(gpu->device, 1, &commands->ib.handle, NULL, &request.resources);

	if (!error)
		error = amdgpu_cs_submit(gpu->context, 0, &request, 1);
	if (error)
		fail("%s: submitting: %s", gpu->address, strerror(-error));
	amdgpu_bo_list_destroy(request.resources);
	fence.fence = request.seq_no;
	return fence;
}

/* A job that cannot end: the driver must end it, and tell its context. */
static void expect_given_up(struct gpu *gpu, struct commands *commands, uint32_t engine, const char *what)
{
	struct amdgpu_cs_fence fence = start(commands, engine);
	uint32_t expired = 0;
	uint64_t flags = 0;
	int error;

	/* The driver gives compute jobs of 6.12 a minute. */
	error = amdgpu_cs_query_fence_status(&fence, 4 * FENCE_TIMEOUT_NS, 0, &expired);
	amdgpu_cs_query_reset_state2(gpu->context, &flags);
	printf("# fence %s, %s; reset state 0x%" PRIx64 "\n", expired ? "signaled" : "not signaled",
	       error ? strerror(-error) : "no error", flags);
	report(error || expired, what);
	report(flags & AMDGPU_CTX_QUERY2_FLAGS_RESET, "the context is told of a reset");
}

static void sdma_hang(struct gpu *gpu)
{
	struct commands commands = begin(gpu);
	uint64_t flag = commands.ib.va + IB_BYTES / 2;

	commands.dwords[IB_BYTES / 8] = MARK;
	emit(&commands, SDMA_POLL_MEMORY);
	emit_address(&commands, flag);
	emit(&commands, ~MARK);
	emit(&commands, 0xffffffff);
	emit(&commands, 0xfffu << 16 | 10);
	expect_given_up(gpu, &commands, AMDGPU_HW_IP_DMA, "the driver gives up an SDMA job that waits for ever");
}

static void compute_hang(struct gpu *gpu)
{
	struct commands commands = begin(gpu);
	uint64_t flag = commands.ib.va + IB_BYTES / 2;

	commands.dwords[IB_BYTES / 8] = MARK;
	emit(&commands, PM4(PM4_WAIT_REG_MEM, 5));
	emit(&commands, 1u << 4 | 3);
	emit_address(&commands, flag);
	emit(&commands, ~MARK);
	emit(&commands, 0xffffffff);
	emit(&commands, 10);
	pad(&commands);
	expect_given_up(gpu, &commands, AMDGPU_HW_IP_COMPUTE, "the driver gives up a compute job that waits for ever");
}

static void compute_opcode(struct gpu *gpu)
{
	struct commands commands = begin(gpu);

	emit(&commands, PM4(PM4_UNKNOWN, 0));
	emit(&commands, 0);
	pad(&commands);
	expect_given_up(gpu, &commands, AMDGPU_HW_IP_COMPUTE, "the driver gives up a compute job with an unknown packet");
}

static const struct {
	const char *name;
	void (*run)(struct gpu *gpu);
} table[] = {
	{ "sdma-page", sdma_page },	   { "compute-page", compute_page }, { "read-only", read_only },
	{ "sdma-hang", sdma_hang },	   { "compute-hang", compute_hang }, { "compute-opcode", compute_opcode },
};

int main(int argc, char **argv)
{
	struct gpu gpu;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (open_gpus(&gpu, 1, NULL) != 1)
		fail("no AMD function with a render node; is amdgpu loaded?");
	printf("KTAP version 1\n");
	for (int i = 1; i < argc; i++) {
		size_t which = 0;

		while (which < sizeof(table) / sizeof(table[0]) && strcmp(argv[i], table[which].name) != 0)
			which++;
		if (which == sizeof(table) / sizeof(table[0]))
			fail("there is no case \"%s\"", argv[i]);
		printf("# %s\n", argv[i]);
		table[which].run(&gpu);
	}
	printf("1..%d\n# %d of %d cases failed\n", cases, failures, cases);
	return cases == 0 || failures > 0;
}
