/**
 * What the card's sensors say. Types and attributes are numbers of the kernel's hwmon (include/linux/hwmon.h): with no
 * CPU_BOOT_DEV_STS0_MAP_HWMON_EN the driver passes them through (common/hwmon.c hl_read).
 */
import type { Clock } from 'ghostbus';

/** enum hwmon_sensor_types. */
const SENSOR_TYPE = { temperature: 1, voltage: 2, current: 3, power: 4 } as const;
export type SensorKind = keyof typeof SENSOR_TYPE;

/**
 * Attributes by kind; enum hwmon_temp_attributes, hwmon_in_attributes, hwmon_curr_attributes, hwmon_power_attributes.
 */
const ATTRIBUTES: Readonly<Record<SensorKind, Readonly<Record<string, number>>>> = {
  temperature: { input: 1, max: 7, crit: 9 },
  voltage: { input: 1, min: 2, max: 3 },
  current: { input: 1, min: 2, max: 3 },
  power: { input: 9 },
};

interface Sensor {
  readonly kind: SensorKind;
  /** Millidegrees Celsius, millivolts, milliamperes, microwatts; `input` is what it measures now. */
  readonly values: Record<string, number>;
}

interface SensorOptions {
  readonly temperatureCelsius: number;
  readonly powerWatts: number;
}

/** Sensors in the order in which the firmware lists them. */
export class Sensors {
  readonly list: readonly Sensor[];
  #clock: Clock | undefined;
  /** Up to `#countedUntilNs`. */
  #energyMillijoules = 0;
  #countedUntilNs = 0n;

  constructor(options: SensorOptions) {
    const input = 1000 * options.temperatureCelsius;
    const temperature = (above: number): Sensor => ({
      kind: 'temperature',
      values: { input: input + above, max: 95_000, crit: 105_000 },
    });
    this.list = [
      temperature(0),
      temperature(2_000),
      { kind: 'voltage', values: { input: 12_000, min: 10_800, max: 13_200 } },
      { kind: 'voltage', values: { input: 850, min: 600, max: 1_000 } },
      { kind: 'current', values: { input: 5_000, min: 0, max: 35_000 } },
      { kind: 'power', values: { input: 1_000_000 * options.powerWatts } },
    ];
  }

  /** Power-on: what the sensors measure stays, energy is counted anew. */
  countEnergyFrom(clock: Clock): void {
    this.#clock = clock;
    this.#energyMillijoules = 0;
    this.#countedUntilNs = clock.nowNs();
  }

  /** What the card has used since power-on, by what the power sensor measured meanwhile. */
  energyMillijoules(): number {
    const nowNs = this.#clock?.nowNs() ?? 0n;
    const microwatts = this.list.find(({ kind }) => kind === 'power')?.values.input ?? 0;
    this.#energyMillijoules += (microwatts / 1e3) * (Number(nowNs - this.#countedUntilNs) / 1e9);
    this.#countedUntilNs = nowNs;
    return this.#energyMillijoules;
  }

  /** hwmon type and bits of the attributes that exist, as struct cpucp_sensor wants them. */
  describe(): { type: number; flags: number }[] {
    return this.list.map(({ kind, values }) => ({
      type: SENSOR_TYPE[kind],
      flags: Object.keys(values).reduce((flags, name) => flags | (1 << ATTRIBUTES[kind][name]!), 0),
    }));
  }

  /** Value of an attribute of the `channel`-th sensor of a kind; undefined if there is no such thing. */
  read(kind: SensorKind, channel: number, attribute: number): number | undefined {
    const sensor = this.list.filter((candidate) => candidate.kind === kind)[channel];
    const name = Object.keys(ATTRIBUTES[kind]).find((candidate) => ATTRIBUTES[kind][candidate] === attribute);
    return name === undefined ? undefined : sensor?.values[name];
  }

  /** Sets what a sensor measures. @throws Error that names the kinds and channels there are */
  set(kind: string, channel: number, value: number): void {
    const sensor = this.list.filter((candidate) => candidate.kind === kind)[channel];
    if (sensor === undefined) {
      const known = Object.keys(ATTRIBUTES)
        .map((name) => `${name} 0 to ${this.list.filter((candidate) => candidate.kind === name).length - 1}`)
        .join(', ');
      throw new Error(`there is no sensor ${kind} ${channel}; known: ${known}`);
    }
    this.energyMillijoules();
    sensor.values.input = value;
  }
}
