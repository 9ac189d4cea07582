import type { Duplex } from 'node:stream';

/** Connects a guest's terminal with ours, in raw mode if ours is a terminal. Returns what undoes it. */
export function joinTerminal(guest: Duplex, input: NodeJS.ReadStream, output: NodeJS.WriteStream): () => void {
  const toGuest = (chunk: Buffer) => guest.write(chunk);
  const toUs = (chunk: Buffer) => output.write(chunk);
  const raw = input.isTTY === true;
  if (raw) input.setRawMode(true);
  input.on('data', toGuest);
  input.resume();
  guest.on('data', toUs);
  return () => {
    input.off('data', toGuest);
    input.pause();
    guest.off('data', toUs);
    if (raw) input.setRawMode(false);
  };
}
