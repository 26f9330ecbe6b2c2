//! The offsets that a request waits for, of whatever kind of table: `OFFSET`, `PARTITION:OFFSET` or `TOPIC:PARTITION:OFFSET`, with commas
//! between several.

use std::collections::BTreeMap;

use pelton_pipelines::supervisor::AskedOffset;
use pelton_tables::Tables;

use super::query::Query;
use crate::http::reply::Refusal;

/// What `min_offset` asks for; none if it is not there.
pub(super) fn asked(query: &Query) -> Result<Option<Vec<AskedOffset>>, Refusal> {
    let Some(text) = query.text("min_offset")? else { return Ok(None) };
    let offsets = text.split(',').map(offset).collect::<Option<Vec<_>>>();
    offsets.map(Some).ok_or_else(|| {
        Refusal::bad_request(format!(
            "`min_offset` is `{text}`, and may be OFFSET, PARTITION:OFFSET or TOPIC:PARTITION:OFFSET, with commas between several"
        ))
    })
}

fn offset(text: &str) -> Option<AskedOffset> {
    let mut parts = text.rsplit(':');
    // Neither is ever negative.
    let number = |part: &str| part.parse::<u32>().ok().and_then(|partition| i32::try_from(partition).ok());
    let offset = parts.next()?.parse::<i64>().ok().filter(|offset| *offset >= 0)?;
    let partition = parts.next().map(|part| number(part).ok_or(())).transpose().ok()?;
    let topic = parts.next().map(str::to_owned);
    parts.next().is_none().then_some(AskedOffset { topic, partition, offset })
}

/// The offsets of a table that stands alone, by partition of its topic.
pub(super) fn of_table(
    tables: &Tables,
    name: &str,
    key: Option<&[u8]>,
    asked: &[AskedOffset],
) -> Result<BTreeMap<u32, i64>, Refusal> {
    let made_of = tables.topic_of(name)?;
    let mut offsets = BTreeMap::new();
    for AskedOffset { topic, partition, offset } in asked {
        if let Some(topic) = topic.as_ref().filter(|topic| **topic != made_of) {
            let error = format!("`min_offset` names topic {topic}, and table `{name}` is made of {made_of}");
            return Err(Refusal::bad_request(error));
        }
        let partition = match partition {
            Some(partition) => partition.unsigned_abs(),
            None => tables.partition_of(name, key)?.ok_or_else(|| {
                Refusal::bad_request(format!(
                    "`min_offset` of table `{name}` needs a partition, as PARTITION:OFFSET: an offset alone is enough if topic \
                     {made_of} has one partition, or its partitioner is known and a key is asked for"
                ))
            })?,
        };
        offsets.insert(partition, *offset);
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_that_are_waited_for() {
        let asked = |topic: Option<&str>, partition, offset| {
            Some(AskedOffset { topic: topic.map(str::to_owned), partition, offset })
        };
        assert_eq!(offset("7"), asked(None, None, 7));
        assert_eq!(offset("1:7"), asked(None, Some(1), 7));
        assert_eq!(offset("a.b:1:7"), asked(Some("a.b"), Some(1), 7));
        let wrong = ["", "x", "-7", "a:7", "-1:7", "4294967295:7", "a:b:7", "a:1:x", "a:1:-7", "a:1:2:3"];
        for wrong in wrong {
            assert_eq!(offset(wrong), None, "{wrong}");
        }
    }
}
