import assert from 'node:assert/strict';
import { HBM_BAR, SRAM_BAR } from '../device.js';
import { CFG, CFG_BASE, ENGINES, SRAM_BASE } from '../interconnect/address-map.js';
import { Driver, host, MSI_ADDRESS, pattern, qmanOf, register } from '../test/driver.js';
import { QMAN_ERROR } from './command-processor.js';
import { LOAD_AND_EXE, packet } from './packets.js';

const E_N_SOB = 0x4f2000;

describe('habana: queue manager', () => {
  let driver: Driver;
  beforeEach(() => {
    driver = new Driver();
    driver.enable('DMA0');
  });
  const sob = (index: number) => driver.read(E_N_SOB + 4 * index);
  const status1 = (name: string, cp: number) => driver.read(qmanOf(name) + 0x40 + 4 * cp);

  for (const { name } of ENGINES) {
    it(`executes packets on all four streams of ${name}`, () => {
      for (let stream = 0; stream < 4; stream++) {
        driver.enable(name, stream);
        driver.submit(name, stream, packet.msgShort(1, 4 * stream, 0x80000001), packet.nop());
      }
      driver.bus.run();
      assert.deepEqual([sob(0), sob(1), sob(2), sob(3)], [1, 1, 1, 1]);
    });
  }

  it('wraps its queue', () => {
    for (let job = 0; job < 100; job++) driver.run('DMA0', 0, packet.msgShort(1, 0, 0x80000001));
    assert.equal(sob(0), 100);
    assert.equal(driver.read(qmanOf('DMA0') + 0xb0), 100 % 32);
  });

  it('takes several entries with one doorbell', () => {
    for (let job = 0; job < 10; job++) {
      const { address, lengthBytes } = driver.buffer(packet.msgShort(1, 0, 0x80000001));
      driver.queueBuffer('DMA0', 0, host(address), lengthBytes);
    }
    driver.ring('DMA0', 0);
    driver.bus.run();
    assert.equal(sob(0), 10);
  });

  it('does nothing while it is disabled or stopped', () => {
    driver.write(qmanOf('DMA0') + 4, 0x3fff);
    driver.run('DMA0', 0, packet.msgShort(1, 0, 1));
    assert.equal(sob(0), 0);
    assert.equal((driver.read(qmanOf('DMA0') + 0x38) >>> 16) & 0x3fff, 0x3fff, 'it says that it is stopped');
    driver.write(qmanOf('DMA0') + 4, 0);
    driver.bus.run();
    assert.equal(sob(0), 1);
    driver.write(qmanOf('DMA0'), 0);
    driver.run('DMA0', 0, packet.msgShort(1, 0, 2));
    assert.equal(sob(0), 1);
  });

  it('sends a message of 32 bits to memory, registers and the host', () => {
    driver.run(
      'DMA0',
      0,
      packet.msgLong(host(0x3000000), 0x11223344),
      packet.msgLong(SRAM_BASE + 0x500, 0x55667788),
      packet.msgProt(0x1f000000, 0x99aabbcc),
      packet.msgLong(register(0x300004), 7),
      packet.msgProt(MSI_ADDRESS, 1),
    );
    assert.equal(driver.bus.guestMemory.readU32(0x3000000), 0x11223344);
    assert.equal(driver.fn.read(SRAM_BAR, 0x500), 0x55667788);
    assert.equal(driver.fn.read(HBM_BAR, 0x1f000000), 0x99aabbcc);
    assert.equal(driver.read(0x300004), 7);
    assert.deepEqual(driver.fn.interrupts, [0]);
  });

  it('sends the timestamp instead of a value', () => {
    driver.write(CFG.timestamp, 1);
    driver.bus.clock.advance(1);
    driver.run('DMA0', 0, packet.msgLong(host(0x3000000), 1, 0, 1));
    assert.equal(driver.bus.guestMemory.readU32(0x3000000), 50_000, '1 ms at 50 MHz');
  });

  it('writes registers of its own engine', () => {
    driver.enable('TPC3');
    driver.run('DMA0', 0, packet.wreg32(0x14, 0xabc), packet.wregBulk(0x2c, [1, 2, 3, 4]), packet.wreg32(0x8a08, 5));
    driver.run('TPC3', 0, packet.wreg32(0x6954, 9));
    assert.equal(driver.read(CFG.dmaCores[0]! + 0x14), 0xabc);
    assert.deepEqual(
      [0x2c, 0x30, 0x34, 0x38].map((offset) => driver.read(CFG.dmaCores[0]! + offset)),
      [1, 2, 3, 4],
    );
    assert.equal(driver.read(qmanOf('DMA0') + 0xa08), 5);
    assert.equal(driver.read(CFG.tpcConfig[3]! + 0x954), 9);
  });

  it('executes a long bulk write that spans many fetches', () => {
    const values = Array.from({ length: 1500 }, (_, index) => index);
    driver.enable('MME0');
    driver.run('MME0', 0, packet.wregBulk(0xc000, values), packet.msgShort(1, 0, 3));
    assert.equal(driver.read(0x60000 + 0xc000 + 4 * 1499), 1499);
    assert.equal(sob(0), 3);
  });

  it('waits at a fence until it was fed, and takes from it', () => {
    driver.run(
      'DMA0',
      0,
      packet.fence(2, 3, 2),
      packet.msgShort(1, 0, 1),
      packet.fence(2, 1, 1),
      packet.msgShort(1, 4, 1),
    );
    assert.equal(sob(0), 0);
    assert.equal(driver.read(qmanOf('DMA0') + 0x3a8), (2 << 20) | (1 << 22), 'CP_STS names the fence');
    const rdata = qmanOf('DMA0') + 0x308 + 0x14 * 2;
    driver.write(rdata, 2);
    driver.bus.run();
    assert.equal(sob(0), 0);
    driver.write(rdata, 1);
    driver.bus.run();
    assert.deepEqual([sob(0), sob(1)], [1, 1]);
    assert.equal(driver.read(qmanOf('DMA0') + 0x358 + 0x14 * 2), 0);
  });

  it('clips a fence that counts too far and says so', () => {
    driver.write(qmanOf('DMA0') + 0x308, 0xffffffff);
    driver.run('DMA0', 0, packet.fence(0, 1, 1));
    assert.equal(driver.read(qmanOf('DMA0') + 0x358), 254);
    assert.equal(status1('DMA0', 0), QMAN_ERROR.fenceOverflow(0));
    driver.run('DMA0', 0, packet.fence(1, 0, 5));
    assert.equal(status1('DMA0', 0), QMAN_ERROR.fenceOverflow(0) | QMAN_ERROR.fenceUnderflow(1));
    driver.write(qmanOf('DMA0') + 0x40, 0xffff);
    assert.equal(status1('DMA0', 0), 0);
  });

  it('lets one stream wait while another goes on', () => {
    driver.enable('DMA0', 1);
    driver.run('DMA0', 0, packet.fence(0, 1, 1), packet.msgShort(1, 0, 5));
    driver.run('DMA0', 1, packet.msgLong(register(qmanOf('DMA0') + 0x308), 1), packet.msgShort(1, 4, 6));
    assert.deepEqual([sob(0), sob(1)], [5, 6]);
  });

  it('hands buffers to the lower CP, more of them than it has room for', () => {
    driver.enable('TPC0');
    const lower = driver.buffer(packet.msgShort(1, 0, 0x80000001), packet.msgShort(1, 4, 0x80000002));
    const many = Array.from({ length: 60 }, () => packet.cpDma(host(lower.address), lower.lengthBytes));
    driver.run('TPC0', 0, ...many, packet.msgShort(1, 8, 7));
    assert.deepEqual([sob(0), sob(1), sob(2)], [60, 120, 7]);
  });

  it('takes a buffer from the CQ registers', () => {
    const { address, lengthBytes } = driver.buffer(packet.msgShort(1, 0, 9));
    driver.write(qmanOf('DMA0') + 0x174, host(address) % 2 ** 32);
    driver.write(qmanOf('DMA0') + 0x178, Math.floor(host(address) / 2 ** 32));
    driver.write(qmanOf('DMA0') + 0x17c, lengthBytes);
    driver.bus.run();
    assert.equal(sob(0), 9);
  });

  it('feeds a fence with WAIT', () => {
    driver.run('DMA0', 0, packet.wait(100, 3, 2), packet.fence(3, 2, 2), packet.msgShort(1, 0, 1));
    assert.equal(sob(0), 1);
  });

  it('executes a packet only if its predicate is set', () => {
    const predicates = new Uint8Array(128);
    predicates[4 * 10] = 1;
    driver.bus.guestMemory.write(0x3000000, predicates);
    driver.run('DMA0', 0, packet.msgLong(register(E_N_SOB), 1, 10), packet.wregBulk(0x8a08, [1, 2]));
    assert.equal(sob(0), 0);
    driver.run(
      'DMA0',
      0,
      packet.loadAndExe(host(0x3000000), LOAD_AND_EXE.load),
      packet.msgLong(register(E_N_SOB), 4, 10),
      packet.msgLong(register(E_N_SOB + 4), 4, 11),
      packet.msgLong(register(E_N_SOB + 8), 4, 0),
    );
    assert.deepEqual([sob(0), sob(1), sob(2)], [4, 0, 4]);
  });

  for (const together of [true, false]) {
    it(`executes a packet from the scalar registers, loaded ${together ? 'by the same packet' : 'before'}`, () => {
      driver.bus.guestMemory.write(0x3000000, packet.msgLong(register(E_N_SOB), 6));
      const load = LOAD_AND_EXE.toScalars | LOAD_AND_EXE.load;
      const steps = together
        ? [packet.loadAndExe(host(0x3000000), load | LOAD_AND_EXE.execute)]
        : [packet.loadAndExe(host(0x3000000), load), packet.loadAndExe(0, LOAD_AND_EXE.execute)];
      driver.run('DMA0', 0, ...steps);
      assert.equal(sob(0), 6);
    });
  }

  it('executes the upper pair of scalars as a packet of eight bytes', () => {
    driver.bus.guestMemory.write(0x3000008, packet.msgShort(1, 0, 8));
    const all = LOAD_AND_EXE.toScalars | LOAD_AND_EXE.load | LOAD_AND_EXE.execute | LOAD_AND_EXE.upperPair;
    driver.run('DMA0', 0, packet.loadAndExe(host(0x3000000), all));
    assert.equal(sob(0), 8);
  });

  it('refuses to execute LOAD_AND_EXE from its own scalars', () => {
    const all = LOAD_AND_EXE.toScalars | LOAD_AND_EXE.load | LOAD_AND_EXE.execute;
    driver.bus.guestMemory.write(0x3000000, packet.loadAndExe(host(0x3000000), all));
    driver.run('DMA0', 0, packet.loadAndExe(host(0x3000000), all), packet.msgShort(1, 0, 1));
    assert.equal(status1('DMA0', 0), QMAN_ERROR.undefinedOpcode);
    assert.equal(sob(0), 1);
  });

  describe('errors', () => {
    const MESSAGES_AND_STOP = 0x3fff | (0x3fff << 16);

    for (const [what, cause, packets] of [
      ['an unknown opcode', QMAN_ERROR.undefinedOpcode, [Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0x1e)]],
      ['STOP', QMAN_ERROR.stopped, [packet.stop()]],
      ['a message to nowhere', QMAN_ERROR.messageWrite, [packet.msgLong(0x7f00000000, 1)]],
      ['predicates from nowhere', QMAN_ERROR.cpRead, [packet.loadAndExe(0x7f00000000, LOAD_AND_EXE.load)]],
      ['a register at an odd offset', QMAN_ERROR.registerWrite, [packet.wreg32(0x15, 1)]],
      ['a packet that its buffer cuts off', QMAN_ERROR.undefinedOpcode, [packet.msgLong(0, 1).subarray(0, 12)]],
    ] as const) {
      it(`reports ${what}, and stops if told to`, () => {
        driver.openCpuQueues();
        driver.wantEvents();
        driver.write(qmanOf('DMA0') + 0xcd8, 432);
        driver.write(qmanOf('DMA0') + 0x0c, MESSAGES_AND_STOP);
        driver.run('DMA0', 0, ...packets);
        driver.run('DMA0', 0, packet.msgShort(1, 0, 1));
        assert.equal(status1('DMA0', 0), cause);
        assert.equal(sob(0), 0);
        assert.equal((driver.read(qmanOf('DMA0') + 0x38) >>> 25) & 1, 1, 'CP_IS_STOP');
        assert.deepEqual(
          driver.takeEvents().map(({ type }) => type),
          [583],
        );
      });
    }

    it('reports a queue and a buffer that cannot be read', () => {
      driver.queueBuffer('DMA0', 0, 0x7f00000000, 64);
      driver.ring('DMA0', 0);
      driver.bus.run();
      assert.equal(status1('DMA0', 0), QMAN_ERROR.cqFetch);
      driver.enable('DMA1');
      driver.write(qmanOf('DMA1') + 0x80, 0x7f);
      driver.run('DMA1', 0, packet.nop());
      assert.equal(status1('DMA1', 0), QMAN_ERROR.pqFetch);
    });

    it('reports LIN_DMA where there is no DMA core', () => {
      driver.enable('TPC0');
      driver.run('TPC0', 0, packet.linDma(0, 0, 4));
      assert.equal(status1('TPC0', 0), QMAN_ERROR.undefinedOpcode);
    });

    it('comes to rest whatever bytes it is given', () => {
      for (let seed = 1; seed <= 300; seed++) {
        const bytes = randomBytes(512, seed);
        // Doorbells and registers of its own page are fair game; the device must survive.
        driver.enable('DMA2', seed % 4);
        driver.bus.guestMemory.write(0x3000000, bytes);
        driver.queueBuffer('DMA2', seed % 4, host(0x3000000), bytes.length);
        driver.ring('DMA2', seed % 4);
        driver.bus.run();
      }
      driver.write(CFG.psoc + 0x498, 1);
      driver.enable('DMA2');
      driver.run('DMA2', 0, packet.msgShort(1, 0, 1));
      assert.equal(sob(0), 1);
    });
  });

  describe('with its engine stuck', () => {
    it('is busy until it is let go', () => {
      driver.control('stick', { engine: 'DMA0' });
      driver.run('DMA0', 0, packet.msgShort(1, 0, 1));
      assert.equal(sob(0), 0);
      assert.notEqual(driver.read(qmanOf('DMA0') + 0x38) & 0x3fff, 0x3fff);
      driver.control('stick', { engine: 'DMA0', stuck: 'false' });
      driver.bus.run();
      assert.equal(sob(0), 1);
    });
  });

  it('completes a job of a TPC or MME without computing, and logs it once per job', () => {
    driver.enable('TPC2');
    driver.enable('MME0');
    driver.run(
      'TPC2',
      0,
      packet.wreg32(0x6d80, 0x80000001),
      packet.wreg32(0x6d84, register(E_N_SOB) % 2 ** 32),
      packet.wreg32(0x6938, 1),
      packet.wreg32(0x6938, 1),
    );
    driver.run(
      'MME0',
      0,
      packet.wreg32(0x1dc, register(E_N_SOB + 4) % 2 ** 32),
      packet.wreg32(0x1e4, Math.floor(CFG_BASE / 2 ** 32)),
      packet.wreg32(0x1e8, 0x80000003),
      packet.wreg32(0x280, 1),
    );
    assert.deepEqual([sob(0), sob(1)], [2, 3]);
    const jobs = driver.context.log.records.filter(({ message }) => message.includes('computes nothing'));
    assert.equal(jobs.length, 3);
    assert.equal(driver.read(CFG.tpcConfig[2]! + 0x91c), 0xee);
  });

  it('copies what it should also with hundreds of packets in one buffer', () => {
    const data = pattern(3000);
    driver.bus.guestMemory.write(0x3000000, data);
    const pieces = Array.from({ length: 300 }, (_, index) =>
      packet.linDma(host(0x3000000 + 10 * index), SRAM_BASE + 0x1000 + 10 * index, 10),
    );
    driver.run('DMA0', 0, ...pieces, packet.linDma(SRAM_BASE + 0x1000, host(0x3100000), data.length));
    assert.deepEqual(driver.guestBytes(0x3100000, data.length), data);
  });
});

/** Repeatable noise (xorshift). */
function randomBytes(lengthBytes: number, seed: number): Uint8Array {
  let state = seed * 2654435761;
  return Uint8Array.from({ length: lengthBytes }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state & 0xff;
  });
}
