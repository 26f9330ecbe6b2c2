//! `pelton pipeline history` and `rollback`: what was deployed, and going back to it.

use super::super::deploy::{change_lines, print_deployed};
use super::super::topic::{print_json, print_line};
use crate::client::http::{HttpClient, segment};
use pelton_streams::values::epoch_text;
use serde_json::{Value, json};

pub(super) fn history(
    http: &HttpClient,
    name: &str,
    revision: Option<u64>,
    as_json: bool,
) -> anyhow::Result<()> {
    let path = format!("/v1/pipelines/{}/history", segment(name)?);
    if let Some(revision) = revision {
        let found: Value = http.get(&format!("{path}/{revision}"))?;
        let manifest = || print_line(found["manifest"].as_str().unwrap_or_default().trim_end());
        return if as_json { print_json(&found) } else { manifest() };
    }
    let kept: Value = http.get(&path)?;
    if as_json {
        return print_json(&kept);
    }
    for revision in kept["revisions"].as_array().into_iter().flatten() {
        let paused = revision["live"] == true && kept["paused"] == true;
        lines(revision, paused).iter().try_for_each(|line| print_line(line))?;
    }
    Ok(())
}

/// A revision, and below it what it has changed, or what it runs where that is not known.
fn lines(revision: &Value, paused: bool) -> Vec<String> {
    let mut head = format!("revision {}", revision["revision"]);
    if revision["live"] == true {
        head.push_str(if paused { ", live and paused" } else { ", live" });
    }
    if let Some(at) = revision["deployed_at_ms"].as_i64() {
        head.push_str(&format!(", deployed {}", epoch_text(at)));
    }
    if let Some(to) = revision["rolled_back_to"].as_u64() {
        head.push_str(&format!(", back to revision {to}"));
    }
    let mut lines = vec![head];
    match revision["changes"].as_object() {
        Some(_) => {
            let changes = change_lines(&revision["changes"]);
            let nothing = changes.is_empty().then(|| "nothing changed".to_owned());
            lines.extend(changes.into_iter().chain(nothing).map(|line| format!("  {line}")));
        }
        None => {
            for (node, digest) in revision["plugins"].as_object().into_iter().flatten() {
                lines.push(format!("  node {node}: {}", digest.as_str().unwrap_or("-")));
            }
        }
    }
    lines
}

pub(super) fn rollback(http: &HttpClient, name: &str, to: Option<u64>, dry_run: bool) -> anyhow::Result<()> {
    let path = format!("/v1/pipelines/{}/rollback", segment(name)?);
    let request = json!({ "to": to, "dry_run": dry_run });
    let deployed: Value = http.post(&path, "application/json", request.to_string().as_bytes())?;
    print_deployed(&deployed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_shown_with_what_it_changed() {
        let revision = json!({
            "revision": 4, "live": true, "deployed_at_ms": 0, "rolled_back_to": 2,
            "plugins": { "work": "sha256:bb" },
            "changes": {
                "manifest": [{ "key": "threads", "before": "1", "after": "2" }],
                "plugins": [{ "node": "work", "before": "sha256:aa", "after": "sha256:bb" }],
            },
        });
        let head = "revision 4, live, deployed 1970-01-01T00:00:00Z, back to revision 2";
        assert_eq!(
            lines(&revision, false),
            [head, "  threads: 1 -> 2", "  node work: sha256:aa -> sha256:bb"]
        );
        let first = json!({
            "revision": 1, "live": false, "deployed_at_ms": 0, "rolled_back_to": null,
            "plugins": { "work": "sha256:aa" }, "changes": null,
        });
        let head = "revision 1, deployed 1970-01-01T00:00:00Z";
        assert_eq!(lines(&first, false), [head, "  node work: sha256:aa"]);
        let same = json!({ "revision": 2, "live": true, "changes": { "manifest": [], "plugins": [] } });
        assert_eq!(lines(&same, true), ["revision 2, live and paused", "  nothing changed"]);
    }
}
