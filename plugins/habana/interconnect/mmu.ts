/**
 * The MMU (pages MMU_UP and STLB): five hops through tables that the driver writes into HBM, one root per ASID, a
 * translation cache that only an invalidation clears, and the capture registers of page faults.
 *
 * Source: Linux gaudi.c (gaudi_mmu_init, gaudi_mmu_update_asid_hop0_addr, gaudi_mmu_invalidate_cache,
 * gaudi_print_and_get_mmu_error_info), common/mmu/mmu_v1.c and include/hw_ip/mmu/mmu_general.h.
 */
import { type Log, type MemoryRegion, RegisterBlock } from 'ghostbus';
import type { Card } from '../card.js';
import { PAGE_BYTES } from './address-map.js';
import { type AccessDirection, DeviceFault } from './device-fault.js';

/** mmu_v1_0.h: MMU_V1_0_HOP0_SHIFT … HOP4_SHIFT; hop 0 indexes with 2 bits, the others with 9. */
const HOP_PAGE_BYTES = [2 ** 48, 2 ** 39, 2 ** 30, 2 ** 21, 2 ** 12] as const;
const HOP_ENTRIES = [4, 512, 512, 512, 512] as const;
/** mmu_general.h: PAGE_PRESENT_MASK, LAST_MASK. */
const PRESENT = 0x001;
const LAST = 0x800;
/** Bits 49:32 of an address in the high half of an entry. */
const HIGH_ADDRESS_BITS = 0x3ffff;
/** MMU_UP_PAGE_ERROR_CAPTURE_ENTRY_VALID_MASK (gaudi_masks.h); ACCESS_ERROR_CAPTURE has the same layout. */
const CAPTURE_VALID = 0x40000;
const BUSY = 0x80000000;
/** The cache is the emulator's, not the device's; this only bounds its memory. */
const MAX_CACHED_PAGES = 65536;

interface Translation {
  readonly physical: number;
  /** Bytes from `physical` to the end of its page. */
  readonly lengthBytes: number;
}

interface CachedPage {
  readonly virtual: number;
  readonly physical: number;
  readonly sizeBytes: number;
}

type StlbRegister =
  | 'MMU_BUSY'
  | 'MMU_ASID'
  | 'MMU_HOP0_PA43_12'
  | 'MMU_HOP0_PA49_44'
  | 'CACHE_INV'
  | 'CACHE_INV_BASE_39_8'
  | 'CACHE_INV_BASE_49_40'
  | 'HOP_CONFIGURATION'
  | 'INV_ALL_START'
  | 'INV_PS'
  | 'INV_SET'
  | 'MEM_CACHE_INVALIDATION';

interface MmuEvents {
  /** A translation failed; the capture registers have the address if they were free. */
  pageFault(address: number, direction: AccessDirection): void;
}

export class Mmu {
  readonly up: ReturnType<typeof upRegisters>;
  readonly stlb: RegisterBlock<StlbRegister>;
  readonly #hbm: MemoryRegion;
  readonly #events: MmuEvents;
  readonly #roots = new Map<number, number>();
  readonly #cache = new Map<number, CachedPage>();
  readonly counters: Record<'walks' | 'invalidations' | 'pageFaults', number>;

  constructor({ memories, statistics, log }: Card, events: MmuEvents) {
    this.#hbm = memories.hbm;
    this.#events = events;
    this.counters = statistics.of('MMU', 'walks', 'invalidations', 'pageFaults');
    this.up = upRegisters(log);
    this.stlb = this.#stlbRegisters(log);
  }

  /** @throws DeviceFault `page-fault` */
  translate(virtual: number, asid: number, direction: AccessDirection): Translation {
    const found = this.find(virtual, asid);
    if (found === undefined) throw this.#fault(virtual, asid, direction);
    return found;
  }

  /** As {@link translate}, without the consequences of a miss. */
  find(virtual: number, asid: number): Translation | undefined {
    const key = asid * 2 ** 38 + Math.floor(virtual / PAGE_BYTES);
    let page = this.#cache.get(key);
    if (page === undefined) {
      page = this.#walk(virtual, asid);
      if (page === undefined) return undefined;
      if (this.#cache.size >= MAX_CACHED_PAGES) this.#cache.clear();
      this.#cache.set(key, page);
    }
    const offset = virtual - page.virtual;
    return { physical: page.physical + offset, lengthBytes: page.sizeBytes - offset };
  }

  /** Fills the capture registers as a failed translation does. A capture that nobody has read yet stays. */
  capturePageFault(virtual: number): void {
    if ((this.up.get('PAGE_ERROR_CAPTURE') & CAPTURE_VALID) !== 0) return;
    this.up.set('PAGE_ERROR_CAPTURE', CAPTURE_VALID | (Math.floor(virtual / 2 ** 32) & HIGH_ADDRESS_BITS));
    this.up.set('PAGE_ERROR_CAPTURE_VA', virtual % 2 ** 32);
  }

  /** Records who made an access that no range allowed (RAZWI). `initiator` is the value of the ID register. */
  captureRazwi(direction: AccessDirection, initiator: number): void {
    this.up.set(direction === 'write' ? 'RAZWI_WRITE_VLD' : 'RAZWI_READ_VLD', 1);
    this.up.set(direction === 'write' ? 'RAZWI_WRITE_ID' : 'RAZWI_READ_ID', initiator);
  }

  #walk(virtual: number, asid: number): CachedPage | undefined {
    this.counters.walks++;
    if ((this.up.get('MMU_ENABLE') & 1) === 0) return undefined;
    let table = this.#roots.get(asid);
    for (let hop = 0; hop < HOP_PAGE_BYTES.length && table !== undefined; hop++) {
      const pageBytes = HOP_PAGE_BYTES[hop]!;
      const entryAddress = table + 8 * (Math.floor(virtual / pageBytes) % HOP_ENTRIES[hop]!);
      if (entryAddress + 8 > this.#hbm.sizeBytes) return undefined;
      const low = this.#hbm.readU32(entryAddress);
      const high = this.#hbm.readU32(entryAddress + 4);
      if ((low & PRESENT) === 0) return undefined;
      const address = (high & HIGH_ADDRESS_BITS) * 2 ** 32 + ((low & ~0xfff) >>> 0);
      if ((low & LAST) !== 0) {
        return {
          virtual: virtual - (virtual % pageBytes),
          physical: address - (address % pageBytes),
          sizeBytes: pageBytes,
        };
      }
      table = address;
    }
    return undefined;
  }

  #fault(virtual: number, asid: number, direction: AccessDirection): DeviceFault {
    this.counters.pageFaults++;
    this.capturePageFault(virtual);
    this.#events.pageFault(virtual, direction);
    return new DeviceFault('page-fault', direction, virtual, `ASID ${asid}`);
  }

  #invalidate(): number {
    this.counters.invalidations++;
    this.#cache.clear();
    return 0;
  }

  /** STLB page and the ASID configuration at its start (cfg 0xC12000). */
  #stlbRegisters(log: Log): RegisterBlock<StlbRegister> {
    return new RegisterBlock<StlbRegister>(
      { name: 'STLB', sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
      {
        MMU_BUSY: { offset: 0x00, onWrite: (value): number => this.#loadRoot(value) },
        MMU_ASID: { offset: 0x04, writable: 0x3ff },
        MMU_HOP0_PA43_12: { offset: 0x08 },
        MMU_HOP0_PA49_44: { offset: 0x0c },
        CACHE_INV: { offset: 0x10 },
        CACHE_INV_BASE_39_8: { offset: 0x14 },
        CACHE_INV_BASE_49_40: { offset: 0x18 },
        HOP_CONFIGURATION: { offset: 0x24 },
        INV_ALL_START: { offset: 0x34, onWrite: () => this.#invalidate() },
        INV_PS: { offset: 0x3c, onWrite: () => this.#invalidate() },
        INV_SET: { offset: 0x48 },
        MEM_CACHE_INVALIDATION: { offset: 0x50 },
      },
    );
  }

  /** A written busy bit takes the root of one ASID over; it is done before the driver can look. */
  #loadRoot(value: number): number {
    if ((value & BUSY) === 0) return 0;
    const pa43to12 = this.stlb.get('MMU_HOP0_PA43_12');
    const pa49to44 = this.stlb.get('MMU_HOP0_PA49_44') & 0x3f;
    this.#roots.set(this.stlb.get('MMU_ASID'), pa49to44 * 2 ** 44 + pa43to12 * 2 ** 12);
    this.#cache.clear();
    return 0;
  }
}

/** mmu_up_regs.h */
function upRegisters(log: Log) {
  return new RegisterBlock(
    { name: 'MMU_UP', sizeBytes: PAGE_BYTES, undeclared: 'storage', log },
    {
      MMU_ENABLE: { offset: 0x0c },
      SPI_MASK: { offset: 0x2c },
      SPI_CAUSE: { offset: 0x30 },
      PAGE_ERROR_CAPTURE: { offset: 0x34 },
      PAGE_ERROR_CAPTURE_VA: { offset: 0x38 },
      ACCESS_ERROR_CAPTURE: { offset: 0x3c },
      ACCESS_ERROR_CAPTURE_VA: { offset: 0x40 },
      RAZWI_WRITE_VLD: { offset: 0x5c },
      RAZWI_WRITE_ID: { offset: 0x60 },
      RAZWI_READ_VLD: { offset: 0x64 },
      RAZWI_READ_ID: { offset: 0x68 },
      MMU_BYPASS: { offset: 0x6c },
    },
  );
}
