//! `POST /v1/topics/{name}/records`: records as JSON, or one record as it is.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pelton_partitioner::PartitionerKind;
use serde::Deserialize;
use serde_json::Value;

use pelton_pipelines::refusal::DeployError;
use pelton_streams::batch::{BatchFull, Headers, OwnedBatch, RecordIn};

use super::HttpState;
use super::reply::Refusal;
use crate::blocking::run_blocking;
use crate::records::{KEY_BYTES_MAX, NewRecord, RECORDS_MAX, WriteError, Written};
use crate::topics::Topic;

/// As the IETF's draft calls it.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What a request says besides its body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordsQuery {
    /// The rule by which keys are placed, or a plugin that was pushed.
    partitioner: Option<String>,
    /// Its configuration: a table of TOML.
    partitioner_config: Option<String>,
    /// Of the one record of a raw body.
    key: Option<String>,
    partition: Option<i32>,
}

/// `application/json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordsRequest {
    records: Vec<JsonRecord>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRecord {
    key: Option<String>,
    key_base64: Option<String>,
    /// A text is its bytes, null is null, anything else is JSON.
    #[serde(default)]
    value: Value,
    value_base64: Option<String>,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
    timestamp: Option<i64>,
    partition: Option<i32>,
}

impl JsonRecord {
    fn record(self) -> Result<NewRecord, String> {
        let key = match (self.key, self.key_base64) {
            (Some(_), Some(_)) => return Err("`key` and `key_base64` are both there".to_owned()),
            (Some(text), None) => Some(Bytes::from(text)),
            (None, Some(text)) => Some(decoded("key_base64", &text)?),
            (None, None) => None,
        };
        let value = match (self.value, self.value_base64) {
            (Value::Null, Some(text)) => Some(decoded("value_base64", &text)?),
            (_, Some(_)) => return Err("`value` and `value_base64` are both there".to_owned()),
            (value, None) => bytes_of(value),
        };
        let headers = self.headers.into_iter().map(|(name, value)| (name, bytes_of(value))).collect();
        if self.timestamp.is_some_and(|timestamp| timestamp < 0) {
            return Err("`timestamp` is below 0: it is in milliseconds since 1970".to_owned());
        }
        Ok(NewRecord { key, value, headers, timestamp: self.timestamp, partition: self.partition })
    }
}

fn decoded(name: &str, text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("`{name}` is no base64: {error}"))
}

fn bytes_of(value: Value) -> Option<Bytes> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Bytes::from(text)),
        other => Some(Bytes::from(other.to_string())),
    }
}

fn records(body: &[u8]) -> Result<Vec<NewRecord>, Refusal> {
    let request: RecordsRequest = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the request is not valid: {error}")))?;
    if request.records.is_empty() || request.records.len() > RECORDS_MAX {
        let count = request.records.len();
        return Err(Refusal::bad_request(format!(
            "the request has {count} records: send 1 to {RECORDS_MAX}"
        )));
    }
    let record = |(index, record): (usize, JsonRecord)| {
        record.record().map_err(|why| Refusal::bad_request(format!("record {index}: {why}")))
    };
    request.records.into_iter().enumerate().map(record).collect()
}

/// The one record of a raw body.
fn raw(query: &RecordsQuery, body: Bytes) -> NewRecord {
    let key = query.key.clone().map(Bytes::from);
    NewRecord { key, value: Some(body), partition: query.partition, ..NewRecord::default() }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut all = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let text = first.to_str().ok().filter(|_| all.next().is_none());
    let fits = |text: &&str| !text.is_empty() && text.len() <= KEY_BYTES_MAX;
    let text = text.filter(fits).ok_or_else(|| {
        Refusal::bad_request(format!(
            "`Idempotency-Key` must be there once, with 1 to {KEY_BYTES_MAX} visible ASCII characters"
        ))
    })?;
    Ok(Some(text.to_owned()))
}

pub(super) async fn write(
    State(state): State<Arc<HttpState>>,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<RecordsQuery>, QueryRejection>,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Written>, Refusal> {
    let (Path(name), Query(query)) = (name?, query?);
    let body = body.map_err(|error| Refusal::of_body(&error, state.limits.body_bytes))?;
    let key = idempotency_key(&headers)?;
    let digest = key.map(|key| {
        let request = [text.unwrap_or_default().as_bytes(), b"\n", &body].concat();
        (key, *pelton_pipelines::digest_of(&request).as_bytes())
    });
    let is_json =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|kind| {
            kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        });
    let mut records = if is_json { records(&body)? } else { vec![raw(&query, body)] };
    let topic = state.parts.admin.topic(&name);
    let topic = topic.ok_or_else(|| Refusal::not_found(format!("there is no topic `{name}`")))?;
    if topic.is_internal() {
        return Err(Refusal::bad_request(format!("`{name}` is a topic of the broker's own")));
    }
    let rule = placed(&state, &topic, &query, &mut records).await?;
    Ok(Json(state.parts.records.write(&topic, records, rule, digest).await?))
}

/// The rule by which records are placed that have no partition yet. A plugin gives each of them one.
async fn placed(
    state: &HttpState,
    topic: &Topic,
    query: &RecordsQuery,
    records: &mut Vec<NewRecord>,
) -> Result<PartitionerKind, Refusal> {
    let config = query.partitioner_config.as_deref();
    let rule = query.partitioner.as_deref().map(pelton_streams::partitioner::parse);
    let hint = match rule {
        Some(Err(hint)) if topic.config.partitioner.is_some() => {
            let name = query.partitioner.as_deref().unwrap_or_default();
            let text =
                format!("`partitioner` is `{name}`; {hint}; and the topic goes by a partitioner of its own");
            return Err(Refusal::bad_request(text));
        }
        Some(Err(hint)) => hint,
        None | Some(Ok(_)) if config.is_some() => {
            let text = "`partitioner_config` is for a plugin in `partitioner`: a rule has no settings";
            return Err(Refusal::bad_request(text));
        }
        None => return Ok(PartitionerKind::default()),
        Some(Ok(rule)) => return Ok(rule),
    };
    let name = query.partitioner.as_deref().unwrap_or_default();
    let placer = state.supervisor()?.placer(name, config.unwrap_or_default()).await;
    let mut placer = placer.map_err(|error| match error {
        DeployError::UnknownPlugin { plugin, .. } => Refusal::bad_request(format!(
            "`partitioner` is `{plugin}`, which is no rule and no plugin that was pushed; {hint}"
        )),
        error => error.into(),
    })?;
    let partitions = topic.partition_count.unsigned_abs();
    let (name, mut all) = (topic.name.clone(), std::mem::take(records));
    // A plugin computes as long as its deadline allows.
    *records = run_blocking(move || {
        let unplaced: Vec<usize> = (0..all.len()).filter(|index| all[*index].partition.is_none()).collect();
        let batch = batch_of(&name, unplaced.iter().map(|index| &all[*index]));
        let batch = batch.map_err(|error| Refusal::bad_request(error.to_string()))?;
        let placed = placer.place(&batch.as_batch(), partitions);
        let placed = placed
            .map_err(|error| Refusal::bad_request(format!("the partitioner places no record: {error}")))?;
        for (index, partition) in unplaced.into_iter().zip(placed) {
            all[index].partition = Some(partition);
        }
        Ok::<_, Refusal>(all)
    })
    .await?;
    Ok(PartitionerKind::default())
}

/// Records as a partitioner is given them, with their place in the request as offset.
fn batch_of<'r>(topic: &str, records: impl Iterator<Item = &'r NewRecord>) -> Result<OwnedBatch, BatchFull> {
    let mut batch = OwnedBatch::new(topic, 0);
    for (record, offset) in records.zip(0..) {
        let NewRecord { key, value, headers, timestamp, .. } = record;
        let (key, value, timestamp) = (key.as_deref(), value.as_deref(), timestamp.unwrap_or(-1));
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref()));
        batch.push(RecordIn { offset, timestamp, key, value, headers: Headers::default() }, headers)?;
    }
    Ok(batch)
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Refusal {
        let text = error.to_string();
        match error {
            WriteError::Refused(_) => Refusal::bad_request(text),
            WriteError::Key(error) => Refusal::of_key(&error),
            WriteError::Unavailable(_) => Refusal::unavailable(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_texts_bytes_or_json() {
        let body = br#"{"records":[
            {"key":"a","value":"text","headers":{"h":"1","n":null},"partition":2,"timestamp":5},
            {"key_base64":"/w==","value":{"b":[1,2.50]}},
            {"value_base64":"AAE="},
            {"key":"deleted","value":null}]}"#;
        let records = records(body).unwrap();
        let text = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(records[0].headers, [("h".to_owned(), text("1")), ("n".to_owned(), None)]);
        assert_eq!((records[0].partition, records[0].timestamp), (Some(2), Some(5)));
        assert_eq!(records[1].key, Some(Bytes::from_static(b"\xff")));
        assert_eq!(records[1].value, text(r#"{"b":[1,2.5]}"#));
        assert_eq!((&records[2].key, &records[2].value), (&None, &Some(Bytes::from_static(b"\x00\x01"))));
        assert_eq!((&records[3].key, &records[3].value), (&text("deleted"), &None));
    }

    #[test]
    fn what_is_no_record_is_named() {
        let refused = |body: &str| format!("{:?}", records(body.as_bytes()).unwrap_err());
        assert!(refused(r#"{"records":[]}"#).contains("send 1 to 10000"));
        assert!(refused(r#"{"records":[{"valeu":1}]}"#).contains("valeu"));
        assert!(refused(r#"{"records":[{},{"key":"a","key_base64":"YQ=="}]}"#).contains("record 1"));
        assert!(refused(r#"{"records":[{"value_base64":"!"}]}"#).contains("no base64"));
        assert!(refused(r#"{"records":[{"timestamp":-1}]}"#).contains("below 0"));
    }

    #[test]
    fn an_idempotency_key_is_one_short_text() {
        let key = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, value.parse().unwrap());
            }
            idempotency_key(&headers).map_err(|_| ())
        };
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&["a b"]), Ok(Some("a b".to_owned())));
        for bad in [&["a", "b"][..], &[""], &[&"x".repeat(256)]] {
            assert_eq!(key(bad), Err(()), "{bad:?}");
        }
    }
}
