//! Following a table as server-sent events:
//!
//! ```text
//! event: begin     {"offsets": {"0": 41}}                     the rows that follow reflect these offsets
//! event: row       {"key": …, "value": …, "timestamp": …}
//! event: current   {}                                         that were all rows
//! event: change    {"partition": 0, "offset": 42, "timestamp": …, "key": …, "value": …}   null deletes
//! event: end       {"reason": …}                              the last one, unless the connection breaks
//! ```
//!
//! Of a table that a pipeline keeps, `begin` has the offsets of the topics that it is made of, and besides `changelog` with the
//! `topic` and the `offsets` of its changes; `change` has the place of the change in that topic. A row of a window has `window`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use pelton_streams::tables::ValueFormat;
use pelton_tables::{FollowEvent, Following};
use tokio::time::{Interval, MissedTickBehavior};

use super::rows::{push_fields, push_json, push_key, push_value};
use super::state::push_row;

/// How often something is sent to a reader without news, so that both ends know of each other.
const BEAT: Duration = Duration::from_secs(15);

pub(super) fn response(following: Following, format: ValueFormat) -> Response {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = Events { following: Some(following), format, beat };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events)).into_response()
}

struct Events {
    /// `None` once the last event was sent.
    following: Option<Following>,
    format: ValueFormat,
    beat: Interval,
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let format = self.format;
        let Some(following) = &mut self.following else { return Poll::Ready(None) };
        let mut text = Vec::new();
        match following.poll_next(cx) {
            Poll::Ready(Some(frame)) => frame.iter().for_each(|event| push_event(&mut text, event, format)),
            Poll::Ready(None) => {
                text.extend_from_slice(b"event: end\ndata: {\"reason\":");
                push_json(&mut text, following.ended());
                text.extend_from_slice(b"}\n\n");
                self.following = None;
            }
            Poll::Pending => match self.beat.poll_tick(cx) {
                Poll::Ready(_) => text.extend_from_slice(b":\n\n"),
                Poll::Pending => return Poll::Pending,
            },
        }
        Poll::Ready(Some(Ok(text.into())))
    }
}

fn push_event(text: &mut Vec<u8>, event: &FollowEvent, format: ValueFormat) {
    match event {
        FollowEvent::Begin { offsets } => {
            text.extend_from_slice(b"event: begin\ndata: {\"offsets\":");
            push_json(text, offsets);
        }
        FollowEvent::Row(row) => {
            text.extend_from_slice(b"event: row\ndata: {");
            push_fields(text, row, format);
        }
        FollowEvent::Current => text.extend_from_slice(b"event: current\ndata: {"),
        FollowEvent::Change { partition, offset, timestamp, key, value } => {
            text.extend_from_slice(b"event: change\ndata: {\"partition\":");
            push_json(text, partition);
            text.extend_from_slice(b",\"offset\":");
            push_json(text, offset);
            text.extend_from_slice(b",\"timestamp\":");
            push_json(text, timestamp);
            text.push(b',');
            push_key(text, key);
            push_value(text, value.as_deref(), format);
        }
        FollowEvent::KeptBegin { offsets, changelog, at } => {
            text.extend_from_slice(b"event: begin\ndata: {\"offsets\":");
            push_json(text, offsets);
            text.extend_from_slice(b",\"changelog\":{\"topic\":");
            push_json(text, changelog);
            text.extend_from_slice(b",\"offsets\":");
            push_json(text, at);
            text.push(b'}');
        }
        FollowEvent::KeptRow(row) => {
            text.extend_from_slice(b"event: row\ndata: {");
            push_row(text, row);
        }
        FollowEvent::KeptChange { partition, offset, row } => {
            text.extend_from_slice(b"event: change\ndata: {\"partition\":");
            push_json(text, partition);
            text.extend_from_slice(b",\"offset\":");
            push_json(text, offset);
            text.push(b',');
            push_row(text, row);
        }
    }
    text.extend_from_slice(b"}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_two_lines_whatever_is_in_it() {
        let change = FollowEvent::Change {
            partition: 1,
            offset: 5,
            timestamp: 9,
            key: b"a\nb".to_vec(),
            value: Some(b"{\r\n}".to_vec()),
        };
        let mut text = Vec::new();
        push_event(&mut text, &change, ValueFormat::Json);
        let expect = "event: change\ndata: {\"partition\":1,\"offset\":5,\"timestamp\":9,\"key\":\"a\\nb\",\"value\":{  }}\n\n";
        assert_eq!(String::from_utf8(text).unwrap(), expect);
        let mut text = Vec::new();
        push_event(&mut text, &FollowEvent::Current, ValueFormat::Json);
        assert_eq!(text, b"event: current\ndata: {}\n\n");
    }
}
