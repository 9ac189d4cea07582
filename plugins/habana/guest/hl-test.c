// SPDX-License-Identifier: MIT
/*
 * usage: hl-test [CARD [LARGEST-MIB]]
 *
 * Exercises a Gaudi with the stock driver: information, mapping, copies in all directions, every queue, signals and
 * waits, threads, timestamps, completion out of order. Compares every byte. Prints KTAP; exits with 0 when every case
 * passed. LARGEST-MIB (default 64) bounds the copies.
 */
#define _GNU_SOURCE
#include "hl-kit.h"
#include <pthread.h>

#define SMALL 4096
/* From HL_INFO_SYNC_MANAGER on, sync objects and monitors belong to the user. */
#define SOB GAUDI_FIRST_AVAILABLE_W_S_SYNC_OBJECT
#define MONITOR GAUDI_FIRST_AVAILABLE_W_S_MONITOR

static int fd;

static bool ask(uint32_t op, void *answer, uint32_t bytes, uint32_t argument)
{
	return !card_info(fd, op, answer, bytes, argument);
}

static void test_information(void)
{
	struct hl_info_hw_ip_info ip = { 0 };
	struct hl_info_hw_idle idle = { 0 };
	struct hl_info_device_status status = { 0 };
	struct hl_info_time_sync first = { 0 }, second = { 0 };
	struct hl_pll_frequency_info pll = { 0 };
	struct hl_info_clk_rate clock = { 0 };
	struct hl_power_info power = { 0 };
	struct hl_info_sync_manager manager = { 0 };

	bool good = ask(HL_INFO_HW_IP_INFO, &ip, sizeof(ip), 0);

	report(good && ip.dram_size == 0x7e0000000ull && ip.tpc_enabled_mask == 0xff &&
		       ip.dram_base_address == DRAM_USER_BASE,
	       "hardware information: %s, %" PRIu64 " MiB", ip.card_name, (uint64_t)ip.dram_size / (uint64_t)MIB);
	good = ask(HL_INFO_HW_IDLE, &idle, sizeof(idle), 0);
	report(good && idle.is_idle, "every engine is idle");
	good = ask(HL_INFO_DEVICE_STATUS, &status, sizeof(status), 0);
	report(good && status.status == HL_DEVICE_STATUS_OPERATIONAL, "operational");
	good = ask(HL_INFO_TIME_SYNC, &first, sizeof(first), 0);
	usleep(2000);
	good = ask(HL_INFO_TIME_SYNC, &second, sizeof(second), 0) && good;
	report(good && second.device_time > first.device_time, "the device's time goes on: %" PRIu64 " ticks",
	       (uint64_t)(second.device_time - first.device_time));
	good = ask(HL_INFO_PLL_FREQUENCY, &pll, sizeof(pll), HL_GAUDI_MME_PLL);
	report(good && pll.output[0] == 2200, "PLL outputs: %u MHz", pll.output[0]);
	good = ask(HL_INFO_CLK_RATE, &clock, sizeof(clock), 0);
	report(good && clock.max_clk_rate_mhz == 2200, "clock rate: %u of %u MHz", clock.cur_clk_rate_mhz,
	       clock.max_clk_rate_mhz);
	good = ask(HL_INFO_POWER, &power, sizeof(power), 0);
	report(good && power.power > 0, "power: %" PRIu64 " mW", (uint64_t)power.power);
	good = ask(HL_INFO_SYNC_MANAGER, &manager, sizeof(manager), HL_GAUDI_WS_DCORE);
	report(good && manager.first_available_sync_object == SOB && manager.first_available_monitor == MONITOR,
	       "sync objects from %u, monitors from %u", manager.first_available_sync_object,
	       manager.first_available_monitor);
}

/* What only the management processor or the engines' registers can answer. */
static void test_measurements(void)
{
	static char engines[16384];
	struct hl_info_energy first = { 0 }, second = { 0 };
	struct hl_info_device_utilization utilization = { .utilization = 1000 };
	struct hl_info_pci_counters pci = { .replay_cnt = 1000 };
	uint32_t pending_rows = 1000;
	bool good = ask(HL_INFO_TOTAL_ENERGY, &first, sizeof(first), 0);

	usleep(2000);
	good = ask(HL_INFO_TOTAL_ENERGY, &second, sizeof(second), 0) && good;
	report(good && second.total_energy_consumption > first.total_energy_consumption, "energy: %" PRIu64 " mJ",
	       (uint64_t)second.total_energy_consumption);
	good = ask(HL_INFO_DEVICE_UTILIZATION, &utilization, sizeof(utilization), 0);
	report(good && utilization.utilization <= 100, "utilization: %u %%", utilization.utilization);
	good = ask(HL_INFO_PCI_COUNTERS, &pci, sizeof(pci), 0);
	report(good && pci.replay_cnt == 0, "PCIe counters: %" PRIu64 " replays", (uint64_t)pci.replay_cnt);
	good = ask(HL_INFO_DRAM_PENDING_ROWS, &pending_rows, sizeof(pending_rows), 0);
	report(good && pending_rows == 0, "%u rows of HBM to be replaced", pending_rows);
	good = ask(HL_INFO_ENGINE_STATUS, engines, sizeof(engines), 0);
	/* The driver leaves zeros between its lines. */
	report(good && memmem(engines, sizeof(engines), "0x3fff", 6) && memmem(engines, sizeof(engines), "0x1180", 6),
	       "engine status");
}

/* host -> HBM -> HBM -> SRAM -> host, each hop with another seed in between. */
static void test_chain(uint64_t bytes)
{
	struct host_memory from = map_host(fd, bytes), to = map_host(fd, bytes);
	uint64_t through_sram = bytes < 16 * MIB ? bytes : 16 * MIB;
	uint64_t hbm = DRAM_USER_BASE, other = DRAM_USER_BASE + 2 * GIB;
	bool good = true;

	write_pattern(from.cpu, bytes, bytes);
	memset(to.cpu, 0xee, bytes);
	copy(fd, GAUDI_QUEUE_ID_DMA_0_0, hbm, from.va, bytes);
	copy(fd, GAUDI_QUEUE_ID_DMA_0_1, other, hbm, bytes);
	for (uint64_t done = 0; done < bytes; done += through_sram) {
		uint64_t piece = bytes - done < through_sram ? bytes - done : through_sram;

		copy(fd, GAUDI_QUEUE_ID_DMA_1_1, SRAM_USER_BASE, other + done, piece);
		copy(fd, GAUDI_QUEUE_ID_DMA_1_0, to.va + done, SRAM_USER_BASE, piece);
	}
	good = has_pattern(to.cpu, bytes, bytes);
	report(good, "host -> HBM -> HBM -> SRAM -> host, %" PRIu64 " KiB", bytes / (uint64_t)KIB);
	unmap_host(fd, &from);
	unmap_host(fd, &to);
}

enum place { HOST, HBM, SRAM, PLACES };

/* Two pieces fit into SRAM next to each other. */
#define SRAM_PIECE (9 * MIB)
/* Where a copy starts and ends: on no boundary but a word's. */
#define SKEW_FROM 24
#define SKEW_TO 40

/* Copies the beginning of `area` to its second half by way of two places; every hop is one of the card's. */
static void copy_by_way_of(const struct host_memory *area, enum place from, enum place to, uint64_t bytes)
{
	uint64_t most = from == SRAM || to == SRAM ? SRAM_PIECE : bytes;

	for (uint64_t done = 0, size; done < bytes; done += size) {
		uint64_t given = area->va + SKEW_FROM + done, taken = area->va + area->bytes / 2 + SKEW_TO + done;
		uint64_t sources[] = { given, DRAM_USER_BASE + SKEW_FROM + done, SRAM_USER_BASE + SKEW_FROM };
		uint64_t targets[] = { taken, DRAM_USER_BASE + 2 * GIB + SKEW_TO + done, SRAM_USER_BASE + SRAM_PIECE + MIB / 2 + SKEW_TO };

		size = bytes - done < most ? bytes - done : most;
		if (from != HOST)
			copy(fd, GAUDI_QUEUE_ID_DMA_0_0, sources[from], given, size);
		copy(fd, GAUDI_QUEUE_ID_DMA_1_0, targets[to], sources[from], size);
		if (to != HOST)
			copy(fd, GAUDI_QUEUE_ID_DMA_1_2, taken, targets[to], size);
	}
}

/* Every pair of host, HBM and SRAM. */
static void test_pairs(uint64_t bytes)
{
	static const char *const names[] = { "host", "HBM", "SRAM" };
	struct host_memory area = map_host(fd, 2 * bytes + 2 * SMALL);
	const unsigned char *taken = area.cpu + area.bytes / 2 + SKEW_TO;

	for (uint32_t i = 0; i < PLACES * PLACES; i++) {
		enum place from = i % PLACES, to = i / PLACES;

		write_pattern(area.cpu + SKEW_FROM, bytes, i);
		copy_by_way_of(&area, from, to, bytes);
		report(has_pattern(taken, bytes, i), "copy %s to %s, %" PRIu64 " KiB", names[from], names[to],
		       bytes / (uint64_t)KIB);
	}
	unmap_host(fd, &area);
}

static void test_fill(void)
{
	struct host_memory area = map_host(fd, MIB);
	struct commands commands = make_commands(fd, 4096);
	const uint64_t *words = (const uint64_t *)area.cpu;
	bool good = true;

	put_fill(&commands, DRAM_USER_BASE, 0x1122334455667788ull, MIB);
	put_fill(&commands, DRAM_USER_BASE + 4096, 0, 8192);
	put_copy(&commands, area.va, DRAM_USER_BASE, MIB);
	run_commands(fd, GAUDI_QUEUE_ID_DMA_1_0, &commands);
	for (size_t i = 0; i < MIB / 8; i++)
		good = good && words[i] == (i >= 512 && i < 1536 ? 0 : 0x1122334455667788ull);
	report(good, "a fill covers exactly its range");
	free_commands(fd, &commands);
	unmap_host(fd, &area);
}

static void test_external_queues(void)
{
	struct host_memory area = map_host(fd, SMALL);

	for (uint32_t queue = GAUDI_QUEUE_ID_DMA_0_0; queue <= GAUDI_QUEUE_ID_DMA_1_3; queue++) {
		struct commands commands = make_commands(fd, 4096);
		volatile uint32_t *word = (volatile uint32_t *)area.cpu + queue;

		put_nop(&commands);
		put_message(&commands, SRAM_USER_BASE + 4 * queue, 0xabc0 + queue);
		put_copy(&commands, area.va + 4 * queue, SRAM_USER_BASE + 4 * queue, 4);
		run_commands(fd, queue, &commands);
		report(*word == 0xabc0 + queue, "external queue %u", queue);
		free_commands(fd, &commands);
	}
	unmap_host(fd, &area);
}

/*
 * One submission: a job on an internal queue that moves data and signals, and one on an external
 * queue that waits for it.
 */
static bool run_internal(uint32_t queue, struct host_memory *code, struct host_memory *data)
{
	bool is_dma = queue >= GAUDI_QUEUE_ID_DMA_2_0 && queue <= GAUDI_QUEUE_ID_DMA_7_3;
	struct commands inside = { .cpu = code->cpu, .capacity = (uint32_t)code->bytes };
	struct commands outside = make_commands(fd, 4096);
	struct hl_cs_chunk chunks[2] = { 0 };
	uint64_t sequence;
	bool good;
	int error;

	write_pattern(data->cpu, SMALL, queue);
	memset(data->cpu + SMALL, 0, SMALL);
	put_message(&outside, sob_address(SOB), 0);
	run_commands(fd, GAUDI_QUEUE_ID_DMA_0_0, &outside);
	outside.bytes = 0;
	if (is_dma) {
		put_copy(&inside, DRAM_USER_BASE, data->va, SMALL);
		put_copy(&inside, data->va + SMALL, DRAM_USER_BASE, SMALL);
	}
	put_signal(&inside, SOB, 1);
	put_wait(&outside, GAUDI_QUEUE_ID_DMA_0_0, SOB, MONITOR, 1);
	chunks[0].cb_handle = code->va;
	chunks[0].queue_index = queue;
	chunks[0].cb_size = inside.bytes;
	chunks[1].cb_handle = outside.handle;
	chunks[1].queue_index = GAUDI_QUEUE_ID_DMA_0_0;
	chunks[1].cb_size = outside.bytes;
	error = submit_flags(fd, chunks, 2, 0, 0, &sequence);
	good = !error && wait_for(fd, sequence, WAIT_US, NULL) == HL_WAIT_CS_STATUS_COMPLETED;
	free_commands(fd, &outside);
	return good && (!is_dma || has_pattern(data->cpu + SMALL, SMALL, queue));
}

static void test_internal_queues(void)
{
	struct host_memory code = map_host(fd, SMALL), data = map_host(fd, 2 * SMALL);
	struct { const char *name; uint32_t first, last; } kinds[] = {
		{ "DMA", GAUDI_QUEUE_ID_DMA_2_0, GAUDI_QUEUE_ID_DMA_7_3 },
		{ "MME", GAUDI_QUEUE_ID_MME_0_0, GAUDI_QUEUE_ID_MME_1_3 },
		{ "TPC", GAUDI_QUEUE_ID_TPC_0_0, GAUDI_QUEUE_ID_TPC_7_3 },
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		uint32_t good = 0, count = kinds[i].last - kinds[i].first + 1;

		for (uint32_t queue = kinds[i].first; queue <= kinds[i].last; queue++)
			good += run_internal(queue, &code, &data);
		report(good == count, "internal %s queues: %u of %u", kinds[i].name, good, count);
	}
	unmap_host(fd, &code);
	unmap_host(fd, &data);
}

static int submit_sync(uint32_t queue, uint32_t flags, uint64_t *signals, uint32_t engine, uint64_t *sequence)
{
	struct hl_cs_chunk chunk = { 0 };

	chunk.queue_index = queue;
	if (signals) {
		chunk.signal_seq_arr = (uintptr_t)signals;
		chunk.num_signal_seq_arr = 1;
		chunk.collective_engine_id = engine;
	}
	return submit_flags(fd, &chunk, 1, flags, 0, sequence);
}

/* A signal that a fence holds back, and a wait for it: the wait must not complete before. */
static void test_signal_wait(void)
{
	struct commands hold = make_commands(fd, 4096), release = make_commands(fd, 4096);
	uint64_t held, signal = 0, wait = 0;
	int refusal;
	bool good;

	put_message(&release, sob_address(SOB + 8), 0);
	run_commands(fd, GAUDI_QUEUE_ID_DMA_1_3, &release);
	release.bytes = 0;
	put_wait(&hold, GAUDI_QUEUE_ID_DMA_0_0, SOB + 8, MONITOR + 1, 1);
	put_signal(&release, SOB + 8, 1);
	held = submit(fd, GAUDI_QUEUE_ID_DMA_0_0, &hold, 0);
	good = !submit_sync(GAUDI_QUEUE_ID_DMA_0_0, HL_CS_FLAGS_SIGNAL, NULL, 0, &signal);
	good = good && !submit_sync(GAUDI_QUEUE_ID_DMA_1_0, HL_CS_FLAGS_WAIT, &signal, 0, &wait);
	good = good && wait_for(fd, wait, 20000, NULL) == HL_WAIT_CS_STATUS_BUSY;
	/* The stock driver has no NIC ports and refuses these whatever the device does (cs_ioctl_signal_wait). */
	refusal = submit_sync(GAUDI_QUEUE_ID_DMA_1_1, HL_CS_FLAGS_COLLECTIVE_WAIT, &signal, GAUDI_ENGINE_ID_DMA_5, &wait);
	report(refusal == -EINVAL, "the driver refuses a collective wait without NIC ports (%d)", refusal);
	run_commands(fd, GAUDI_QUEUE_ID_DMA_1_3, &release);
	good = good && wait_for(fd, wait, WAIT_US, NULL) == HL_WAIT_CS_STATUS_COMPLETED;
	good = good && wait_for(fd, signal, WAIT_US, NULL) == HL_WAIT_CS_STATUS_COMPLETED;
	finish(fd, held);
	report(good, "signal and wait");
	free_commands(fd, &hold);
	free_commands(fd, &release);
}

/* Stream 0 is submitted first and waits; stream 1 completes before it. */
static void test_out_of_order(void)
{
	struct commands waits = make_commands(fd, 4096), works = make_commands(fd, 4096);
	int64_t first_ns = 0, second_ns = 0;
	uint64_t first, second;
	bool good;

	put_message(&works, sob_address(SOB + 16), 0);
	run_commands(fd, GAUDI_QUEUE_ID_DMA_0_1, &works);
	works.bytes = 0;
	put_wait(&waits, GAUDI_QUEUE_ID_DMA_0_0, SOB + 16, MONITOR + 2, 1);
	put_nop(&works);
	first = submit(fd, GAUDI_QUEUE_ID_DMA_0_0, &waits, HL_CS_FLAGS_TIMESTAMP);
	second = submit(fd, GAUDI_QUEUE_ID_DMA_0_1, &works, HL_CS_FLAGS_TIMESTAMP);
	good = wait_for(fd, second, WAIT_US, &second_ns) == HL_WAIT_CS_STATUS_COMPLETED;
	good = good && wait_for(fd, first, 1000, NULL) == HL_WAIT_CS_STATUS_BUSY;
	works.bytes = 0;
	put_signal(&works, SOB + 16, 1);
	run_commands(fd, GAUDI_QUEUE_ID_DMA_0_1, &works);
	good = good && wait_for(fd, first, WAIT_US, &first_ns) == HL_WAIT_CS_STATUS_COMPLETED;
	report(good, "a later submission on another stream completes first");
	report(second_ns > 0 && first_ns > second_ns, "timestamps say so too");
	free_commands(fd, &waits);
	free_commands(fd, &works);
}

#define THREADS 64
#define ROUNDS 8

static void *thread_main(void *argument)
{
	uint32_t index = (uint32_t)(uintptr_t)argument;
	struct host_memory area = map_host(fd, 4 * SMALL);
	uintptr_t wrong = 0;

	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint64_t hbm = DRAM_USER_BASE + 64 * MIB + index * 64 * KIB;

		write_pattern(area.cpu, 2 * SMALL, index * ROUNDS + round);
		memset(area.cpu + 2 * SMALL, 0, 2 * SMALL);
		copy(fd, GAUDI_QUEUE_ID_DMA_0_0 + index % 4, hbm, area.va, 2 * SMALL);
		copy(fd, GAUDI_QUEUE_ID_DMA_1_0 + index % 4, area.va + 2 * SMALL, hbm, 2 * SMALL);
		wrong += !has_pattern(area.cpu + 2 * SMALL, 2 * SMALL, index * ROUNDS + round);
	}
	unmap_host(fd, &area);
	return (void *)wrong;
}

static void test_threads(void)
{
	pthread_t threads[THREADS];
	uintptr_t wrong = 0;

	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, thread_main, (void *)i))
			fail("cannot start thread %zu", (size_t)i);
	for (uint32_t i = 0; i < THREADS; i++) {
		void *result;

		pthread_join(threads[i], &result);
		wrong += (uintptr_t)result;
	}
	report(wrong == 0, "%d threads, %d copies each way", THREADS, THREADS * ROUNDS);
}

int main(int argc, char **argv)
{
	uint64_t largest = (argc > 2 ? strtoull(argv[2], NULL, 0) : 64) * MIB;
	struct hl_info_hw_idle idle = { 0 };

	fd = open_card(argc > 1 ? atoi(argv[1]) : 0);
	test_information();
	test_measurements();
	for (uint64_t bytes = SMALL; bytes <= largest; bytes *= 8) {
		test_chain(bytes);
		test_pairs(bytes);
	}
	test_fill();
	test_external_queues();
	test_internal_queues();
	test_signal_wait();
	test_out_of_order();
	test_threads();
	report(!card_info(fd, HL_INFO_HW_IDLE, &idle, sizeof(idle), 0) && idle.is_idle, "idle again");
	close(fd);
	return summary();
}
