/**
 * Numbers of the events that this device reports, and what hardware error leads to which. Source: include/gaudi/
 * gaudi_async_events.h; `cpu_id` to event: gaudi_async_ids_map_extended.h.
 */

/** enum gaudi_async_event_id. */
export const GAUDI_EVENT = {
  HBM_0_SERR: 185,
  HBM_0_DERR: 189,
  MMU_SERR: 193,
  MMU_DERR: 194,
  PLL0: 239,
  DMA_IF_SEI_0: 277,
  TPC0_KRN_ERR: 301,
  MMU_PAGE_FAULT: 380,
  MMU_WR_PERM: 381,
  PSOC_GPIO_U16_0: 421,
  RAZWI_OR_ADC: 548,
  TPC0_QM: 572,
  MME0_QM: 581,
  MME2_QM: 582,
  DMA0_QM: 583,
  NIC0_QM0: 594,
  DMA0_CORE: 604,
  FW_ALIVE_S: 645,
  DEV_RESET_REQ: 646,
  PKT_QUEUE_OUT_SYNC: 647,
  FIX_POWER_ENV_S: 658,
  FIX_POWER_ENV_E: 659,
  FIX_THERMAL_ENV_S: 660,
  FIX_THERMAL_ENV_E: 661,
} as const;

/** First and last of the events after which a card is reset, in the order of gaudi.c gaudi_handle_eqe. */
const FATAL_EVENTS: readonly (readonly [first: number, last: number])[] = [
  ...[33, 35, 37, 55, 57, 59, 61, 63, 65, 67, 69, 87, 90, 91, 194].map((type) => [type, type] as const), // double ECC errors
  ...([
    [46, 53],
    [78, 85],
    [124, 155],
    [166, 170],
    [180, 183],
    [189, 192],
  ] as const), // of TPC, DMA, SRAM, NIC, DMA_IF, HBM
  ...[483, 487, 491, 495, 499].map((type) => [type, type] as const), // of NIC debug logic
  ...([
    [184, 184],
    [217, 218],
    [239, 256],
  ] as const), // GIC500, AXI and L2 ECC, PLLs
  ...[395, 399, 403, 407].map((type) => [type, type] as const), // HBM interrupts
  ...([
    [645, 647],
    [662, 662],
  ] as const), // firmware, reset request, out of sync; RAZWI
];

/** True if the card is to be reset after this event: by the driver or, if it is secured, by its firmware. */
export function isFatal(type: number): boolean {
  return FATAL_EVENTS.some(([first, last]) => type >= first && type <= last);
}

/** GAUDI_EVENT_TPC0_KRN_ERR and its neighbours: the events of one TPC are six apart from the next one's. */
export function tpcErrorEvent(index: number): number {
  return GAUDI_EVENT.TPC0_KRN_ERR + 6 * index;
}

/** GAUDI_EVENT_SIZE. */
export const EVENT_TYPES = 663;

/** Queues of TPC, MME and DMA; queues of the NICs and DMA cores. */
const ENGINE_INTERRUPTS = [
  [421, 439],
  [443, 460],
] as const;
const EVENT_OF_ENGINE_INTERRUPT = 151;

/**
 * The event that the firmware makes of an engine's error interrupt; undefined for an interrupt no engine raises. From
 * TPC0_QM (cpu_id 421) to DMA7_CORE (460) the two numbers differ by the same amount.
 */
export function eventOfInterrupt(interrupt: number): number | undefined {
  const isEngine = ENGINE_INTERRUPTS.some(([first, last]) => interrupt >= first && interrupt <= last);
  return isEngine ? interrupt + EVENT_OF_ENGINE_INTERRUPT : undefined;
}
