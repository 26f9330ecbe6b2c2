//! Records of a coordinator's topic that this program cannot read.

/// A record of a coordinator's topic that cannot be read. To go on without it could undo an acknowledged change: a
/// decided transaction would look open, and an old offset would look like the newest.
///
/// Kafka leaves out records whose key has an unknown version, and so does pelton: such a key names a kind of thing that
/// this program does not have (groups of other protocols), so nothing that it has acknowledged is in there. A value of
/// an unknown version belongs to a group or transactional id that is served here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record at offset {offset} of `{topic}-{partition}` cannot be read: {reason}. Start the version of \
         pelton or Kafka that wrote it, or restore the directory of that partition from a copy"
)]
pub struct UnreadableRecord {
    pub topic: &'static str,
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    pub reason: String,
}
