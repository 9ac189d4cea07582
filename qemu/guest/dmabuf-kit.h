// SPDX-License-Identifier: MIT
/*
 * What the programs of the dma-buf matrix share. An exporter program (export-*) makes a buffer, exports it, and
 * starts an importer program (import-*) with the dma-buf as descriptor 3 and a socket to the exporter as descriptor
 * 4. The importer leads: it asks the exporter to fill its buffer, to compare it, to let go of it. So each end
 * checks with its own means what the other one did.
 *
 * Pattern: 64-bit word i of pass p, for the whole exported buffer, whatever part of it is used.
 */
#ifndef DMABUF_KIT_H
#define DMABUF_KIT_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fail.h"

#define DMABUF_FD 3
#define EXPORTER_FD 4
/* Only where an exporter was told --twice: a second dma-buf of the same memory, or the one dma-buf there is. */
#define SECOND_DMABUF_FD 5

static inline uint64_t dmabuf_word(uint32_t pass, uint64_t index)
{
	return (index + 1) * 0x9e3779b97f4a7c15ull ^ pass * 0xd6e8feb86659fd93ull;
}

/* The part of the pattern that belongs at `offset` of the export; both in whole words. */
static inline void dmabuf_write(void *memory, uint64_t offset, uint64_t bytes, uint32_t pass)
{
	uint64_t *words = memory;

	for (uint64_t i = 0; i < bytes / 8; i++)
		words[i] = dmabuf_word(pass, offset / 8 + i);
}

/* Number of wrong bytes. Reads whole words through a copy: the memory may be a BAR. */
static inline uint64_t dmabuf_wrong(const void *memory, uint64_t offset, uint64_t bytes, uint32_t pass)
{
	static uint64_t copy[8192];
	uint64_t wrong = 0;

	for (uint64_t done = 0; done < bytes; done += sizeof(copy)) {
		uint64_t piece = bytes - done < sizeof(copy) ? bytes - done : sizeof(copy);

		memcpy(copy, (const uint8_t *)memory + done, piece);
		for (uint64_t i = 0; i < piece / 8; i++) {
			uint64_t differs = copy[i] ^ dmabuf_word(pass, (offset + done) / 8 + i);

			for (; differs; differs >>= 8)
				wrong += (differs & 0xff) != 0;
		}
	}
	return wrong;
}

/* ---- what the two ends say to each other ------------------------------------------------------------------------ */

enum request_kind { FILL, COMPARE, CLOSE_FD, RELEASE, EVICT, USE };

struct request {
	enum request_kind kind;
	/* FILL: the pass for everything. COMPARE: the pass inside [from, to); everything else has pass `outside`. */
	uint32_t pass, outside;
	uint64_t from, to;
};

struct answer {
	/*
	 * Of FILL: what to write to a doorbell. Of COMPARE: wrong bytes. Of RELEASE: whether the memory outlives the exporter.
	 */
	uint64_t value;
};

struct exporter {
	uint64_t bytes;
	/*
	 * Write and compare a part of the buffer by the exporter's own means. Where the export is a doorbell: prepare what it
	 * starts and return the 8 bytes that start it; return 0 if it has been started, else 8.
	 */
	uint64_t (*fill)(uint64_t offset, uint64_t bytes, uint32_t pass);
	uint64_t (*wrong)(uint64_t offset, uint64_t bytes, uint32_t pass);
	/*
	 * Frees the buffer and closes the device, not the dma-buf. Returns whether the memory stays while a dma-buf is open.
	 */
	bool (*release)(void);
	/* Makes the driver move the buffer out of the device's memory. NULL: this exporter's buffers never move. */
	void (*evict)(void);
	/* Lets the device itself work with the buffer. NULL: nothing would follow from that. */
	void (*use)(void);
};

static inline uint64_t exporter_answer(const struct exporter *exporter, const struct request *request, int *dmabuf)
{
	uint64_t wrong = 0;

	switch (request->kind) {
	case FILL:
		return exporter->fill(0, exporter->bytes, request->pass);
	case COMPARE:
		if (request->from > 0)
			wrong += exporter->wrong(0, request->from, request->outside);
		wrong += exporter->wrong(request->from, request->to - request->from, request->pass);
		if (request->to < exporter->bytes)
			wrong += exporter->wrong(request->to, exporter->bytes - request->to, request->outside);
		return wrong;
	case CLOSE_FD:
		if (*dmabuf >= 0)
			close(*dmabuf);
		*dmabuf = -1;
		return 0;
	case RELEASE:
		return exporter->release();
	case EVICT:
		if (!exporter->evict)
			fail("this exporter's buffers never move");
		exporter->evict();
		return 0;
	case USE:
		if (!exporter->use)
			fail("this exporter's device has no use for the buffer");
		exporter->use();
		return 0;
	}
	fail("the importer asks for %d, which no exporter knows", (int)request->kind);
}

/* Descriptors above those that a started program expects. */
#define FIRST_FREE_FD 10

/* Puts a descriptor where the started program expects it, open over exec. */
static inline void pass_descriptor(int from, int to)
{
	if (from == to)
		fcntl(from, F_SETFD, 0);
	else if (dup2(from, to) < 0)
		fail("cannot pass a descriptor: %s", strerror(errno));
}

#define NO_SECOND_DMABUF (-1)

static inline pid_t start_importer(int dmabuf, int second, int socket, char **argv)
{
	pid_t child = fork();

	if (child < 0)
		fail("cannot fork: %s", strerror(errno));
	if (child > 0)
		return child;
	/* Out of the way first: each may have another's number. */
	dmabuf = fcntl(dmabuf, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
	socket = fcntl(socket, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
	if (second != NO_SECOND_DMABUF)
		pass_descriptor(fcntl(second, F_DUPFD_CLOEXEC, FIRST_FREE_FD), SECOND_DMABUF_FD);
	pass_descriptor(dmabuf, DMABUF_FD);
	pass_descriptor(socket, EXPORTER_FD);
	execvp(argv[0], argv);
	fail("cannot run %s: %s", argv[0], strerror(errno));
}

/*
 * Starts the importer, serves it until it is gone, and ends as it did. The importer alone keeps
 * `second`, if there is one.
 */
static inline _Noreturn void serve_importer_of_two(const struct exporter *exporter, int dmabuf, int second, char **argv)
{
	struct request request;
	struct answer answer;
	int ends[2], status;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		fail("no socket pair: %s", strerror(errno));
	child = start_importer(dmabuf, second, ends[1], argv);
	close(ends[1]);
	if (second != NO_SECOND_DMABUF)
		close(second);
	while (recv(ends[0], &request, sizeof(request), 0) == sizeof(request)) {
		answer.value = exporter_answer(exporter, &request, &dmabuf);
		if (send(ends[0], &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer))
			break;
	}
	if (waitpid(child, &status, 0) != child)
		fail("lost %s: %s", argv[0], strerror(errno));
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static inline _Noreturn void serve_importer(const struct exporter *exporter, int dmabuf, char **argv)
{
	serve_importer_of_two(exporter, dmabuf, NO_SECOND_DMABUF, argv);
}

/* Takes an option from before a program's arguments; whether it was there. */
static inline bool take_option(int *argc, char ***argv, const char *name)
{
	bool given = *argc > 1 && strcmp((*argv)[1], name) == 0;

	*argc -= given;
	*argv += given;
	return given;
}

/* ---- the importer's side ---------------------------------------------------------------------------------------- */

static inline uint64_t ask(struct request request)
{
	struct answer answer;

	if (send(EXPORTER_FD, &request, sizeof(request), MSG_NOSIGNAL) != sizeof(request) ||
	    recv(EXPORTER_FD, &answer, sizeof(answer), 0) != sizeof(answer))
		fail("the exporter is gone");
	return answer.value;
}

static inline uint64_t exporter_fills(uint32_t pass)
{
	return ask((struct request){ .kind = FILL, .pass = pass });
}

/* Wrong bytes in the whole of the exporter's buffer, of which the importer has written [from, to). */
static inline uint64_t exporter_compares(uint32_t pass, uint64_t from, uint64_t to, uint32_t outside)
{
	return ask((struct request){ .kind = COMPARE, .pass = pass, .outside = outside, .from = from, .to = to });
}

static inline bool exporter_releases(void)
{
	return ask((struct request){ .kind = RELEASE });
}

static inline void exporter_evicts(void)
{
	ask((struct request){ .kind = EVICT });
}

static inline void exporter_uses(void)
{
	ask((struct request){ .kind = USE });
}

/* Both ends close the dma-buf: from now on only the importer's driver holds it. */
static inline void close_dmabuf(void)
{
	ask((struct request){ .kind = CLOSE_FD });
	close(DMABUF_FD);
}

/* ---- results: one JSON object a line ----------------------------------------------------------------------------- */

/*
 * A driver said no: at which step, with which errno (positive). Ends the program with success:
 * whether it should is the host's matter.
 */
static inline _Noreturn void refused(const char *step, int error)
{
	printf("{\"refused\":\"%s\",\"errno\":\"%s\"}\n", step, strerrorname_np(error));
	fflush(stdout);
	exit(0);
}

static inline void step_done(const char *step, uint64_t bytes, uint64_t wrong)
{
	printf("{\"step\":\"%s\",\"bytes\":%" PRIu64 ",\"wrong\":%" PRIu64 "}\n", step, bytes, wrong);
	fflush(stdout);
}

static inline void finished(void)
{
	printf("{\"finished\":true}\n");
	fflush(stdout);
}

/* Which part of the export to use, and in which order to take things down. */
struct task {
	uint64_t offset, bytes;
	enum { IMPORTER_FIRST, EXPORTER_FIRST, FD_FIRST, RING } teardown;
};

static inline struct task parse_task(char **argv)
{
	static const char *const names[] = { "importer-first", "exporter-first", "fd-first", "ring" };
	struct task task = { .offset = strtoull(argv[0], NULL, 0), .bytes = strtoull(argv[1], NULL, 0) };

	for (task.teardown = IMPORTER_FIRST; strcmp(argv[2], names[task.teardown]); task.teardown++)
		if (task.teardown == RING)
			fail("\"%s\" is no order; there are importer-first, exporter-first, fd-first, ring", argv[2]);
	if (task.offset % 8 || task.bytes % 8 || !task.bytes)
		fail("offset and length are multiples of 8");
	return task;
}

#endif
