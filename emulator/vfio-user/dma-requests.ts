/** DMA_MAP and DMA_UNMAP: what the message alone shows to be wrong; range, alignment and overlap are the device's. */
import { ERRNO, SystemError } from '../host/index.js';
import type { VfioDevice } from './device.js';
import type { Reply } from './device-info.js';
import {
  COMMAND,
  DMA_MAP,
  DMA_MAP_FLAG,
  DMA_UNMAP,
  DMA_UNMAP_FLAG,
  EMPTY,
  FLAG,
  MalformedMessage,
  payloadBytes,
} from './messages.js';

/** libvfio-user refuses an announced payload above its message limit. */
const MAX_ARGSZ = 1024 * 1024;
const KNOWN_MAP_FLAGS = DMA_MAP_FLAG.READ | DMA_MAP_FLAG.WRITE | DMA_MAP_FLAG.MMAP | DMA_MAP_FLAG.FILE_IO;
const NEEDS_FILE = DMA_MAP_FLAG.MMAP | DMA_MAP_FLAG.FILE_IO;

type MapFields = ReturnType<typeof DMA_MAP.decode>;

function checkMap(map: MapFields, fdCount: number): void {
  if (map.argsz < payloadBytes(DMA_MAP)) throw new MalformedMessage(`argsz ${map.argsz}`);
  if ((map.flags & ~KNOWN_MAP_FLAGS) !== 0) throw new MalformedMessage(`flags 0x${map.flags.toString(16)}`);
  if (fdCount > 1) throw new MalformedMessage(`${fdCount} descriptors for one map`);
  if (fdCount === 0 && (map.flags & NEEDS_FILE) !== 0) throw new MalformedMessage('a way to use a file, but no file');
  if (map.sizeBytes === 0) throw new MalformedMessage('size 0');
  // A file offset with its size stays below 2^53 when both are; an address above is refused here, at the edge.
  if (!Number.isSafeInteger(map.address + map.sizeBytes) || !Number.isSafeInteger(map.offset + map.sizeBytes)) {
    throw new MalformedMessage(`range 0x${map.address.toString(16)} + 0x${map.sizeBytes.toString(16)} ends above 2^53`);
  }
}

/** `fds`: the message's; the one that is used is taken out. */
export function answerDmaMap(device: VfioDevice, message: Buffer, fds: number[]): Reply {
  const map = DMA_MAP.decode(message);
  checkMap(map, fds.length);
  const { address, sizeBytes, offset } = map;
  const readable = (map.flags & DMA_MAP_FLAG.READ) !== 0;
  const writable = (map.flags & DMA_MAP_FLAG.WRITE) !== 0;
  device.dmaMap({ address, sizeBytes, offset, readable, writable }, fds.pop());
  return { bytes: EMPTY.encode(0, COMMAND.DMA_MAP, {}, { flags: FLAG.REPLY }) };
}

export function answerDmaUnmap(device: VfioDevice, message: Buffer): Reply {
  const request = DMA_UNMAP.decode(message);
  const { argsz, flags, address, sizeBytes } = request;
  if (argsz < payloadBytes(DMA_UNMAP) || argsz > MAX_ARGSZ) throw new MalformedMessage(`argsz ${argsz}`);
  if ((flags & ~DMA_UNMAP_FLAG.ALL) !== 0) {
    throw new MalformedMessage(`flags 0x${flags.toString(16)}; there is no dirty-page tracking`);
  }
  if (flags === DMA_UNMAP_FLAG.ALL) {
    if (address !== 0 || sizeBytes !== 0) throw new MalformedMessage('unmapping everything takes no range');
    device.dmaUnmapAll();
  } else {
    if (!Number.isSafeInteger(address + sizeBytes)) {
      throw new SystemError(`DMA unmap at 0x${address.toString(16)}`, ERRNO.ENOENT, 'nothing is mapped above 2^53');
    }
    device.dmaUnmap(address, sizeBytes);
  }
  return { bytes: DMA_UNMAP.encode(0, COMMAND.DMA_UNMAP, request, { flags: FLAG.REPLY }) };
}
