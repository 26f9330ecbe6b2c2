//! Dead letters: one record for each record that a node with that policy could not process. They are the last records of
//! a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::failure::{ORIGINAL_TIMESTAMP_HEADER, dead_letter_headers};
use super::output::{Cow, NoticeKind, Piece};
use super::{Decided, Step, Task};
use crate::answer::Answer;
use crate::batch::{BatchIn, NO_TIMESTAMP, OwnedBatch, RecordIn};
use crate::sink::{Refusal, Refused, Sink};

/// Bytes after which another batch of dead letters is begun: far from the 4 GiB that one may have.
const MAX_LETTERS_BYTES: usize = 64 << 20;

/// Letters for one topic.
struct Letters {
    batch: OwnedBatch,
    /// For each letter, the index of its notice.
    notices: Vec<usize>,
}

impl Task {
    /// Writes the letters of a step: the original key, value, headers and timestamp, and the reason in further headers. A
    /// letter that its topic does not take is dropped, and that is said.
    pub(super) fn write_dead_letters(&mut self, step: &mut Step<'_>, sink: &mut dyn Sink) {
        let mut open: BTreeMap<usize, Letters> = BTreeMap::new();
        let mut records = step.batch.records();
        let mut record = records.next();
        for index in 0..step.decided.len() {
            let Decided { notice, dead_letter, .. } = &step.decided[index];
            let Some(output) = *dead_letter else { continue };
            // Notices and records both come in offset order; a record may have several notices.
            while record.is_some_and(|record| record.offset < notice.failure.offset) {
                record = records.next();
            }
            let original = record.expect("a notice is about a record of the batch");
            let reason = dead_letter_headers(&self.topology, &notice.failure);
            let reason = reason.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())));
            let letters = open.entry(output).or_insert_with(|| Letters::new(&step.batch));
            letters.push(index, original, original.headers.chain(reason));
            if letters.batch.as_batch().data.len() >= MAX_LETTERS_BYTES
                && let Some(full) = open.remove(&output)
            {
                self.write_letters(step, output, full, sink);
            }
        }
        for (output, letters) in open {
            self.write_letters(step, output, letters, sink);
        }
    }

    /// Writes letters until all that are left are taken: each round drops one, or gives it another timestamp.
    fn write_letters(
        &mut self,
        step: &mut Step<'_>,
        output: usize,
        mut letters: Letters,
        sink: &mut dyn Sink,
    ) {
        while !letters.notices.is_empty() {
            let Letters { batch, notices } = letters;
            let answer = Arc::new(Answer::identity(&batch.as_batch()));
            let batch = Cow::Shared(Arc::new(batch));
            let piece = Piece { batch, answer, output: 0, topic: output, made_by: None };
            match self.emit_letters(&piece, sink) {
                Ok(emitted) => {
                    step.counts.add(emitted);
                    step.counts.dead_lettered += emitted.records_out;
                    return;
                }
                Err(refused) => {
                    letters = step.without(&piece, notices, refused, &self.topology.outputs[output].topic);
                }
            }
        }
    }
}

impl Step<'_> {
    /// The letters that may still be taken.
    fn without(
        &mut self,
        letters: &Piece<'_>,
        notices: Vec<usize>,
        refused: Vec<Refused>,
        topic: &str,
    ) -> Letters {
        let mut rest = Letters::new(&self.batch);
        let mut refused = refused.into_iter().peekable();
        for (index, (record, notice)) in letters.records().zip(notices).enumerate() {
            match refused.next_if(|refused| refused.index == index).map(|refused| refused.why) {
                None => rest.push(notice, record, record.headers),
                Some(Refusal::Timestamp { timestamp, .. }) if record.timestamp != NO_TIMESTAMP => {
                    let original = timestamp.to_string();
                    let original = (ORIGINAL_TIMESTAMP_HEADER.as_bytes(), Some(original.as_bytes()));
                    let record = RecordIn { timestamp: NO_TIMESTAMP, ..record };
                    rest.push(notice, record, record.headers.chain([original]));
                }
                Some(why) => {
                    let kind = NoticeKind::Undeliverable { topic: topic.to_owned(), why };
                    self.decided[notice].notice.kind = kind;
                    self.counts.undeliverable += 1;
                }
            }
        }
        rest
    }
}

impl Letters {
    fn new(of: &BatchIn<'_>) -> Letters {
        Letters { batch: OwnedBatch::new(of.topic, of.partition), notices: Vec::new() }
    }

    fn push<'h>(
        &mut self,
        notice: usize,
        record: RecordIn<'_>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) {
        let pushed = self.batch.push(record, headers);
        pushed.expect("a record of a batch of 2 GiB fits beside less than MAX_LETTERS_BYTES");
        self.notices.push(notice);
    }
}
