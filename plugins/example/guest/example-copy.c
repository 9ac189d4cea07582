// SPDX-License-Identifier: MIT
/*
 * Exercises /dev/ghostbus-exampleN and compares every byte. Prints KTAP; the exit status is 0 when every case passed.
 *
 *   example-copy [DEVICE [PEER]]                  test; with PEER (another engine) also peer-to-peer
 *   example-copy poke DEVICE ADDRESS VALUE BYTES  let the engine write VALUE to a raw bus address: a peer's doorbell
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/ghostbus_example.h"

#define KIB 1024u
#define MIB (1024u * 1024u)
/* Above anything a guest has; below 2^53. */
#define NOBODYS_ADDRESS 0x1fff000000000ULL

static int cases, failures;

static void report(bool passed, const char *format, ...)
{
	va_list arguments;

	printf("%s %d ", passed ? "ok" : "not ok", ++cases);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
	failures += !passed;
}

static void fill(unsigned char *bytes, size_t length, unsigned int seed)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (unsigned char)((i * 2654435761u + seed * 40503u) >> 13);
}

/* Number of bytes that differ. */
static size_t differences(const unsigned char *one, const unsigned char *other, size_t length)
{
	size_t count = 0;

	for (size_t i = 0; i < length; i++)
		count += one[i] != other[i];
	return count;
}

static unsigned char *allocate(size_t length)
{
	unsigned char *bytes = calloc(1, length);

	if (!bytes) {
		perror("calloc");
		exit(2);
	}
	return bytes;
}

/* 0 or -errno; the whole result in *copy. */
static int run_copy(int fd, struct gbx_copy *copy)
{
	return ioctl(fd, GBX_IOC_COPY, copy) ? -errno : 0;
}

static int copy_between(int fd, int from, uint64_t source, int to, uint64_t destination, uint32_t length)
{
	struct gbx_copy copy = {
		.source = source, .destination = destination, .length = length,
		.source_end = from, .destination_end = to,
	};
	int error = run_copy(fd, &copy);

	return error ?: (copy.status == GBX_DONE && copy.copied == length ? 0 : -EPROTO);
}

static uint64_t user(const void *pointer)
{
	return (uintptr_t)pointer;
}

/* Bus address of a BAR, from sysfs; 0 if unknown. With a virtual IOMMU this is not what the engine must use. */
static uint64_t bar_address(const char *device, int bar)
{
	const char *slash = strrchr(device, '/');
	char path[256], line[128];
	unsigned long long start = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/misc/%s/device/resource", slash ? slash + 1 : device);
	file = fopen(path, "r");
	if (!file)
		return 0;
	for (int i = 0; i <= bar; i++)
		if (!fgets(line, sizeof(line), file))
			line[0] = '\0';
	fclose(file);
	return sscanf(line, "%llx", &start) == 1 ? start : 0;
}

/* Completion interrupts of all engines since boot, from /proc/interrupts. */
static unsigned long interrupts(void)
{
	unsigned long total = 0;
	char line[4096];
	FILE *file = fopen("/proc/interrupts", "r");

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		char *rest = strchr(line, ':'), *end;

		if (!rest || !strstr(line, "ghostbus_example-completion"))
			continue;
		for (rest++;; rest = end) {
			unsigned long count = strtoul(rest, &end, 10);

			if (end == rest)
				break;
			total += count;
		}
	}
	fclose(file);
	return total;
}

static void test_user_to_user(int fd)
{
	size_t length = MIB + 13;
	unsigned char *source = allocate(length + 1), *destination = allocate(length + 2);
	int error;

	fill(source, length + 1, 1);
	error = copy_between(fd, GBX_END_USER, user(source + 1), GBX_END_USER, user(destination), length);
	report(!error && !differences(source + 1, destination, length) && !destination[length] && !destination[length + 1],
	       "user memory to user memory, %zu bytes from an odd address (%s)", length, strerror(-error));
	free(source);
	free(destination);
}

static void test_through_device(int fd, uint64_t memory_bytes)
{
	size_t length = memory_bytes / 4;
	uint64_t far = memory_bytes - length;
	unsigned char *source = allocate(length), *seen = allocate(length), *back = allocate(length);
	int error;
	size_t done;

	fill(source, length, 2);
	error = copy_between(fd, GBX_END_USER, user(source), GBX_END_DEVICE, 0, length) ?:
		copy_between(fd, GBX_END_DEVICE, 0, GBX_END_DEVICE, far, length) ?:
		copy_between(fd, GBX_END_DEVICE, far, GBX_END_USER, user(back), length);
	report(!error && !differences(source, back, length),
	       "user memory to device memory, inside it, and back, %zu bytes (%s)", length, strerror(-error));

	for (done = 0; done < length;) {
		ssize_t count = pread(fd, seen + done, length - done, far + done);

		if (count <= 0)
			break;
		done += count;
	}
	report(done == length && !differences(source, seen, length), "the CPU reads the same through BAR2, %zu bytes", done);
	free(source);
	free(seen);
	free(back);
}

static void test_cpu_writes(int fd)
{
	unsigned char source[4096], back[4096] = { 0 };
	int error;

	fill(source, sizeof(source), 3);
	if (pwrite(fd, source, sizeof(source), 0x5000) != sizeof(source)) {
		report(false, "the CPU writes device memory: %s", strerror(errno));
		return;
	}
	error = copy_between(fd, GBX_END_DEVICE, 0x5000, GBX_END_USER, user(back), sizeof(back));
	report(!error && !differences(source, back, sizeof(back)), "the engine reads what the CPU wrote (%s)", strerror(-error));
}

static void test_lengths(int fd)
{
	unsigned char source[128], window[256], back[256];
	size_t wrong = 0;
	int error = 0;

	fill(source, sizeof(source), 4);
	for (uint32_t length = 1; length <= 65 && !error; length++) {
		memset(window, 0xa5, sizeof(window));
		error = copy_between(fd, GBX_END_USER, user(window), GBX_END_DEVICE, 0, sizeof(window)) ?:
			copy_between(fd, GBX_END_USER, user(source), GBX_END_DEVICE, 64 + length % 8, length) ?:
			copy_between(fd, GBX_END_DEVICE, 0, GBX_END_USER, user(back), sizeof(back));
		memcpy(window + 64 + length % 8, source, length);
		wrong += differences(window, back, sizeof(back));
	}
	report(!error && !wrong, "lengths 1 to 65, with the bytes around them untouched (%s)", strerror(-error));
}

static void test_ring_wraps(int fd)
{
	uint64_t value = 0;
	int error = 0, count = 300;

	for (int i = 1; i <= count && !error; i++) {
		error = copy_between(fd, GBX_END_IMMEDIATE, i, GBX_END_DEVICE, 0x100, 8) ?:
			copy_between(fd, GBX_END_DEVICE, 0x100, GBX_END_USER, user(&value), 8);
		if (value != (uint64_t)i)
			error = error ?: -EILSEQ;
	}
	report(!error, "%d descriptors, several times round the ring (%s)", 2 * count, strerror(-error));
}

/* Waits until the counter has rested for 50 ms: the last message of a burst may still be on its way. */
static unsigned long settled_interrupts(void)
{
	unsigned long last = interrupts();

	for (int quiet = 0; quiet < 50; quiet++) {
		unsigned long now;

		usleep(1000);
		now = interrupts();
		if (now != last)
			quiet = 0;
		last = now;
	}
	return last;
}

/* One copy at a time: messages that arrive while one is pending merge, on real hardware too. */
static void test_interrupts(int fd)
{
	unsigned long first = settled_interrupts(), seen = first;
	int copies = 20, answered = 0, error = 0;

	for (int i = 0; i < copies && !error; i++) {
		unsigned long before = seen;

		error = copy_between(fd, GBX_END_IMMEDIATE, i, GBX_END_DEVICE, 0x100, 8);
		for (int wait = 0; wait < 2000 && seen == before; wait++) {
			usleep(1000);
			seen = interrupts();
		}
		answered += seen != before;
	}
	seen = settled_interrupts();
	report(!error && answered == copies && seen - first == (unsigned long)copies,
	       "%lu completion interrupts for %d copies, %d in time (%s)", seen - first, copies, answered, strerror(-error));
}

static void test_errors(int fd)
{
	struct gbx_copy nobody = { .source = NOBODYS_ADDRESS, .source_end = GBX_END_BUS, .destination_end = GBX_END_DEVICE, .length = 64 };
	struct gbx_copy outside = { .source = NOBODYS_ADDRESS, .source_end = GBX_END_DEVICE, .destination_end = GBX_END_DEVICE, .length = 64 };
	struct gbx_copy empty = { .source_end = GBX_END_DEVICE, .destination_end = GBX_END_DEVICE };
	uint64_t value = 0;
	int error = run_copy(fd, &nobody);

	report(error == -EIO && nobody.status == GBX_UNSUPPORTED_REQUEST && !nobody.copied,
	       "an address nobody claims: status %u (%s)", nobody.status, strerror(-error));
	error = run_copy(fd, &outside);
	report(error == -EIO && outside.status == GBX_INVALID_DESCRIPTOR, "an offset outside device memory: status %u (%s)",
	       outside.status, strerror(-error));
	error = run_copy(fd, &empty);
	report(error == -EINVAL, "no length (%s)", strerror(-error));
	error = copy_between(fd, GBX_END_IMMEDIATE, 77, GBX_END_DEVICE, 0, 8) ?:
		copy_between(fd, GBX_END_DEVICE, 0, GBX_END_USER, user(&value), 8);
	report(!error && value == 77, "the engine goes on after errors (%s)", strerror(-error));
}

static void test_privilege(int fd)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		if (setuid(65534))
			_exit(2);
		_exit(copy_between(fd, GBX_END_IMMEDIATE, 0, GBX_END_BUS, NOBODYS_ADDRESS, 4) == -EPERM ? 0 : 1);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		status = -1;
	report(status == 0, "a raw bus address needs CAP_SYS_RAWIO");
}

static void test_own_bar(int fd, const char *device)
{
	uint64_t memory = bar_address(device, 2), back = 0;
	int error = copy_between(fd, GBX_END_IMMEDIATE, 0x1122334455667788, GBX_END_BUS, memory + 0x2000, 8) ?:
		    copy_between(fd, GBX_END_DEVICE, 0x2000, GBX_END_USER, user(&back), 8);

	report(memory && !error && back == 0x1122334455667788, "its own memory by bus address 0x%" PRIx64 " (%s)", memory,
	       strerror(-error));
}

static void test_peer(int fd, int peer, const char *peer_device)
{
	uint64_t memory = bar_address(peer_device, 2), doorbell = bar_address(peer_device, 0) + GBX_DOORBELL;
	unsigned char *source = allocate(MIB), *back = allocate(MIB);
	uint64_t value = 0;
	int error, rung;

	fill(source, MIB, 5);
	error = copy_between(fd, GBX_END_USER, user(source), GBX_END_DEVICE, 0, MIB) ?:
		copy_between(fd, GBX_END_DEVICE, 0, GBX_END_BUS, memory + 0x10000, MIB) ?:
		copy_between(peer, GBX_END_DEVICE, 0x10000, GBX_END_USER, user(back), MIB);
	report(!error && !differences(source, back, MIB), "writes a peer's memory, 1 MiB (%s)", strerror(-error));

	fill(source, MIB, 6);
	memset(back, 0, MIB);
	error = copy_between(peer, GBX_END_USER, user(source), GBX_END_DEVICE, 0x8000, MIB) ?:
		copy_between(fd, GBX_END_BUS, memory + 0x8000, GBX_END_DEVICE, 0, MIB) ?:
		copy_between(fd, GBX_END_DEVICE, 0, GBX_END_USER, user(back), MIB);
	report(!error && !differences(source, back, MIB), "reads a peer's memory, 1 MiB (%s)", strerror(-error));

	/* A tail outside the ring halts the peer: the proof that its doorbell rang. Its driver restarts it. */
	error = copy_between(fd, GBX_END_IMMEDIATE, 0xffff, GBX_END_BUS, doorbell, 4);
	rung = copy_between(peer, GBX_END_IMMEDIATE, 1, GBX_END_DEVICE, 0, 8);
	report(!error && rung == -EIO, "rings a peer's doorbell (%s), the peer noticed (%s)", strerror(-error), strerror(-rung));
	error = copy_between(peer, GBX_END_IMMEDIATE, 78, GBX_END_DEVICE, 0, 8) ?:
		copy_between(peer, GBX_END_DEVICE, 0, GBX_END_USER, user(&value), 8);
	report(!error && value == 78, "the peer works again (%s)", strerror(-error));
	free(source);
	free(back);
}

static int open_engine(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		fprintf(stderr, "%s: %s; is ghostbus_example loaded?\n", path, strerror(errno));
		exit(2);
	}
	return fd;
}

static int poke(char **arguments)
{
	int fd = open_engine(arguments[0]), error;
	uint64_t address = strtoull(arguments[1], NULL, 0), value = strtoull(arguments[2], NULL, 0);

	error = copy_between(fd, GBX_END_IMMEDIATE, value, GBX_END_BUS, address, strtoul(arguments[3], NULL, 0));
	if (error)
		fprintf(stderr, "%s: write to 0x%" PRIx64 ": %s\n", arguments[0], address, strerror(-error));
	else
		printf("%s wrote 0x%" PRIx64 " to bus address 0x%" PRIx64 "\n", arguments[0], value, address);
	return error ? 1 : 0;
}

int main(int argc, char **argv)
{
	const char *device = argc > 1 ? argv[1] : "/dev/ghostbus-example0";
	struct gbx_info info;
	int fd;

	if (argc == 6 && !strcmp(argv[1], "poke"))
		return poke(argv + 2);
	if (argc > 3) {
		fprintf(stderr, "usage: example-copy [DEVICE [PEER]]\n       example-copy poke DEVICE ADDRESS VALUE BYTES\n");
		return 2;
	}
	fd = open_engine(device);
	if (ioctl(fd, GBX_IOC_INFO, &info)) {
		perror("GBX_IOC_INFO");
		return 2;
	}
	printf("KTAP version 1\n# %s: version %u.%u, %" PRIu64 " MiB\n", device, info.version >> 16, info.version & 0xffff,
	       (uint64_t)info.memory_bytes / MIB);
	test_user_to_user(fd);
	test_through_device(fd, info.memory_bytes);
	test_cpu_writes(fd);
	test_lengths(fd);
	test_ring_wraps(fd);
	test_interrupts(fd);
	test_errors(fd);
	test_privilege(fd);
	test_own_bar(fd, device);
	if (argc == 3)
		test_peer(fd, open_engine(argv[2]), argv[2]);
	printf("1..%d\n", cases);
	return failures ? 1 : 0;
}
