//! Counts the records of each key in the store `seen`, and emits the counts. Some values are orders: `trap`, `reject` and `much`
//! fail the call behind a write, `stray` uses a store that the node does not have, `all` emits the store, `last` its last
//! entry, `clear` empties it, and `window` puts the record into the store `recent` and emits what the key has there.

use pelton_sdk::{Failure, Out, Range, Reads, Record, StateTransform, Stores};

/// More than a call may write.
const MUCH: usize = 17 << 20;

#[derive(Default)]
struct Keeper;

impl StateTransform for Keeper {
    fn reads(&mut self, record: Record<'_>, reads: &mut Reads) {
        reads.key("seen", record.key().unwrap_or_default());
    }

    fn record(
        &mut self,
        record: Record<'_>,
        stores: &mut Stores<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let key = record.key().unwrap_or_default();
        let count = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
        let n = stores.get("seen", key).and_then(count).unwrap_or(0) + 1;
        stores.put("seen", key, n.to_string());
        let text = |(key, value): &(Vec<u8>, Vec<u8>)| {
            format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
        };
        let answer = match record.value().unwrap_or_default() {
            b"trap" => {
                stores.flush();
                panic!("told to trap");
            }
            b"reject" => {
                stores.flush();
                return Err(Failure::reject("told to reject"));
            }
            b"much" => {
                stores.put("seen", key, vec![b'x'; MUCH]);
                stores.flush();
                String::new()
            }
            b"stray" => {
                stores.get("sene", key);
                String::new()
            }
            b"all" => {
                stores.range("seen", &Range::all()).entries.iter().map(text).collect::<Vec<_>>().join(" ")
            }
            b"last" => {
                let found = stores.range("seen", &Range::prefix(key).last(1));
                format!("{} more {}", found.entries.first().map(text).unwrap_or_default(), found.more)
            }
            b"clear" => stores.delete_range("seen", &[], None, u32::MAX).to_string(),
            b"window" => {
                stores.put_window("recent", key, record.timestamp(), n.to_string());
                let found = stores.windows_of("recent", key, 0, i64::MAX, 10);
                let text =
                    |(start, value): &(i64, Vec<u8>)| format!("{}@{start}", String::from_utf8_lossy(value));
                found.windows.iter().map(text).collect::<Vec<_>>().join(" ")
            }
            _ => n.to_string(),
        };
        out.value(record, answer);
        Ok(())
    }
}

pelton_sdk::export_state_transform!(Keeper);
