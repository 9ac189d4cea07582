// SPDX-License-Identifier: MIT
/*
 * usage: hl-fault timeout|stuck|page-fault|undefined-opcode|wait-event [CARD]
 *
 * Provokes one fault of a Gaudi and checks what the driver makes of it. `stuck` submits a job to DMA1 that any engine
 * completes unless it is stuck; `wait-event` only waits for a notification and prints it. Prints KTAP; exits with 0
 * when every case passed. A fault ends with a reset of the device by the driver.
 */
#include "hl-kit.h"
#include <poll.h>
#include <sys/eventfd.h>

#define TIMEOUT_S 2

static int fd, events;

/* The notification's mask, or 0 after ten seconds. */
static uint64_t next_event(void)
{
	struct pollfd waiting = { .fd = events, .events = POLLIN };
	uint64_t count, mask = 0;

	if (poll(&waiting, 1, 10000) != 1 || read(events, &count, sizeof(count)) != sizeof(count))
		return 0;
	if (card_info(fd, HL_INFO_GET_EVENTS, &mask, sizeof(mask), 0))
		fail("cannot ask for the events: %s", strerror(errno));
	return mask;
}

static uint64_t events_until(uint64_t wanted)
{
	uint64_t seen = 0;

	while ((seen & wanted) != wanted) {
		uint64_t mask = next_event();

		if (!mask)
			break;
		seen |= mask;
	}
	return seen;
}

static uint64_t submit_with_timeout(uint32_t queue, const struct commands *commands)
{
	struct hl_cs_chunk chunk = { 0 };
	uint64_t sequence;
	int error;

	chunk.cb_handle = commands->handle;
	chunk.queue_index = queue;
	chunk.cb_size = commands->bytes;
	error = submit_flags(fd, &chunk, 1, HL_CS_FLAGS_CUSTOM_TIMEOUT, TIMEOUT_S, &sequence);
	if (error)
		fail("cannot submit: %s", strerror(-error));
	return sequence;
}

/* It ends as aborted or timed out, once the driver gives up. */
static void expect_timeout(uint64_t sequence)
{
	int status = wait_for(fd, sequence, WAIT_US, NULL);

	report(status == HL_WAIT_CS_STATUS_TIMEDOUT || status == HL_WAIT_CS_STATUS_ABORTED || status == -ETIMEDOUT ||
		       status == -EIO, "the submission ends without completing (%d)", status);
}

static void expect_timeout_notified(uint32_t queue, const struct commands *commands)
{
	expect_timeout(submit_with_timeout(queue, commands));
	report(events_until(HL_NOTIFIER_EVENT_CS_TIMEOUT) & HL_NOTIFIER_EVENT_CS_TIMEOUT, "the driver notifies the time-out");
}

static void provoke_timeout(void)
{
	struct commands commands = make_commands(fd, 4096);

	put_fence(&commands, 3, 1, 1);
	expect_timeout_notified(GAUDI_QUEUE_ID_DMA_0_0, &commands);
}

static void wait_for_stuck_engine(void)
{
	struct commands commands = make_commands(fd, 4096);

	put_nop(&commands);
	expect_timeout_notified(GAUDI_QUEUE_ID_DMA_1_0, &commands);
}

static void provoke_page_fault(void)
{
	struct commands commands = make_commands(fd, 4096);
	struct hl_page_fault_info fault = { 0 };
	const uint64_t nowhere = 0x1234567890000ull;
	uint64_t sequence, seen;

	put_copy(&commands, DRAM_USER_BASE, nowhere, 4096);
	sequence = submit_with_timeout(GAUDI_QUEUE_ID_DMA_0_0, &commands);
	seen = events_until(HL_NOTIFIER_EVENT_PAGE_FAULT);
	report(seen & HL_NOTIFIER_EVENT_PAGE_FAULT, "the driver notifies a page fault (0x%" PRIx64 ")", seen);
	if (card_info(fd, HL_INFO_PAGE_FAULT_EVENT, &fault, sizeof(fault), 0))
		fail("cannot ask for the page fault: %s", strerror(errno));
	report(fault.addr == nowhere, "at address 0x%" PRIx64, (uint64_t)fault.addr);
	expect_timeout(sequence);
}

/* An internal queue, because the driver parses what goes to an external one. */
static void provoke_undefined_opcode(void)
{
	struct host_memory code = map_host(fd, 4096);
	struct commands inside = { .cpu = code.cpu, .capacity = 4096 }, outside = make_commands(fd, 4096);
	struct hl_cs_chunk chunks[2] = { 0 };
	uint64_t sequence, seen;
	int error;

	put(&inside, (uint32_t[]){ 0, CTL(0x1eu) }, 8);
	put_nop(&outside);
	chunks[0].cb_handle = code.va;
	chunks[0].queue_index = GAUDI_QUEUE_ID_DMA_2_0;
	chunks[0].cb_size = inside.bytes;
	chunks[1].cb_handle = outside.handle;
	chunks[1].queue_index = GAUDI_QUEUE_ID_DMA_0_0;
	chunks[1].cb_size = outside.bytes;
	error = submit_flags(fd, chunks, 2, 0, 0, &sequence);
	if (error)
		fail("cannot submit: %s", strerror(-error));
	finish(fd, sequence);
	seen = events_until(HL_NOTIFIER_EVENT_UNDEFINED_OPCODE);
	report(seen & HL_NOTIFIER_EVENT_UNDEFINED_OPCODE, "the driver notifies an undefined opcode (0x%" PRIx64 ")", seen);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	fd = open_card(argc > 2 ? atoi(argv[2]) : 0);
	events = eventfd(0, EFD_CLOEXEC);
	if (card_info(fd, HL_INFO_REGISTER_EVENTFD, NULL, 0, (uint32_t)events))
		fail("cannot register for events: %s", strerror(errno));
	if (!strcmp(what, "timeout"))
		provoke_timeout();
	else if (!strcmp(what, "stuck"))
		wait_for_stuck_engine();
	else if (!strcmp(what, "page-fault"))
		provoke_page_fault();
	else if (!strcmp(what, "undefined-opcode"))
		provoke_undefined_opcode();
	else if (!strcmp(what, "wait-event")) {
		printf("waiting\n");
		fflush(stdout);
		printf("event 0x%" PRIx64 "\n", next_event());
		return 0;
	} else
		fail("usage: hl-fault timeout|stuck|page-fault|undefined-opcode|wait-event [CARD]");
	return summary();
}
