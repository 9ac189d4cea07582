/** The host's system calls, typed. No other folder imports koffi. */

export { ERRNO, errnoName, SystemError } from './errors.js';
export { createEventfd, drainEventfd, signalEventfd } from './eventfd.js';
export { closeFd, duplicateFd, type FileIdentity, fileIdentity, openFdCount, setNonBlocking } from './fd.js';
export { MappedFile, Mapping, mapShared, WINDOW_BYTES, WINDOW_LIMIT_BYTES } from './mapping.js';
export { allocatedBytes, createMemfd, punchHole, sealAgainstShrinking } from './memfd.js';
export { Poller } from './poller.js';
export {
  acceptConnection,
  connectUnix,
  listenUnix,
  pendingBytes,
  RECEIVE_FD_LIMIT,
  type Received,
  recvWithFds,
  SEND_FD_LIMIT,
  sendWithFds,
  socketPair,
} from './socket.js';
export { timeStampCounterKHz } from './time-stamp-counter.js';
