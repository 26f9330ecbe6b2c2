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

export class Reject extends Error {}
export class Retry extends Error {}
export class Fatal extends Error {}

export interface Transform {
  configure?(config: Config): void;
  record?(record: Record, out: Out): void;
  batch?(batch: Batch): Output;
}

export interface Partitioner {
  configure?(config: Config): void;
  partition?(record: Record, partitions: number): number;
  batch?(batch: Batch, partitions: number): ArrayLike<number>;
}

export function transform<T extends Transform>(
  plugin: T & ThisType<T>,
): { configure(config: [string, string][]): void; process(batch: Batch): Output };
export function partitioner<T extends Partitioner>(
  plugin: T & ThisType<T>,
): { configure(config: [string, string][]): void; partition(batch: Batch, partitions: number): Uint32Array };
export function records(batch: Batch): Iterable<Record>;
export function partitionOfKey(key: Bytes | null, partitions: number): number;
export function decode(bytes: Bytes): string;
export function encode(text: string): Bytes;
export const log: { [level in "debug" | "info" | "warn" | "error"]: (text: string) => void };
