// SPDX-License-Identifier: MIT
// link: -I/usr/include/libdrm -ldrm_amdgpu -ldrm -I.
/*
 * usage: amdgpu-user-queue [--gpu ADDRESS] [--] [COMMAND…]
 *
 * Makes an SDMA queue of user space with the stock driver (/dev/kfd), writes packets to it that fill VRAM and then a
 * fence, and has the doorbell rung by somebody else: runs `COMMAND… BUS-ADDRESS VALUE 8`, for example
 *
 *   amdgpu-user-queue example-copy poke /dev/ghostbus-example0
 *
 * in which another function's DMA writes the value to the doorbell's bus address. Without COMMAND the CPU rings the
 * doorbell through its mapping. Prints JSON lines; exits with 0 when the ring ran, and only after the doorbell.
 */
#include "amdgpu-kit.h"

#include <linux/kfd_ioctl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define RING_BYTES 65536u
#define TARGET_BYTES (1u << 20)
#define FILL_VALUE 0x600dcafeu
#define FENCE_VALUE 0x1234abcdu
/* Two pages per process (kernel: amdkfd/kfd_doorbell.c kfd_doorbell_process_slice with 8-byte doorbells). */
#define DOORBELLS_BYTES 8192u
#define SDMA_FENCE 5u
/* PM4 header of MAP_QUEUES with six dwords after it. */
#define PM4_MAP_QUEUES (3u << 30 | 5u << 16 | 0xa2u << 8)

struct memory {
	uint64_t handle;
	uint64_t bytes;
	volatile uint32_t *cpu; /* the GPU uses the same address */
};

static int kfd;

static void request(unsigned long code, void *arguments, const char *what)
{
	if (ioctl(kfd, code, arguments) != 0)
		fail("/dev/kfd: %s: %s", what, strerror(errno));
}

static uint64_t topology_value(unsigned int node, const char *file, const char *key)
{
	char path[96], name[64];
	unsigned long long value;
	FILE *stream;

	snprintf(path, sizeof(path), "/sys/class/kfd/kfd/topology/nodes/%u/%s", node, file);
	stream = fopen(path, "r");
	if (!stream)
		fail("no node in /sys/class/kfd for this GPU");
	if (!key) {
		if (fscanf(stream, "%llu", &value) != 1)
			value = 0;
		fclose(stream);
		return value;
	}
	while (fscanf(stream, "%63s %llu", name, &value) == 2)
		if (strcmp(name, key) == 0) {
			fclose(stream);
			return value;
		}
	fail("%s has no %s", path, key);
}

/* The compute driver's number of a GPU: the node whose location is the PCI address. */
static uint32_t gpu_id_of(const struct gpu *gpu)
{
	unsigned int domain, bus, device, function;

	if (sscanf(gpu->address, "%x:%x:%x.%x", &domain, &bus, &device, &function) != 4)
		fail("%s is not a PCI address", gpu->address);
	for (unsigned int node = 0;; node++) {
		uint64_t id = topology_value(node, "gpu_id", NULL);

		if (id && topology_value(node, "properties", "location_id") == (bus << 8 | device << 3 | function))
			return (uint32_t)id;
	}
}

/* Memory at the same address for CPU and GPU. */
static struct memory allocate(const struct gpu *gpu, uint32_t gpu_id, uint64_t bytes, uint32_t kind)
{
	void *place = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kfd_ioctl_alloc_memory_of_gpu_args allocation = {
		.va_addr = (uintptr_t)place,
		.size = bytes,
		.gpu_id = gpu_id,
		.flags = kind | KFD_IOC_ALLOC_MEM_FLAGS_WRITABLE | KFD_IOC_ALLOC_MEM_FLAGS_PUBLIC |
			 KFD_IOC_ALLOC_MEM_FLAGS_COHERENT,
	};
	struct kfd_ioctl_map_memory_to_gpu_args mapping = {
		.device_ids_array_ptr = (uintptr_t)&gpu_id,
		.n_devices = 1,
	};
	struct memory memory = { .bytes = bytes };

	if (place == MAP_FAILED)
		fail("reserving %" PRIu64 " bytes of address space: %s", bytes, strerror(errno));
	request(AMDKFD_IOC_ALLOC_MEMORY_OF_GPU, &allocation, "allocating memory");
	place = mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, gpu->fd, (off_t)allocation.mmap_offset);
	if (place == MAP_FAILED)
		fail("mapping %" PRIu64 " bytes: %s", bytes, strerror(errno));
	mapping.handle = memory.handle = allocation.handle;
	request(AMDKFD_IOC_MAP_MEMORY_TO_GPU, &mapping, "mapping memory to the GPU");
	memory.cpu = place;
	return memory;
}

/*
 * The doorbell's byte offset in BAR2, as the driver told the GPU: from the run list that it shows in debugfs, the
 * doorbell of the only MAP_QUEUES there (dword 2, bits 27:2, in dwords).
 */
static uint64_t doorbell_in_bar(uint32_t gpu_id)
{
	FILE *file = fopen("/sys/kernel/debug/kfd/rls", "r");
	bool ours = false;
	uint32_t history[3] = { 0 };
	char line[512];

	if (!file)
		fail("/sys/kernel/debug/kfd/rls: %s (mount debugfs)", strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		unsigned int node, id;
		char *words = strchr(line, ':');

		if (sscanf(line, "Node %u, gpu_id %x", &node, &id) == 2) {
			ours = id == gpu_id;
			continue;
		}
		for (char *word = words && ours ? strtok(words + 1, " \n") : NULL; word; word = strtok(NULL, " \n")) {
			history[0] = history[1];
			history[1] = history[2];
			history[2] = (uint32_t)strtoul(word, NULL, 16);
			if (history[0] == PM4_MAP_QUEUES) {
				fclose(file);
				return history[2] & 0x0ffffffc;
			}
		}
	}
	fail("the driver's run list has no queue");
}

static uint64_t read_bar2(const struct gpu *gpu)
{
	struct gpu copy = *gpu;

	read_bar(&copy, 2);
	return copy.bar0;
}

/*
 * Packets that fill the target and then write the fence; returns the write pointer in bytes. The write pointer in
 * memory stays zero, so that nothing but the doorbell can start the queue.
 */
static uint64_t write_packets(const struct memory *ring, const struct memory *target, volatile uint32_t *fence)
{
	const uint32_t packets[] = {
		SDMA_CONST_FILL_DWORDS, (uint32_t)(uintptr_t)target->cpu, (uint32_t)((uintptr_t)target->cpu >> 32),
		FILL_VALUE, TARGET_BYTES - 1,
		SDMA_FENCE, (uint32_t)(uintptr_t)fence, (uint32_t)((uintptr_t)fence >> 32), FENCE_VALUE,
	};

	for (size_t i = 0; i < sizeof(packets) / 4; i++)
		ring->cpu[i] = packets[i];
	return sizeof(packets);
}

/* What the process that rings is told. */
struct doorbell {
	uint64_t address;
	uint64_t value;
};

struct ringer {
	pid_t pid;
	int pipe;
};

static _Noreturn void ring_when_told(int pipe, char **command)
{
	char *arguments[16] = { NULL };
	char texts[2][32];
	struct doorbell doorbell;
	int count = 0;

	if (read(pipe, &doorbell, sizeof(doorbell)) != sizeof(doorbell))
		_exit(1);
	for (; command[count] && count < 12; count++)
		arguments[count] = command[count];
	snprintf(texts[0], sizeof(texts[0]), "0x%" PRIx64, doorbell.address);
	snprintf(texts[1], sizeof(texts[1]), "0x%" PRIx64, doorbell.value);
	arguments[count] = texts[0];
	arguments[count + 1] = texts[1];
	arguments[count + 2] = (char[]){ "8" };
	execvp(arguments[0], arguments);
	_exit(127);
}

/*
 * Starts the process that will run COMMAND… ADDRESS VALUE 8. Before anything of the GPU is open: were it forked later,
 * the render node that it closes would make kernel 6.12 preempt the queue (amdgpu_flush waits for the VM, which evicts
 * the process), and a preempted queue misses its doorbell.
 */
static struct ringer start_ringer(char **command)
{
	struct ringer ringer;
	int ends[2];

	signal(SIGPIPE, SIG_IGN);
	if (pipe(ends) != 0)
		fail("pipe: %s", strerror(errno));
	ringer.pid = fork();
	if (ringer.pid < 0)
		fail("fork: %s", strerror(errno));
	if (ringer.pid == 0) {
		close(ends[1]);
		ring_when_told(ends[0], command);
	}
	close(ends[0]);
	ringer.pipe = ends[1];
	return ringer;
}

static void tell(const struct ringer *ringer, const char *name, uint64_t address, uint64_t value)
{
	struct doorbell doorbell = { address, value };
	int status;

	if (write(ringer->pipe, &doorbell, sizeof(doorbell)) != sizeof(doorbell))
		fail("%s has ended: %s", name, strerror(errno));
	if (waitpid(ringer->pid, &status, 0) < 0 || status != 0)
		fail("%s 0x%" PRIx64 " 0x%" PRIx64 " 8 failed", name, address, value);
}

static bool wait_for(volatile uint32_t *fence, unsigned int milliseconds)
{
	for (unsigned int i = 0; i < milliseconds && *fence != FENCE_VALUE; i++)
		usleep(1000);
	return *fence == FENCE_VALUE;
}

int main(int argc, char **argv)
{
	const char *address = NULL;
	char **command = argv + 1;
	struct ringer ringer = { 0 };
	struct gpu gpu;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && strcmp(argv[1], "--gpu") == 0) {
		address = argv[2];
		command += 2;
	}
	if (*command && strcmp(*command, "--") == 0)
		command++;
	if (*command)
		ringer = start_ringer(command);
	/* libdrm would take the VM for itself: only the addresses are wanted from it. */
	if (open_gpus(&gpu, 1, address) != 1)
		fail("no AMD function with a render node; is amdgpu loaded?");
	amdgpu_cs_ctx_free(gpu.context);
	amdgpu_device_deinitialize(gpu.device);
	kfd = open("/dev/kfd", O_RDWR | O_CLOEXEC);
	if (kfd < 0)
		fail("/dev/kfd: %s", strerror(errno));
	uint32_t gpu_id = gpu_id_of(&gpu);
	struct kfd_ioctl_acquire_vm_args vm = { .drm_fd = (uint32_t)gpu.fd, .gpu_id = gpu_id };

	request(AMDKFD_IOC_ACQUIRE_VM, &vm, "acquiring the render node's VM");
	struct memory ring = allocate(&gpu, gpu_id, RING_BYTES, KFD_IOC_ALLOC_MEM_FLAGS_GTT);
	struct memory pointers = allocate(&gpu, gpu_id, 4096, KFD_IOC_ALLOC_MEM_FLAGS_GTT);
	struct memory results = allocate(&gpu, gpu_id, 4096, KFD_IOC_ALLOC_MEM_FLAGS_GTT);
	struct memory target = allocate(&gpu, gpu_id, TARGET_BYTES, KFD_IOC_ALLOC_MEM_FLAGS_VRAM);
	struct kfd_ioctl_create_queue_args queue = {
		.ring_base_address = (uintptr_t)ring.cpu,
		.ring_size = RING_BYTES,
		.read_pointer_address = (uintptr_t)pointers.cpu,
		.write_pointer_address = (uintptr_t)&pointers.cpu[2],
		.gpu_id = gpu_id,
		.queue_type = KFD_IOC_QUEUE_TYPE_SDMA,
		.queue_percentage = 100,
		.queue_priority = 7,
	};

	pointers.cpu[0] = pointers.cpu[1] = pointers.cpu[2] = pointers.cpu[3] = results.cpu[0] = 0;
	for (uint32_t i = 0; i < TARGET_BYTES / 4; i++)
		target.cpu[i] = 0;
	request(AMDKFD_IOC_CREATE_QUEUE, &queue, "creating an SDMA queue");
	uint64_t write_pointer = write_packets(&ring, &target, results.cpu);
	uint64_t bus_address = read_bar2(&gpu) + doorbell_in_bar(gpu_id);

	printf("{\"queue\":%u,\"gpu\":\"%s\",\"doorbell\":\"0x%" PRIx64 "\",\"value\":%" PRIu64 "}\n", queue.queue_id,
	       gpu.address, bus_address, write_pointer);
	if (wait_for(results.cpu, 200))
		fail("the queue ran before its doorbell was rung");
	if (*command) {
		tell(&ringer, *command, bus_address, write_pointer);
	} else {
		uint64_t in_page = queue.doorbell_offset & (DOORBELLS_BYTES - 1);
		void *page = mmap(NULL, DOORBELLS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, kfd,
				  (off_t)(queue.doorbell_offset - in_page));

		if (page == MAP_FAILED)
			fail("mapping the doorbells: %s", strerror(errno));
		*(volatile uint64_t *)((char *)page + in_page) = write_pointer;
	}
	if (!wait_for(results.cpu, 5000))
		fail("the queue has not run 5 s after its doorbell was rung by %s", *command ? *command : "the CPU");
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < TARGET_BYTES / 4; i++)
		wrong += target.cpu[i] != FILL_VALUE;
	printf("{\"rung\":\"%s\",\"fence\":\"0x%x\",\"filled\":%u,\"wrong\":%u,\"readPointer\":%u}\n",
	       *command ? *command : "CPU", results.cpu[0], TARGET_BYTES, wrong * 4, pointers.cpu[0]);
	if (wrong)
		fail("%u dwords are wrong", wrong);
	struct kfd_ioctl_destroy_queue_args destroy = { .queue_id = queue.queue_id };

	request(AMDKFD_IOC_DESTROY_QUEUE, &destroy, "destroying the queue");
	printf("{\"result\":\"ok\"}\n");
	return 0;
}
