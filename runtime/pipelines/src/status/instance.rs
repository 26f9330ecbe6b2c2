//! What an instance of a plugin says, and how its calls end.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use parking_lot::Mutex;
use pelton_streams::log::{LogEntry, LogLevel, LogPlace, LogSink};
use pelton_streams::meter::{CallMeter, CallReport};

use super::StatusBoard;
use crate::logs::Said;

/// What an instance of a plugin logs, and its calls, go to its pipeline's board.
pub(crate) struct InstanceLog {
    board: Arc<StatusBoard>,
    node: Arc<str>,
    plugin: Arc<str>,
    /// The partition of the task that calls it.
    partition: Arc<AtomicI32>,
    /// Topic, partition and offset of the record that the call began with.
    about: Mutex<Option<(Arc<str>, i32, i64)>>,
    /// Records of that call.
    records: AtomicU64,
    meter: Arc<CallMeter>,
}

impl InstanceLog {
    pub(crate) fn new(
        board: &Arc<StatusBoard>,
        node: &str,
        plugin: &impl ToString,
        partition: &Arc<AtomicI32>,
    ) -> InstanceLog {
        InstanceLog {
            board: Arc::clone(board),
            node: node.into(),
            plugin: plugin.to_string().into(),
            partition: Arc::clone(partition),
            about: Mutex::new(None),
            records: AtomicU64::new(0),
            meter: board.meter(node),
        }
    }
}

impl LogSink for InstanceLog {
    fn write(&self, level: LogLevel, text: &str) {
        let about = self.about.lock().clone();
        let of_task = || (Arc::from(""), self.partition.load(Ordering::Relaxed), -1);
        let (topic, partition, offset) = about.unwrap_or_else(of_task);
        let (node, plugin) = (&self.node, &self.plugin);
        self.board.say_about(&Said { node, plugin, topic: &topic, partition, offset, level }, text);
    }

    fn about(&self, place: Option<LogPlace<'_>>) {
        let mut about = self.about.lock();
        self.records.store(place.map_or(0, |place| place.records), Ordering::Relaxed);
        *about = place.map(|LogPlace { topic, partition, offset, .. }| {
            // Mostly it is the topic of the call before.
            let known = about.take().map(|(known, ..)| known).filter(|known| **known == *topic);
            (known.unwrap_or_else(|| topic.into()), partition, offset)
        });
    }

    fn called(&self, call: &CallReport) {
        self.meter.note(self.records.swap(0, Ordering::Relaxed), call);
    }
}

impl StatusBoard {
    /// Adds a line of a plugin.
    fn say_about(&self, said: &Said<'_>, text: &str) {
        self.log().say(self.clock().now_ms(), said, text);
    }

    /// Adds a line of pelton's own.
    pub(crate) fn say(&self, node: &str, partition: i32, level: LogLevel, text: &str) {
        let (node, none) = (node.into(), Arc::from(""));
        let said = Said { node: &node, plugin: &none, topic: &none, partition, offset: -1, level };
        self.log().say(self.clock().now_ms(), &said, text);
    }

    /// The lines that are not kept elsewhere yet from a sequence on, and the sequence that the next line gets.
    pub fn log_since(&self, sequence: u64) -> (Vec<LogEntry>, u64) {
        self.log().since(sequence)
    }
}
