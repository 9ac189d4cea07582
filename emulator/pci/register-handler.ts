/**
 * Registers with side effects: a part of a BAR where every access traps.
 *
 * Accesses are naturally aligned and 1, 2, 4 or 8 bytes wide, little-endian. They come from the guest's CPU or from a
 * peer's DMA. A handler must return at once: QEMU holds its big lock meanwhile and gives the function up after 5 s.
 * Work that takes longer is posted (`FunctionPort.post`). An 8-byte access reaches a handler without
 * `read64`/`write64` as two 4-byte accesses, lower address first.
 *
 * A handler that throws breaks its function: the emulator logs register, value and stack and
 * reports the function broken.
 */
export interface RegisterHandler {
  /** Answers a read of `sizeBytes` (1, 2 or 4) at `offset` bytes from the start of this register range. */
  read(offset: number, sizeBytes: number): number;
  /** Takes a write of `sizeBytes` (1, 2 or 4) at `offset` bytes from the start of this register range. */
  write(offset: number, sizeBytes: number, value: number): void;
  read64?(offset: number): bigint;
  write64?(offset: number, value: bigint): void;
  /** Name of the register at `offset`, for logs. `RegisterBlock` has it. */
  nameAt?(offset: number): string;
}
