// SPDX-License-Identifier: MIT
/*
 * Both ends of a trapped register read, without a device: `server PATH` answers every 32-byte request with 36 bytes, as
 * little as any server can do; `client PATH COUNT [vfio-user]` reads a register COUNT times, one after the other, and
 * prints the mean in nanoseconds. With `vfio-user` it negotiates a version first.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST_BYTES = 32, REPLY_BYTES = 36, VERSION = 1, REGION_READ = 9 };

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void read_exactly(int fd, void *buffer, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t got = read(fd, (char *)buffer + done, length - done);
		if (got <= 0)
			die("read");
		done += got;
	}
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path)) {
		fprintf(stderr, "%s is too long for a socket\n", path);
		exit(2);
	}
	strcpy(address.sun_path, path);
	return address;
}

static int serve(const char *path)
{
	struct sockaddr_un address = address_of(path);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (listener < 0 || bind(listener, (void *)&address, sizeof(address)) || listen(listener, 1))
		die(path);
	puts("listening");
	fflush(stdout);
	int fd = accept(listener, NULL, NULL);
	if (fd < 0)
		die("accept");
	char message[REPLY_BYTES] = { 0 };
	for (;;) {
		ssize_t got = recv(fd, message, REQUEST_BYTES, MSG_WAITALL);
		if (got == 0)
			return 0;
		if (got != REQUEST_BYTES)
			die("recv");
		if (send(fd, message, REPLY_BYTES, MSG_NOSIGNAL) != REPLY_BYTES)
			die("send");
	}
}

static void put32(char *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static void negotiate(int fd)
{
	static const char json[] = "{\"capabilities\":{}}";
	char message[64] = { 0 };
	uint32_t size = 20 + sizeof(json);
	char header[16];

	message[2] = VERSION;
	put32(message + 4, size);
	memcpy(message + 20, json, sizeof(json));
	if (write(fd, message, size) != size)
		die("write");
	read_exactly(fd, header, sizeof(header));
	memcpy(&size, header + 4, sizeof(size));
	char rest[4096];
	if (size < sizeof(header) || size - sizeof(header) > sizeof(rest)) {
		fprintf(stderr, "the reply to VERSION has %u bytes\n", size);
		exit(1);
	}
	read_exactly(fd, rest, size - sizeof(header));
}

static int measure(const char *path, long count, int vfio_user)
{
	struct sockaddr_un address = address_of(path);
	struct timespec start, end;
	char request[REQUEST_BYTES] = { 0 }, reply[REPLY_BYTES];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (void *)&address, sizeof(address)))
		die(path);
	if (vfio_user)
		negotiate(fd);
	request[2] = REGION_READ;
	put32(request + 4, REQUEST_BYTES);
	put32(request + 28, 4);
	for (long i = -count / 10; i < count; i++) {
		if (i == 0)
			clock_gettime(CLOCK_MONOTONIC, &start);
		if (write(fd, request, sizeof(request)) != sizeof(request))
			die("write");
		read_exactly(fd, reply, sizeof(reply));
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.1f\n", ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / count);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "server"))
		return serve(argv[2]);
	if (argc >= 4 && !strcmp(argv[1], "client"))
		return measure(argv[2], atol(argv[3]), argc == 5);
	fprintf(stderr, "usage: %s server PATH | client PATH COUNT [vfio-user]\n", argv[0]);
	return 2;
}
