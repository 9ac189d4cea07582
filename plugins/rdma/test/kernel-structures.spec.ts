import assert from 'node:assert/strict';
import { parseStructures } from './kernel-structures.js';

const HEADER = `
enum { MLX5_SOMETHING = 1 };

struct mlx5_ifc_outer_bits {
	u8         flag[0x1];
	u8         reserved_at_1[0x1f]; /* a comment */

	struct mlx5_ifc_inner_bits inner;

	union {
		struct mlx5_ifc_inner_bits one[2];
		u8         two[0x20];
	};

	union {
		u8         three[0x8];
		struct {
			u8         four[0x8];
			u8         five[0x8];
		};
	} named;

	DECLARE_FLEX_ARRAY(struct mlx5_ifc_inner_bits, tail);
};

struct mlx5_ifc_inner_bits {
	u8         a[0x10];
	u8         b[0x10];
};

union mlx5_ifc_either_bits {
	struct mlx5_ifc_inner_bits inner;
	u8         reserved_at_0[0x80];
};

struct mlx5_ifc_unsized_bits {
	u8         first[0x20];
	u8         list[MLX5_SIZE_OF_ELSEWHERE];
	u8         lost[0x20];
};
`;

describe('structures of the kernel', () => {
  const structures = parseStructures(HEADER);

  it('places members behind each other, and those of unnamed unions in the outer structure', () => {
    assert.deepEqual(Object.fromEntries(structures.get('outer')!.places), {
      flag: [0, 1],
      reserved_at_1: [1, 31],
      inner: [32, 32],
      unnamed_at_64: [64, 64],
      one: [64, 64],
      two: [64, 32],
      named: [128, 16],
      tail: [144, 0],
    });
    assert.equal(structures.get('outer')!.sizeBits, 144);
  });

  it('gives a union the size of its largest member', () => {
    assert.equal(structures.get('either')!.sizeBits, 128);
  });

  it('gives nothing behind a member of unknown size a place', () => {
    const { places, sizeBits } = structures.get('unsized')!;
    assert.deepEqual([...places.keys()], ['first', 'list']);
    assert.equal(sizeBits, undefined);
  });

  it('stops at a line that it does not understand', () => {
    assert.throws(() => parseStructures('struct mlx5_ifc_x_bits {\n\tu32 word;\n};\n'), /u32 word/);
  });
});
