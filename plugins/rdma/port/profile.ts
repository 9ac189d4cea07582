/** What one adapter is configured to be. */
export type Link = 'roce' | 'ib';

/** Ethernet speeds in Gbit/s and their bit of PTYS (include/linux/mlx5/port.h `MLX5E_*_CR*`). */
export const SPEED_BITS = { 10: 12, 25: 27, 40: 6, 50: 30, 100: 20 } as const;
export type Speed = keyof typeof SPEED_BITS;

export interface Profile {
  readonly link: Link;
  /** 48 bits. */
  readonly mac: number;
  readonly guid: bigint;
  /** InfiniBand: the port's local identifier. */
  readonly lid: number;
  /** Ethernet: MTU of the netdev before anybody changes it. */
  readonly mtu: number;
  readonly speedGbps: Speed;
  /** Pages that the adapter asks the driver for at start; it only keeps and returns them. */
  readonly pages: { readonly boot: number; readonly init: number };
}
