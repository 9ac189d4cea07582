/**
 * The protection bits with which a page of registers ends: one for each of its dwords, set by the driver for what user
 * code may write (gaudi_security.c, PROT_BITS_OFFS). Stored, not enforced.
 */
export const PROTECTION_BITS = { PROTECTION_BITS: { offset: 0xf80, count: 32 } } as const;
