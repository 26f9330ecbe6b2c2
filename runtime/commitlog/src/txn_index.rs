//! `.txnindex`: the aborted transactions whose marker lies in a segment, 34 bytes an entry.
//!
//! An entry is written once per aborted transaction, in the segment that holds the *marker*, so a reader
//! searches this segment and later ones.

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    /// Its producer.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
    /// The last stable offset once the marker was final: no entry after this one concerns anything below it.
    pub last_stable_offset: i64,
}

/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = 34;
const VERSION: i16 = 0;

impl AbortedTxn {
    /// The bytes in the file.
    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
        bytes[2..10].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[10..18].copy_from_slice(&self.first_offset.to_be_bytes());
        bytes[18..26].copy_from_slice(&self.last_offset.to_be_bytes());
        bytes[26..34].copy_from_slice(&self.last_stable_offset.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<AbortedTxn> {
        let at = |n: usize| bytes[n..].first_chunk().map_or(0, |b| i64::from_be_bytes(*b));
        let version_is_known = bytes[..2] == VERSION.to_be_bytes();
        let entry = AbortedTxn {
            producer_id: at(2),
            first_offset: at(10),
            last_offset: at(18),
            last_stable_offset: at(26),
        };
        // A transaction has at least one record before its marker: zeros of a torn file are no entry.
        (version_is_known && entry.first_offset >= 0 && entry.first_offset < entry.last_offset)
            .then_some(entry)
    }

    /// Whether the transaction touches offsets in `from..upper`.
    pub(crate) fn overlaps(&self, from: i64, upper: i64) -> bool {
        self.last_offset >= from && self.first_offset < upper
    }
}

/// The entries of a file: its longest prefix that makes sense, markers in order.
pub(crate) fn decode_all(bytes: &[u8]) -> Vec<AbortedTxn> {
    let mut entries: Vec<AbortedTxn> = Vec::new();
    let (chunks, _) = bytes.as_chunks::<ENTRY_BYTES>();
    for entry in chunks.iter().map_while(AbortedTxn::decode) {
        if entries.last().is_some_and(|before| before.last_offset >= entry.last_offset) {
            break;
        }
        entries.push(entry);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(first_offset: i64, last_offset: i64) -> AbortedTxn {
        AbortedTxn { producer_id: 4, first_offset, last_offset, last_stable_offset: last_offset + 1 }
    }

    #[test]
    fn entries_are_kafkas_34_bytes() {
        let expect =
            "0000_0000000000000004_0000000000000002_0000000000000009_000000000000000a".replace('_', "");
        let bytes: String = txn(2, 9).encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(bytes, expect);
    }

    #[test]
    fn a_torn_file_gives_its_good_prefix() {
        let all = [txn(2, 9), txn(0, 12), txn(13, 14)];
        let bytes: Vec<u8> = all.iter().flat_map(AbortedTxn::encode).collect();
        assert_eq!(decode_all(&bytes), all);
        assert_eq!(decode_all(&bytes[..ENTRY_BYTES * 2 + 5]), all[..2]);
        let mut zeroed = bytes.clone();
        zeroed[ENTRY_BYTES * 2..].fill(0);
        assert_eq!(decode_all(&zeroed), all[..2]);
        zeroed[1] = 1;
        assert_eq!(decode_all(&zeroed), []);
    }

    #[test]
    fn overlap_is_by_first_record_and_marker() {
        for (from, upper, expect) in
            [(0, 3, true), (0, 2, false), (9, 20, true), (10, 20, false), (3, 8, true)]
        {
            assert_eq!(txn(2, 9).overlaps(from, upper), expect, "{from}..{upper}");
        }
    }
}
