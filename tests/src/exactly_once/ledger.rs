//! The history, written down on another file system than the broker's: one line for each event.

use super::history::{Cell, Event, Outcome, Stamp, TransactionId};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// An open ledger; its file goes with it.
pub struct Ledger {
    file: BufWriter<File>,
    path: PathBuf,
    events: u64,
}

impl Ledger {
    /// A new ledger in `/dev/shm`, or in the temporary directory where there is none.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(name: &str) -> Result<Ledger> {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = dir.join(format!("pelton-history-{}-{name}", std::process::id()));
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Ledger { file: BufWriter::new(file), path, events: 0 })
    }

    /// Notes an event.
    ///
    /// # Errors
    /// The ledger's own file system is full.
    pub fn note(&mut self, event: Event) -> Result<()> {
        self.events += 1;
        writeln!(self.file, "{}", line(event)).context("write the ledger")
    }

    /// Everything noted so far, read from the file.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold what was noted.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        self.file.flush()?;
        let mut events = Vec::new();
        for (number, line) in BufReader::new(File::open(&self.path)?).lines().enumerate() {
            let line = line?;
            events.push(parse(&line).with_context(|| format!("line {number} of the ledger: {line}"))?);
        }
        if events.len() as u64 != self.events {
            bail!("{} events were noted, and {} are in the ledger", self.events, events.len());
        }
        Ok(events)
    }

    /// Copies the ledger, for somebody to look at.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn keep(&mut self, to: &Path) -> Result<()> {
        self.file.flush()?;
        std::fs::copy(&self.path, to)?;
        Ok(())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn line(event: Event) -> String {
    let stamped = |kind: &str, s: Stamp, c: Cell, offset: i64| {
        let Stamp { transaction, index, key, number } = s;
        format!("{kind} {} {index} {key} {number} {} {} {offset}", transaction.0, c.topic, c.partition)
    };
    match event {
        Event::Sent { stamp, to } => stamped("sent", stamp, to, -1),
        Event::Sight { stamp, at, offset } => stamped("sight", stamp, at, offset),
        Event::Acked { transaction, index, offset } => format!("acked {} {index} {offset}", transaction.0),
        Event::Offset { transaction, of, offset } => {
            format!("offset {} {} {} {offset}", transaction.0, of.topic, of.partition)
        }
        Event::Found { producer, of, offset } => {
            format!("found {producer} {} {} {offset}", of.topic, of.partition)
        }
        Event::Asked { transaction } => format!("asked {}", transaction.0),
        Event::Ended { transaction, outcome } => {
            let outcome = match outcome {
                Outcome::Committed => "committed",
                Outcome::Aborted => "aborted",
                Outcome::Unknown => "unknown",
            };
            format!("{outcome} {}", transaction.0)
        }
    }
}

fn parse(line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let numbers: Vec<i128> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let id = |n: i128| u64::try_from(n).ok().map(TransactionId);
    let small = |n: i128| u32::try_from(n).ok();
    let cell = |topic, partition| Some(Cell { topic: small(topic)?, partition: small(partition)? });
    Some(match (kind, numbers.as_slice()) {
        ("sent" | "sight", &[transaction, index, key, number, topic, partition, offset]) => {
            let number = u64::try_from(number).ok()?;
            let stamp =
                Stamp { transaction: id(transaction)?, index: small(index)?, key: small(key)?, number };
            let (at, offset) = (cell(topic, partition)?, i64::try_from(offset).ok()?);
            if kind == "sent" { Event::Sent { stamp, to: at } } else { Event::Sight { stamp, at, offset } }
        }
        ("acked", &[transaction, index, offset]) => {
            let offset = i64::try_from(offset).ok()?;
            Event::Acked { transaction: id(transaction)?, index: small(index)?, offset }
        }
        ("offset", &[transaction, topic, partition, offset]) => {
            let offset = i64::try_from(offset).ok()?;
            Event::Offset { transaction: id(transaction)?, of: cell(topic, partition)?, offset }
        }
        ("found", &[producer, topic, partition, offset]) => {
            let offset = i64::try_from(offset).ok()?;
            Event::Found { producer: small(producer)?, of: cell(topic, partition)?, offset }
        }
        ("asked", &[transaction]) => Event::Asked { transaction: id(transaction)? },
        ("committed", &[n]) => Event::Ended { transaction: id(n)?, outcome: Outcome::Committed },
        ("aborted", &[n]) => Event::Ended { transaction: id(n)?, outcome: Outcome::Aborted },
        ("unknown", &[n]) => Event::Ended { transaction: id(n)?, outcome: Outcome::Unknown },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_their_lines() {
        let transaction = TransactionId::new(3, 9);
        let stamp = Stamp { transaction, index: 1, key: 2, number: u64::MAX };
        let at = Cell { topic: 4, partition: 5 };
        let ended = |outcome| Event::Ended { transaction, outcome };
        let events = [
            Event::Sent { stamp, to: at },
            Event::Sight { stamp, at, offset: i64::MAX },
            Event::Acked { transaction, index: 7, offset: -1 },
            Event::Offset { transaction, of: at, offset: 8 },
            Event::Found { producer: 3, of: at, offset: -1 },
            Event::Asked { transaction },
            ended(Outcome::Committed),
            ended(Outcome::Aborted),
            ended(Outcome::Unknown),
        ];
        for event in events {
            assert_eq!(parse(&line(event)), Some(event));
        }
        for bad in ["", "sent 1", "acked -1 2 3", "asked x", "found 1 2 3"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
