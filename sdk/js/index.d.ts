// The types of the SDK, for TypeScript and editors.

export type Bytes = Uint8Array;
/** Bytes, text (as UTF-8), or null. */
export type Content = Uint8Array | string | null;
/** The settings of plugin.toml and pipeline.toml, as text. */
export type Config = { [name: string]: string };

export interface Slices {
  offsets: ArrayLike<number>;
  lengths: ArrayLike<number>;
}

export interface Column {
  data: Uint8Array;
  fields: Slices;
}

export interface Batch {
  topic: string;
  partition: number;
  data: Uint8Array;
  offsets: ArrayLike<number>;
  keys: Slices;
  values: Slices;
  timestamps: ArrayLike<number>;
  headers: { counts: ArrayLike<number>; names: Slices; values: Slices } | null;
}

export interface Output {
  source: ArrayLike<number>;
  data: Uint8Array;
  keys?: Slices | null;
  values?: Slices | null;
  timestamps?: ArrayLike<number> | null;
  headers?: { counts: ArrayLike<number>; names: Slices; values: Slices } | null;
  route?: ArrayLike<number> | null;
}

export interface Record {
  readonly index: number;
  readonly key: Bytes | null;
  readonly value: Bytes | null;
  readonly text: string | null;
  readonly timestamp: number;
  readonly offset: number;
  readonly topic: string;
  readonly partition: number;
  readonly headers: [string, Bytes | null][];
  header(name: string): Bytes | null;
}

export interface Change {
  key?: Content;
  value?: Content;
  timestamp?: number;
  headers?: [string, Content][];
  to?: number;
}

export class Out {
  constructor(batch: Batch);
  keep(record: Record): void;
  emit(record: Record, change?: Change): void;
  finish(): Output;
}

export interface Page {
  reverse?: boolean;
  limit?: number;
}

export class Reads {
  key(store: string, key: Bytes | string): void;
}

export class Stores {
  get(store: string, key: Bytes | string): Bytes | null;
  put(store: string, key: Bytes | string, value: Content): void;
  delete(store: string, key: Bytes | string): void;
  readAhead(reads: Reads): void;
  range(
    store: string,
    range?: Page & { start?: Bytes | string; end?: Content },
  ): { entries: [Bytes, Bytes][]; more: boolean };
  prefix(store: string, prefix: Bytes | string, page?: Page): { entries: [Bytes, Bytes][]; more: boolean };
  deleteRange(store: string, range?: { start?: Bytes | string; end?: Content; limit?: number }): boolean;
  window(store: string, key: Bytes | string, start: number): Bytes | null;
  windows(store: string, windows: [Bytes | string, number][]): (Bytes | null)[];
  putWindow(store: string, key: Bytes | string, start: number, value: Content): void;
  deleteWindow(store: string, key: Bytes | string, start: number): void;
  windowsOf(
    store: string,
    key: Bytes | string,
    first: number,
    last: number,
    page?: Page,
  ): { windows: [number, Bytes][]; more: boolean };
}

export type TimerDomain = "stream-time" | "wall-clock";
export const STREAM_TIME: TimerDomain;
export const WALL_CLOCK: TimerDomain;

export interface Timer {
  domain: TimerDomain;
  name: Bytes;
  at: number;
}

export class Timers {
  set(domain: TimerDomain, name: Bytes | string, at: number): void;
  cancel(domain: TimerDomain, name: Bytes | string): void;
  clock(): number;
}

export class Emit {
  record(
    key: Content,
    value: Content,
    timestamp: number,
    more?: { headers?: [string, Content][]; to?: number },
  ): void;
}

export class Reject extends Error {}
export class Retry extends Error {}
export class Fatal extends Error {}

export interface Transform {
  configure?(config: Config): void;
  record?(record: Record, out: Out): void;
  batch?(batch: Batch): Output;
}

export interface StateTransform {
  configure?(config: Config): void;
  reads?(record: Record, reads: Reads): void;
  record?(record: Record, stores: Stores, out: Out): void;
  batch?(batch: Batch, stores: Stores): Output;
}

export interface TimerTransform {
  configure?(config: Config): void;
  reads?(record: Record, reads: Reads): void;
  record(record: Record, stores: Stores, timers: Timers, out: Out): void;
  fire(timer: Timer, stores: Stores, timers: Timers, emit: Emit): void;
}

export interface Aggregator {
  configure?(config: Config): void;
  create?(): Bytes | string;
  add(value: Bytes, record: Record): Bytes | string;
  subtract?(value: Bytes, record: Record): Bytes | string;
  merge?(value: Bytes, other: Bytes): Bytes | string;
}

export interface Partitioner {
  configure?(config: Config): void;
  partition?(record: Record, partitions: number): number;
  batch?(batch: Batch, partitions: number): ArrayLike<number>;
}

export function transform<T extends Transform>(
  plugin: T & ThisType<T>,
): { configure(config: [string, string][]): void; process(batch: Batch): Output };
export function stateTransform<T extends StateTransform>(
  plugin: T & ThisType<T>,
): { configure(config: [string, string][]): void; process(batch: Batch): Output };
export function timerTransform<T extends TimerTransform>(
  plugin: T & ThisType<T>,
): {
  configure(config: [string, string][]): void;
  process(batch: Batch): Output;
  fire(domain: TimerDomain, names: Column, at: ArrayLike<bigint>): Output;
};
export function aggregator<T extends Aggregator>(
  plugin: T & ThisType<T>,
): {
  configure(config: [string, string][]): void;
  create(): Bytes;
  add(values: Column, batch: Batch, groups: ArrayLike<number>): Column;
  subtract(values: Column, batch: Batch, groups: ArrayLike<number>): Column;
  merge(left: Column, right: Column): Column;
};
export function partitioner<T extends Partitioner>(
  plugin: T & ThisType<T>,
): { configure(config: [string, string][]): void; partition(batch: Batch, partitions: number): Uint32Array };
export function records(batch: Batch): Iterable<Record>;
export function partitionOfKey(key: Bytes | null, partitions: number): number;
export function decode(bytes: Bytes): string;
export function encode(text: string): Bytes;
export const log: { [level in "debug" | "info" | "warn" | "error"]: (text: string) => void };
