// Where Kafka's Java client puts a key: murmur2. Null is taken as an empty key.
export function partitionOfKey(key, partitions) {
  return (murmur2(key ?? new Uint8Array(0)) & 0x7fffffff) % partitions;
}

const M = 0x5bd1e995;

// Kafka's hash, with the seed that Kafka uses.
function murmur2(key) {
  let hash = 0x9747b28c ^ key.length;
  const whole = key.length - (key.length % 4);
  for (let at = 0; at < whole; at += 4) {
    const word = Math.imul(key[at] | (key[at + 1] << 8) | (key[at + 2] << 16) | (key[at + 3] << 24), M);
    hash = Math.imul(hash, M) ^ Math.imul(word ^ (word >>> 24), M);
  }
  if (whole < key.length) {
    for (let i = whole; i < key.length; i++) hash ^= key[i] << (8 * (i - whole));
    hash = Math.imul(hash, M);
  }
  hash = Math.imul(hash ^ (hash >>> 13), M);
  return hash ^ (hash >>> 15);
}
