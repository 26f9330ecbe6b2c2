//! Where the dead letters of a pipeline are, and where they may go back to.

use std::collections::BTreeSet;

use pelton_streams::Manifest;
use pelton_streams::dead_letter::topics_of;

use super::Supervisor;

/// The topics of a pipeline's dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterTopics {
    /// Those that its nodes send letters to.
    pub letters: BTreeSet<String>,
    /// Those that it reads, its own among them: letters go back to no other.
    pub sources: BTreeSet<String>,
}

impl Supervisor {
    /// The topics of the dead letters of a pipeline that is deployed.
    pub fn letter_topics(&self, name: &str) -> Option<LetterTopics> {
        let manifest = Manifest::parse(&self.manifest(name)?).ok()?;
        let letters = topics_of(&manifest);
        let sources = manifest.sources.iter().map(|source| &source.topic);
        let tables = manifest.tables.iter().map(|table| &table.topic);
        let mut sources: BTreeSet<String> = sources.chain(tables).cloned().collect();
        let inner = self.inner.lock();
        if let Some(topology) = inner.runners.get(name).and_then(|runner| runner.topology()) {
            sources.extend(topology.sources.iter().map(|source| source.topic.clone()));
        }
        Some(LetterTopics { letters, sources })
    }
}
