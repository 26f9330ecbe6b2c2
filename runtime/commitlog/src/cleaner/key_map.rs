//! Where the newest record of each key is, in bounded memory: 24 bytes a key, whatever the keys' length. Kafka calls it
//! the offset map and compares MD5 sums. Here it is a keyed 128-bit SipHash: whoever does not know the key of this
//! process cannot make two record keys that the cleaner takes for one.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// Bytes of an entry.
const SLOT_BYTES: usize = size_of::<Slot>();
/// Entries are looked up by linear probing, which stays short while at least a tenth of the places is free. Kafka's
/// `log.cleaner.io.buffer.load.factor` has the same default.
const LOAD_FACTOR: (usize, usize) = (9, 10);

/// The newest offset of each key of the part of a log that is being cleaned.
pub(crate) struct KeyOffsets {
    slots: Vec<Slot>,
    used: usize,
    hash_key: [u8; 16],
    latest: i64,
}

/// Zeros are an empty place.
#[derive(Clone, Copy, Default)]
struct Slot {
    hash: [u64; 2],
    /// The offset plus one.
    offset: u64,
}

/// Another key does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl KeyOffsets {
    /// A map that takes at most `bytes` of memory, and no more than `keys` keys need. The kernel gives the memory as it is
    /// used. `hash_key` is a secret of the process.
    pub(crate) fn new(bytes: usize, keys: usize, hash_key: [u8; 16]) -> KeyOffsets {
        let (free, of) = LOAD_FACTOR;
        let wanted = keys.saturating_mul(of) / free + 1;
        let slots = (bytes / SLOT_BYTES).min(wanted).max(2);
        KeyOffsets { slots: vec![Slot::default(); slots], used: 0, hash_key, latest: -1 }
    }

    /// The last offset that was looked at, -1 before the first: records behind it are not known to the map.
    pub(crate) fn latest(&self) -> i64 {
        self.latest
    }

    /// Keys in the map.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Says that everything up to `offset` was looked at.
    pub(crate) fn seen_up_to(&mut self, offset: i64) {
        self.latest = self.latest.max(offset);
    }

    /// Says that the newest record of `key` so far is at `offset`. Offsets only rise.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> Result<(), Full> {
        let hash = self.hash(key);
        let (free, of) = LOAD_FACTOR;
        let full = self.used >= self.slots.len() * free / of;
        let at = self.place(hash);
        let slot = &mut self.slots[at];
        if slot.offset == 0 {
            if full {
                return Err(Full);
            }
            self.used += 1;
        }
        *slot = Slot { hash, offset: offset.unsigned_abs() + 1 };
        Ok(())
    }

    /// Where the newest record of `key` is, if it is in the map.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let slot = &self.slots[self.place(self.hash(key))];
        (slot.offset > 0).then(|| (slot.offset - 1).cast_signed())
    }

    /// The place of this hash, or the free one where it belongs. There is always a free one.
    fn place(&self, hash: [u64; 2]) -> usize {
        // The high half of a product spreads a hash over any number of places.
        let mut at = ((u128::from(hash[0]) * self.slots.len() as u128) >> 64) as usize;
        while self.slots[at].offset > 0 && self.slots[at].hash != hash {
            at = (at + 1) % self.slots.len();
        }
        at
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn it_is_a_map_from_key_to_newest_offset() {
        let mut random = SmallRng::seed_from_u64(7);
        for keys in [1usize, 2, 3, 10, 1000] {
            let mut map = KeyOffsets::new(1 << 20, keys, random.random());
            let mut model = HashMap::new();
            for offset in 0..3000 {
                let key = random.random_range(0..keys).to_be_bytes();
                assert_eq!(map.put(&key, offset), Ok(()), "{keys} keys fit");
                model.insert(key, offset);
            }
            assert_eq!(map.len(), model.len());
            for n in 0..keys * 2 {
                assert_eq!(map.get(&n.to_be_bytes()), model.get(&n.to_be_bytes()).copied());
            }
        }
    }

    #[test]
    fn memory_is_a_bound_and_known_keys_still_fit() {
        let mut map = KeyOffsets::new(100 * SLOT_BYTES, usize::MAX, [1; 16]);
        let fits = (0..200i64).take_while(|n| map.put(&n.to_be_bytes(), *n) == Ok(())).count();
        assert_eq!(fits, 90);
        assert_eq!(map.put(&5i64.to_be_bytes(), 500), Ok(()));
        assert_eq!(map.put(&100i64.to_be_bytes(), 501), Err(Full));
        assert_eq!((map.get(&5i64.to_be_bytes()), map.get(&100i64.to_be_bytes())), (Some(500), None));
    }
}
