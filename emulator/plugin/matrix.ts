/**
 * What a device brings to the dma-buf matrix, as data: how it takes part in the matrix's machine, which of its drivers
 * export and import, and how these behave. `ghostbus matrix` combines every exporter with every importer; its rules
 * foresee what becomes of a pair from the properties here and from those of the machine and the kernel. No rule knows a
 * device by name, so a property that is declared wrongly shows as cells that are not as expected.
 */
import type { GuestKernel } from './guest.js';

/** A kernel, as far as a driver's presence and behaviour depend on it. */
export interface KernelFacts extends GuestKernel {
  /** Whether an option, named without `CONFIG_`, is built in or a module. */
  has(option: string): boolean;
  isAtLeast(major: number, minor: number): boolean;
  /** Modules that are not the kernel's own can be built for it here. */
  readonly buildsModules: boolean;
}

/** Begins a reason: what it means that a kernel lacks CONFIG_PCI_P2PDMA. */
export const WITHOUT_P2PDMA =
  'the kernel is built without CONFIG_PCI_P2PDMA: pci_p2pdma_distance is a stub that answers -1 ' +
  '(include/linux/pci-p2pdma.h)';

/** Where things are in the guest. */
export interface GuestPlaces {
  /** PCI address of a function, as `0000:01:00.0`. @throws Error when there is no function of that name */
  address(functionName: string): string;
  /** What the set-up said of `key` by `note KEY VALUE`. @throws Error when it said nothing */
  noted(key: string): string;
}

/**
 * A part of the guest's kernel that exports or imports. Its scripts run under `sh -eu` once, before the first cell:
 * those that load, of all drivers, then those that prepare. Beside the guest's commands they have `until_true
 * 'CONDITION'`, which fails after two minutes, and `note KEY VALUE`.
 */
export interface MatrixDriver {
  readonly name: string;
  /** Kernel options, without `CONFIG_`, without which it does not work. */
  readonly needs: readonly string[];
  /** Why it cannot be used on a kernel that has these options; undefined: it can. */
  absence?(kernel: KernelFacts): string | undefined;
  /** Why it can be used only in a machine with an IOMMU; it is not set up in others. */
  readonly needsIommu?: string;
  /** Begins to load it. */
  readonly load?: string;
  /** Waits until it has its functions, and makes them ready to work. */
  prepare?(places: GuestPlaces): string;
}

/** The errno with which somebody refuses, and what in the kernel's source says so. */
export interface Refusal {
  /** As `EINVAL`. */
  readonly errno: string;
  readonly because: string;
}

/** What is there for an importer that pins and attaches no PCI device (iommufd). */
export type WithoutDevice =
  /** The exporter says where its memory lies on the bus. */
  | { readonly kind: 'physical-range'; readonly because: string }
  /** The exporter refuses to pin. */
  | ({ readonly kind: 'refused' } & Refusal)
  /** It lets itself be pinned, and has no physical range to give. */
  | { readonly kind: 'no-range'; readonly because: string };

interface AnyExporter {
  /** As in `--exporter`: lower-case letters, digits and dashes. */
  readonly name: string;
  readonly title: string;
  readonly driver: MatrixDriver;
  /**
   * Where behind the dma-buf a doorbell lies; what else is on that page of registers is not touched. Default: it is
   * memory.
   */
  readonly doorbell?: { readonly offset: number; readonly bytes: number };
  /** The memory lives as long as the dma-buf; otherwise it is revoked when the exporter closes its device. */
  readonly outlives: boolean;
  /** No larger dma-buf is asked of it. Default: as large as the matrix has them, 64 MiB. */
  readonly largestBytes?: number;
  /** The program and its arguments; those of the importer are put behind them. */
  command(places: GuestPlaces, exportBytes: number): readonly string[];
  /** How a kernel that has the driver refuses the export itself; undefined: it does not. */
  refusedAtExport?(kernel: KernelFacts): Refusal | undefined;
  /** Why nothing can be exported behind an IOMMU that translates. */
  readonly notBehindTranslation?: string;
  /** Default: it is pinned, and there is nothing to say about it. */
  readonly withoutDevice?: WithoutDevice;
}

/** Memory or registers of a function. */
export interface FunctionExporter extends AnyExporter {
  /** Whose, as `foo0`. */
  readonly functionName: string;
  /**
   * What the driver does when the importer cannot reach the function: moves the buffer to system memory, or refuses to
   * map it.
   */
  readonly withoutRoute:
    | { readonly kind: 'staged'; readonly because: string }
    | ({ readonly kind: 'refused' } & Refusal);
  /** It asks pci_p2pdma_distance to say in the kernel's log why there is no route. */
  readonly reportsRoute?: boolean;
}

/** The guest's own memory. */
export interface GuestMemoryExporter extends AnyExporter {
  readonly functionName?: undefined;
}

export type Exporter = FunctionExporter | GuestMemoryExporter;

/** One transfer of an importer's program with all of its part of the dma-buf, or with single words of 8 bytes. */
export type Transfer = readonly [name: string, kind: 'read' | 'write' | 'read-word' | 'write-word' | 'atomic'];

/** Which part of an export an importer uses, and what is taken down first. */
export interface ImportTask {
  readonly exportBytes: number;
  readonly offset: number;
  readonly bytes: number;
  /** `ring`: nothing but a doorbell is touched. */
  readonly teardown: 'importer-first' | 'exporter-first' | 'fd-first' | 'ring';
}

/** OFFSET BYTES ORDER, as parse_task of dmabuf-kit.h takes them. */
export function taskArguments({ offset, bytes, teardown }: ImportTask): string[] {
  return [String(offset), String(bytes), teardown];
}

export interface Importer {
  /** As in `--importer`: lower-case letters, digits and dashes. */
  readonly name: string;
  readonly title: string;
  readonly driver: MatrixDriver;
  /** The function that accesses the dma-buf. */
  readonly functionName: string;
  /** The program and its arguments. */
  command(places: GuestPlaces, task: ImportTask): readonly string[];
  /**
   * How often the program reads all of its part of the dma-buf, writes it, and what it does to single words, in its
   * order. With `exporter-first`, where the memory outlives its exporter, it reads all once more: a step `read`. With
   * `ring`, there is but one, `ring`.
   */
  readonly transfers: readonly Transfer[];
  /**
   * At most so many bytes of rings, indirect buffers, fences, completion and event entries go to and from guest memory.
   */
  readonly ringBytes: number;
  /**
   * What the function copies from and to: memory of its own or of another function, or the guest's, where the payload
   * is then counted.
   */
  readonly ownEnd: 'function' | 'guest-memory';
  /**
   * What the program calls the step in which the driver attaches the dma-buf, and the one in which it has it mapped.
   */
  readonly steps: { readonly attach: string; readonly map: string };
  /** It refuses, in its mapping step, what does not begin at a multiple of so many bytes of the export. */
  readonly offsetAlignment?: { readonly bytes: number } & Refusal;
  /** It refuses every dma-buf in its mapping step: a path of the driver that wants what no machine here has. */
  readonly refusesAll?: Refusal;
  /**
   * It pins and attaches no PCI device, gets an address space of its own, and so refuses in its mapping step what has
   * no physical range.
   */
  readonly withoutDevice?: Refusal;
  /** Why it cannot write to a doorbell. */
  readonly ringsNoDoorbell?: string;
}

/** What a device brings to the matrix. */
export interface PluginMatrix {
  /** The options of each instance in the matrix's machine. Functions are named as in any machine: `foo0`, `foo1`. */
  readonly instances: readonly Readonly<Record<string, string>>[];
  /**
   * Build the modules whose purpose is `driver` into the guest. Default true; false where another driver takes the
   * functions.
   */
  readonly ownDriver?: boolean;
  readonly exporters?: readonly Exporter[];
  readonly importers?: readonly Importer[];
}
