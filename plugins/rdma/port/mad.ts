/** MAD_IFC: management datagrams to the adapter itself. Only performance management is answered. */
import { CommandError, type CommandTable, STATUS } from '../firmware/command.js';
import { madIfcIn } from '../layouts/commands.js';
import { bytesOf, subview } from '../layouts/layout.js';
import type { Counters } from './counters.js';

const MAD_BYTES = 256;
const MAD_START = 0x10;
/** IB volume 1 §13.4.2: offsets of the common header. */
const HEADER = { CLASS: 1, METHOD: 3, STATUS: 4, ATTRIBUTE: 16 } as const;
const METHOD_GET_RESPONSE = 0x81;
/** IB volume 1 §16.1: performance management and its attributes. */
const CLASS_PERFORMANCE = 4;
const ATTRIBUTE = { CLASS_PORT_INFO: 0x0001, PORT_COUNTERS: 0x0012, PORT_COUNTERS_EXTENDED: 0x001d } as const;
const DATA_START = 64;
/** ClassPortInfo.CapabilityMask: PortCountersExtended is there (include/rdma/ib_pma.h `IB_PMA_CLASS_CAP_EXT_WIDTH`). */
const EXTENDED_WIDTH = 0x0200;
/** Status 3 << 2: method and attribute are not supported together (IB volume 1 §13.4.7). */
const STATUS_UNSUPPORTED = 0x000c;

export function madCommands(counters: Counters): CommandTable {
  return {
    MAD_IFC: (call) => {
      const answer = subview(call.output, MAD_START, MAD_BYTES);
      bytesOf(answer).set(bytesOf(madIfcIn.part(call.input, 'mad')).subarray(0, MAD_BYTES));
      if (answer.getUint8(HEADER.CLASS) !== CLASS_PERFORMANCE) {
        throw new CommandError(STATUS.BAD_PARAMETER, `a MAD of class ${answer.getUint8(HEADER.CLASS)}`);
      }
      answer.setUint8(HEADER.METHOD, METHOD_GET_RESPONSE);
      fillAttribute(answer, counters);
    },
  };
}

function fillAttribute(answer: DataView, counters: Counters): void {
  bytesOf(subview(answer, DATA_START)).fill(0);
  switch (answer.getUint16(HEADER.ATTRIBUTE)) {
    case ATTRIBUTE.CLASS_PORT_INFO:
      answer.setUint8(DATA_START, 1);
      answer.setUint8(DATA_START + 1, 1);
      answer.setUint16(DATA_START + 2, EXTENDED_WIDTH);
      return;
    case ATTRIBUTE.PORT_COUNTERS:
      return;
    case ATTRIBUTE.PORT_COUNTERS_EXTENDED:
      fillExtendedCounters(subview(answer, DATA_START), counters);
      return;
    default:
      answer.setUint16(HEADER.STATUS, STATUS_UNSUPPORTED);
  }
}

/** include/rdma/ib_pma.h `struct ib_pma_portcounters_ext`; data is counted in dwords. */
function fillExtendedCounters(data: DataView, counters: Counters): void {
  const sent = counters.traffic('transmitted_ib_unicast');
  const received = counters.traffic('received_ib_unicast');
  const sentGroup = counters.traffic('transmitted_ib_multicast');
  const receivedGroup = counters.traffic('received_ib_multicast');
  const values = [
    Math.floor((sent.octets + sentGroup.octets) / 4),
    Math.floor((received.octets + receivedGroup.octets) / 4),
    sent.packets + sentGroup.packets,
    received.packets + receivedGroup.packets,
    sent.packets,
    received.packets,
    sentGroup.packets,
    receivedGroup.packets,
  ];
  data.setUint8(1, 1);
  values.forEach((value, index) => {
    data.setBigUint64(8 + 8 * index, BigInt(value));
  });
}
