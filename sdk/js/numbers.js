// componentize-qjs 0.4.5 gives numbers of 32 bits with a sign (null's length is -1), and takes those above 2^31 as 2^31 - 1
// unless they are in a Uint32Array. So all lists of them are one here.

const unsigned = (list) => (list instanceof Uint32Array ? list : new Uint32Array(list));

export const slices = (column) => column && { offsets: unsigned(column.offsets), lengths: unsigned(column.lengths) };

const headers = (columns) =>
  columns && { counts: unsigned(columns.counts), names: slices(columns.names), values: slices(columns.values) };

// Times are BigInt64Array: what a plugin says may be a number.
const times = (list) => list && (list instanceof BigInt64Array ? list : BigInt64Array.from(list, BigInt));

// A batch as the host gives it.
export function unsignedBatch(batch) {
  return {
    ...batch,
    partition: batch.partition >>> 0,
    keys: slices(batch.keys),
    values: slices(batch.values),
    headers: headers(batch.headers),
  };
}

// An answer as the host takes it.
export function unsignedOutput(output) {
  return {
    ...output,
    source: unsigned(output.source),
    keys: slices(output.keys),
    values: slices(output.values),
    timestamps: times(output.timestamps),
    headers: headers(output.headers),
    route: output.route && unsigned(output.route),
  };
}

export { unsigned };
