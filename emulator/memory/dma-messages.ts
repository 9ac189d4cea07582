/**
 * DMA by messages (DMA_READ, DMA_WRITE), the fallback for addresses without a file. Synchronous: while a reply is
 * awaited the server goes on serving this client's requests. Throws an error with `errno` when refused, timed out,
 * disconnected, or called while one of the client's requests is being answered (EDEADLK).
 */
export interface DmaMessageChannel {
  dmaRead(address: number, target: Uint8Array): void;
  dmaWrite(address: number, source: Uint8Array): void;
}
