//! The text format of Prometheus, read strictly: what a scraper would refuse or misread is an error.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// A name with its labels, and its value.
type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

/// A page of metrics.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Kind by family.
    pub(crate) families: BTreeMap<String, String>,
    pub(crate) samples: Samples,
}

impl Page {
    pub(crate) fn parse(text: &str) -> Result<Page> {
        ensure!(text.ends_with('\n'), "the last line does not end");
        let mut page = Page::default();
        let mut helped = BTreeSet::new();
        // Families whose samples are over: they may not begin again.
        let mut closed: BTreeSet<String> = BTreeSet::new();
        let mut open = String::new();
        for line in text.lines() {
            page.line(line, &mut helped, &mut closed, &mut open).with_context(|| format!("line `{line}`"))?;
        }
        ensure!(helped.iter().eq(page.families.keys()), "a family has a HELP or a TYPE alone");
        for (name, _) in page.families.iter().filter(|(_, kind)| *kind == "histogram") {
            page.histogram(name).with_context(|| format!("histogram {name}"))?;
        }
        Ok(page)
    }

    /// Buckets that rise up to the one without a bound, which counts everything, for each set of other labels.
    fn histogram(&self, name: &str) -> Result<()> {
        let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for ((sample, labels), count) in &self.samples {
            if sample.strip_suffix("_bucket") == Some(name) {
                let (bounds, others): (Labels, Labels) =
                    labels.iter().cloned().partition(|(key, _)| key == "le");
                let [(_, bound)] = &bounds[..] else { bail!("labels {labels:?}") };
                series.entry(others).or_default().push((bound.parse::<f64>().context("a bound")?, *count));
            }
        }
        for (labels, mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            ensure!(buckets.is_sorted_by_key(|(_, count)| *count), "{labels:?}: {buckets:?} do not rise");
            let (bound, count) = *buckets.last().context("no buckets")?;
            let of: Vec<(&str, &str)> =
                labels.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
            let all = self.get(&format!("{name}_count"), &of)?;
            ensure!(bound.is_infinite() && (count - all).abs() < f64::EPSILON, "{buckets:?} are not {all}");
            self.get(&format!("{name}_sum"), &of)?;
        }
        Ok(())
    }

    fn line(
        &mut self,
        line: &str,
        helped: &mut BTreeSet<String>,
        closed: &mut BTreeSet<String>,
        open: &mut String,
    ) -> Result<()> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("no help")?;
            ensure!(!help.trim().is_empty() && helped.insert(check_name(name)?), "HELP twice, or empty");
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("no kind")?;
            ensure!(["counter", "gauge", "histogram"].contains(&kind), "kind {kind}");
            ensure!(helped.contains(name), "TYPE before HELP");
            ensure!((kind == "counter") == name.ends_with("_total"), "{kind}s do not end like that");
            ensure!(self.families.insert(name.to_owned(), kind.to_owned()).is_none(), "TYPE twice");
            closed.insert(std::mem::replace(open, name.to_owned()));
            ensure!(!closed.contains(name), "its samples were over");
            return Ok(());
        }
        ensure!(!line.starts_with('#') && !line.is_empty(), "neither HELP, nor TYPE, nor a sample");
        let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').context("no value")?;
        let (name, rest) = line.split_at(end);
        let part = name.strip_prefix(open.as_str());
        let is_histogram = self.families.get(open.as_str()).is_some_and(|kind| kind == "histogram");
        let parts: &[&str] = if is_histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        ensure!(part.is_some_and(|part| parts.contains(&part)), "not of the family {open}, which is open");
        let (labels, rest) = labels(rest)?;
        let value: f64 = rest.trim_start_matches(' ').parse().context("its value")?;
        ensure!(value >= 0.0 || self.families[open.as_str()] == "gauge", "a counter below zero");
        ensure!(self.samples.insert((name.to_owned(), labels), value).is_none(), "the same sample twice");
        Ok(())
    }

    /// The one sample with these labels.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let labels: Vec<_> =
            labels.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        let found = self.samples.get(&(name.to_owned(), labels.clone())).copied();
        found.with_context(|| format!("no {name} {labels:?}"))
    }
}

fn check_name(name: &str) -> Result<String> {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    ensure!(plain && name.starts_with("pelton_"), "name {name}");
    Ok(name.to_owned())
}

type Labels = Vec<(String, String)>;

fn labels(text: &str) -> Result<(Labels, &str)> {
    let Some(mut rest) = text.strip_prefix('{') else { return Ok((Vec::new(), text)) };
    let mut labels = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").context("a label without its value")?;
        ensure!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty(), "label {name}");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().context("a label without its end")? {
                (at, '"') => break at,
                (_, '\\') => match chars.next().map(|(_, c)| c) {
                    Some('\\') => value.push('\\'),
                    Some('"') => value.push('"'),
                    Some('n') => value.push('\n'),
                    other => bail!("escape {other:?}"),
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = rest.strip_prefix(',').context("no comma between labels")?;
    }
}
