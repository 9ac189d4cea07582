import assert from 'node:assert/strict';
import { ImageBuilder } from './image-builder.js';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe('kit: image builder', () => {
  it('puts values of every width in the order of bytes it was told', () => {
    const put = (image: ImageBuilder) =>
      image.u8(0, 1, 2).u16(2, 0x304).u32(4, 0x5060708).u64(8, 0x90a0b0c0d0e0f10n).bytes;
    assert.equal(hex(put(new ImageBuilder({ sizeBytes: 16 }))), '0102040308070605100f0e0d0c0b0a09');
    assert.equal(hex(put(new ImageBuilder({ sizeBytes: 16, byteOrder: 'big' }))), '0102030405060708090a0b0c0d0e0f10');
  });

  it('keeps its size and its padding', () => {
    const image = new ImageBuilder({ sizeBytes: 6, padding: 0xff });
    assert.equal(hex(image.u16(1, 0).bytes), 'ff0000ffffff');
    assert.throws(() => image.u32(4, 0), /4 bytes at 4 do not lie in an image of 6 bytes/);
    assert.throws(() => image.u8(-1, 0), /1 bytes at -1/);
  });

  it('grows without a size, and aligns what is reserved', () => {
    const image = new ImageBuilder({ padding: 0xee });
    image.u8(0, 1);
    assert.equal(image.reserve(2, 4), 4);
    assert.equal(image.append(Uint8Array.of(7, 8)), 6);
    assert.equal(hex(image.bytes), '01eeeeeeeeee0708');
    assert.equal(image.reserve(5000), 8);
    assert.equal(image.bytes.length, 5008);
    assert.equal(image.bytes[5007], 0xee);
    assert.equal(image.endBytes, 5008);
  });

  it('fills in a table of offsets once they are known', () => {
    const image = new ImageBuilder();
    const parts = ['first', 'second'];
    const table = image.reserve(4 + 2 * parts.length);
    image.text(table, 'TABL');
    parts.forEach((part, index) => {
      image.u16(table + 4 + 2 * index, image.append(Buffer.from(part), 4));
    });
    assert.equal(hex(image.bytes.subarray(0, 8)), `${hex(Buffer.from('TABL'))}08001000`);
    assert.equal(Buffer.from(image.bytes.subarray(16)).toString(), 'second');
  });

  it('puts text bare or as a field that ends in a zero', () => {
    const image = new ImageBuilder({ sizeBytes: 12, padding: 0xff });
    image.text(0, 'ab').text(2, 'cd', 4).text(6, 'efgh', 4);
    assert.equal(hex(image.bytes), '61626364000065666700ffff');
  });

  it('forms checksums', () => {
    const image = new ImageBuilder({ sizeBytes: 4 }).u8(0, 0xff, 0xff, 1);
    assert.equal(image.sum16(0, 3), 0x1ff);
    image.balance8(3, 0, 4);
    assert.equal(image.bytes[3], 1);
    assert.equal(image.sum16(0, 4) & 0xff, 0);
    assert.equal(image.balance8(3, 0, 4).bytes[3], 1);
  });
});
