//! What the kept revisions of a pipeline say: what each of them has changed, and which one a rollback means.

use std::collections::{BTreeMap, BTreeSet};

use pelton_streams::manifest::changes::{ManifestChange, changes};
use serde::Serialize;

use super::{PipelineHistory, Revision};

/// A node whose component is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginChange {
    /// The node.
    pub node: String,
    /// `sha256:…`; none: the node is new.
    pub before: Option<String>,
    /// None: the node is gone.
    pub after: Option<String>,
}

/// What one revision says differently from another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RevisionChanges {
    pub manifest: Vec<ManifestChange>,
    pub plugins: Vec<PluginChange>,
}

/// A kept revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptRevision {
    pub revision: u64,
    pub deployed_at_ms: i64,
    /// It is the one that runs, or would if it were not paused.
    pub live: bool,
    /// It is that one again.
    pub rolled_back_to: Option<u64>,
    /// By node: `sha256:…`.
    pub plugins: BTreeMap<String, String>,
    /// What it has changed; none where the revision before it is not kept.
    pub changes: Option<RevisionChanges>,
}

/// Where a rollback goes, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback {
    pub to: u64,
    /// The revision that is live.
    pub from: u64,
}

/// Why there is nothing to roll back to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRollback {
    #[error("there is no revision {wanted}; kept are {}", listed(.kept))]
    NotKept { wanted: u64, kept: Vec<u64> },
    #[error("revision {0} is live already")]
    IsLive(u64),
    #[error("revision {0} is the only one")]
    Only(u64),
}

fn listed(revisions: &[u64]) -> String {
    revisions.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// What a manifest with these components says differently from a revision.
pub fn changes_from(
    before: &Revision,
    manifest: &str,
    plugins: &BTreeMap<String, String>,
) -> RevisionChanges {
    let nodes: BTreeSet<&String> = before.plugins.keys().chain(plugins.keys()).collect();
    let changed = nodes.into_iter().filter(|node| before.plugins.get(*node) != plugins.get(*node));
    let change = |node: &String| PluginChange {
        node: node.clone(),
        before: before.plugins.get(node).cloned(),
        after: plugins.get(node).cloned(),
    };
    RevisionChanges { manifest: changes(&before.manifest, manifest), plugins: changed.map(change).collect() }
}

impl PipelineHistory {
    /// The kept revisions, the newest first.
    pub fn kept(&self) -> Vec<KeptRevision> {
        let entry = |(&number, revision): (&u64, &Revision)| {
            let before = number.checked_sub(1).and_then(|before| self.revisions.get(&before));
            KeptRevision {
                revision: number,
                deployed_at_ms: revision.deployed_at_ms,
                live: self.live.is_some_and(|live| live.revision == number),
                rolled_back_to: revision.rolled_back_to,
                plugins: revision.plugins.clone(),
                changes: before.map(|before| changes_from(before, &revision.manifest, &revision.plugins)),
            }
        };
        self.revisions.iter().rev().map(entry).collect()
    }

    /// Where a rollback goes: to `wanted`, else to the revision before the live one. None: nothing is live.
    pub fn rollback(&self, wanted: Option<u64>) -> Option<Result<Rollback, NoRollback>> {
        let from = self.live?.revision;
        let before = || self.revisions.range(..from).next_back().map(|(number, _)| *number);
        Some(match wanted {
            None => before().map(|to| Rollback { to, from }).ok_or(NoRollback::Only(from)),
            Some(to) if to == from => Err(NoRollback::IsLive(to)),
            Some(to) if self.revisions.contains_key(&to) => Ok(Rollback { to, from }),
            Some(wanted) => {
                let kept = self.revisions.keys().copied().filter(|number| *number != from).collect();
                Err(NoRollback::NotKept { wanted, kept })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Deployments, KEPT_REVISIONS};
    use super::*;

    fn revision(threads: u64, plugins: &[(&str, &str)]) -> Revision {
        let plugins = plugins.iter().map(|(node, digest)| ((*node).to_owned(), (*digest).to_owned()));
        Revision {
            manifest: format!("name = \"p\"\nthreads = {threads}"),
            plugins: plugins.collect(),
            deployed_at_ms: threads as i64,
            rolled_back_to: None,
        }
    }

    fn history(revisions: &[Revision]) -> PipelineHistory {
        let mut state = Deployments::default();
        for revision in revisions {
            for (key, value) in state.deploy("p", revision).1 {
                state.apply(0, key.as_bytes(), value.as_deref()).unwrap();
            }
        }
        state.pipeline("p").unwrap().clone()
    }

    #[test]
    fn each_revision_says_what_it_has_changed() {
        let back = Revision { rolled_back_to: Some(1), ..revision(1, &[("a", "x"), ("b", "y")]) };
        let all = [
            revision(1, &[("a", "x"), ("b", "y")]),
            revision(1, &[("a", "z"), ("c", "y")]),
            revision(2, &[("a", "z"), ("c", "y")]),
            back,
        ];
        let kept = history(&all).kept();
        let numbers: Vec<_> =
            kept.iter().map(|kept| (kept.revision, kept.live, kept.rolled_back_to)).collect();
        assert_eq!(numbers, [(4, true, Some(1)), (3, false, None), (2, false, None), (1, false, None)]);
        assert_eq!(kept[3].changes, None, "there is none before the first one");
        let second = kept[2].changes.clone().unwrap();
        let of = |change: &PluginChange| {
            let text = |digest: &Option<String>| digest.clone().unwrap_or_default();
            (change.node.clone(), text(&change.before), text(&change.after))
        };
        let [a, b, c] = [("a", "x", "z"), ("b", "y", ""), ("c", "", "y")]
            .map(|(node, before, after)| (node.to_owned(), before.to_owned(), after.to_owned()));
        assert_eq!(second.plugins.iter().map(of).collect::<Vec<_>>(), [a, b, c]);
        assert!(second.manifest.is_empty());
        let third = kept[1].changes.clone().unwrap();
        assert_eq!((third.manifest.len(), third.plugins.len()), (1, 0));
        assert_eq!(third.manifest[0].key, "threads");
    }

    #[test]
    fn a_rollback_goes_to_the_revision_before_or_to_any_that_is_kept() {
        let all: Vec<Revision> = (1..=12).map(|threads| revision(threads, &[])).collect();
        let deployed = history(&all);
        assert_eq!(deployed.rollback(None), Some(Ok(Rollback { to: 11, from: 12 })));
        assert_eq!(deployed.rollback(Some(3)), Some(Ok(Rollback { to: 3, from: 12 })));
        assert_eq!(deployed.rollback(Some(12)), Some(Err(NoRollback::IsLive(12))));
        let refused = deployed.rollback(Some(2)).unwrap().unwrap_err();
        assert_eq!(refused.to_string(), "there is no revision 2; kept are 3, 4, 5, 6, 7, 8, 9, 10, 11");
        assert_eq!(deployed.kept().len(), KEPT_REVISIONS);
        assert_eq!(deployed.kept().last().unwrap().changes, None, "the one before it is not kept");
        let only = history(&all[..1]);
        assert_eq!(only.rollback(None), Some(Err(NoRollback::Only(1))));
        assert_eq!(PipelineHistory { live: None, ..only }.rollback(None), None);
    }

    /// What earlier versions wrote can be read, and what is no rollback is written as they did.
    #[test]
    fn revisions_of_earlier_versions_are_no_rollbacks() {
        let written = r#"{"manifest":"m","plugins":{},"deployed_at_ms":1}"#;
        let read: Revision = serde_json::from_str(written).unwrap();
        assert_eq!(read.rolled_back_to, None);
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
    }
}
