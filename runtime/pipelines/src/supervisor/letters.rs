//! Where the dead letters of a pipeline are, and where they may go back to.

use std::collections::BTreeSet;

use pelton_streams::Manifest;
use pelton_streams::dead_letter::topics_of;

use super::Supervisor;
use crate::refusal::DeployError;

/// The topics of a pipeline's dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterTopics {
    /// Those that its nodes send letters to.
    pub letters: BTreeSet<String>,
    /// Those that it reads, its own among them: letters go back to no other.
    pub sources: BTreeSet<String>,
    /// Those of them that it reads as tables.
    pub tables: BTreeSet<String>,
}

impl Supervisor {
    /// The topics of the dead letters of a pipeline that is deployed.
    ///
    /// # Errors
    /// There is none of that name, or this version of the server does not know what its manifest says.
    pub fn letter_topics(&self, name: &str) -> Result<LetterTopics, DeployError> {
        let text = self.manifest(name).ok_or_else(|| DeployError::UnknownPipeline(name.to_owned()))?;
        let manifest = Manifest::parse(&text)?;
        let letters = topics_of(&manifest);
        let sources = manifest.sources.iter().map(|source| &source.topic);
        let tables: BTreeSet<String> = manifest.tables.iter().map(|table| table.topic.clone()).collect();
        let mut sources: BTreeSet<String> = sources.chain(&tables).cloned().collect();
        let inner = self.inner.lock();
        if let Some(topology) = inner.runners.get(name).and_then(|runner| runner.topology()) {
            sources.extend(topology.sources.iter().map(|source| source.topic.clone()));
        }
        Ok(LetterTopics { letters, sources, tables })
    }
}
