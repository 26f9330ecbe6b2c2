//! What one side did, and the table of what pelton's figures are of Kafka's.

use crate::stats::Latencies;
use std::fmt::Write;
use std::time::Duration;

const MIB: f64 = (1 << 20) as f64;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Pelton,
    /// As it comes.
    Kafka,
    /// With `flush.messages=1`.
    KafkaSynced,
}

impl Side {
    pub(crate) const ALL: [Side; 3] = [Side::Pelton, Side::Kafka, Side::KafkaSynced];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Pelton => "pelton",
            Side::Kafka => "Kafka",
            Side::KafkaSynced => "Kafka, flush.messages=1",
        }
    }
}

/// What one side did in the measured time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    per_s: f64,
    /// Processor time of the servers for each record.
    cpu_ns: f64,
    /// p50 and p99 in milliseconds.
    latency: Option<(f64, f64)>,
    /// The most that was resident, since the process started.
    peak: f64,
}

impl Figures {
    pub(crate) fn of(
        records: u64,
        time: Duration,
        cpu: Duration,
        latencies: Option<&mut Latencies>,
        peak: u64,
    ) -> Figures {
        Figures {
            per_s: records as f64 / time.as_secs_f64(),
            cpu_ns: cpu.as_nanos() as f64 / records as f64,
            latency: latencies.map(|latencies| (latencies.ms(0.5), latencies.ms(0.99))),
            peak: peak as f64 / MIB,
        }
    }

    pub(crate) fn text(&self) -> String {
        let &Figures { per_s, cpu_ns, latency, peak } = self;
        let latency = latency.map(|(p50, p99)| format!(", p50 {p50:.2} p99 {p99:.2} ms")).unwrap_or_default();
        format!("{}/s, {} ns{latency}, {peak:.0} MiB", thousands(per_s), thousands(cpu_ns))
    }

    /// These figures as shares of `other`'s.
    fn shares(&self, other: &Figures) -> Figures {
        let latency = self.latency.zip(other.latency);
        Figures {
            per_s: self.per_s / other.per_s,
            cpu_ns: self.cpu_ns / other.cpu_ns,
            latency: latency.map(|(own, other)| (own.0 / other.0, own.1 / other.1)),
            peak: self.peak / other.peak,
        }
    }

    /// The median of each figure by itself.
    fn median(all: &[Figures]) -> Figures {
        let of = |figure: &dyn Fn(&Figures) -> f64| median(all.iter().map(figure).collect());
        Figures {
            per_s: of(&|figures| figures.per_s),
            cpu_ns: of(&|figures| figures.cpu_ns),
            latency: all.first().and_then(|figures| figures.latency).map(|_| {
                (
                    of(&|figures| figures.latency.map_or(f64::NAN, |latency| latency.0)),
                    of(&|figures| figures.latency.map_or(f64::NAN, |latency| latency.1)),
                )
            }),
            peak: of(&|figures| figures.peak),
        }
    }
}

/// The upper one of the middle two, if there is no middle.
/// Of an even number the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.get(half) {
        None => f64::NAN,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(values[half - 1], *upper),
    }
}

/// A number with its thousands apart.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What was measured, in the order in which it came first: per side one entry for each round.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<(String, Vec<(Side, Figures)>)>,
}

impl Table {
    pub(crate) fn add(&mut self, what: &str, side: Side, figures: Figures) {
        match self.rows.iter_mut().find(|(name, _)| name == what) {
            Some((_, row)) => row.push((side, figures)),
            None => self.rows.push((what.to_owned(), vec![(side, figures)])),
        }
    }

    /// Markdown: medians of the rounds. A share is the median of the rounds' shares, each within its round.
    pub(crate) fn text(&self) -> String {
        let mut text = "pelton's share of Kafka's figures (of Kafka's with flush.messages=1)\n\n\
             | what | pelton | Kafka | CPU per record | records/s | p50 | p99 | resident peak |\n\
             |---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for (what, row) in &self.rows {
            let side = |wanted| -> Vec<Figures> {
                row.iter().filter(|(side, _)| *side == wanted).map(|(_, figures)| *figures).collect()
            };
            let (own, kafkas) = (side(Side::Pelton), side(Side::Kafka));
            let shares = |others: &[Figures]| -> Option<Figures> {
                let each: Vec<_> = own.iter().zip(others).map(|(own, other)| own.shares(other)).collect();
                (!each.is_empty()).then(|| Figures::median(&each))
            };
            let (free, synced) = (shares(&kafkas), shares(&side(Side::KafkaSynced)));
            let cell = |figure: &dyn Fn(&Figures) -> Option<f64>| {
                let one =
                    |shares: &Option<Figures>| shares.as_ref().and_then(figure).map(|v| format!("{v:.2}"));
                match (one(&free), one(&synced)) {
                    (Some(free), Some(synced)) => format!("{free} ({synced})"),
                    (Some(free), None) => free,
                    (None, _) => String::new(),
                }
            };
            let written = writeln!(
                text,
                "| {what} | {} | {} | {} | {} | {} | {} | {} |",
                Figures::median(&own).text(),
                Figures::median(&kafkas).text(),
                cell(&|shares| Some(shares.cpu_ns)),
                cell(&|shares| Some(shares.per_s)),
                cell(&|shares| shares.latency.map(|latency| latency.0)),
                cell(&|shares| shares.latency.map(|latency| latency.1)),
                cell(&|shares| Some(shares.peak)),
            );
            debug_assert!(written.is_ok(), "a string takes every text");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(per_s: f64, cpu_ns: f64, p50: Option<f64>, peak: f64) -> Figures {
        Figures { per_s, cpu_ns, latency: p50.map(|p50| (p50, 2.0 * p50)), peak }
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        let cases: [(&[f64], f64); 4] =
            [(&[3.0], 3.0), (&[4.0, 1.0], 2.5), (&[9.0, 1.0, 2.0], 2.0), (&[1.0, 9.0, 2.0, 4.0], 3.0)];
        for (values, expect) in cases {
            assert!((median(values.to_vec()) - expect).abs() < 1e-9, "{values:?}");
        }
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_share_is_the_median_of_shares_within_their_rounds() {
        let mut table = Table::default();
        // The machine is ten times as slow in the second round; shares do not feel it.
        for (speed, share) in [(1.0, 0.5), (10.0, 0.25), (1.0, 0.75)] {
            table.add(
                "load",
                Side::Pelton,
                figures(2000.0 / speed, share * speed * 1000.0, Some(speed), 30.0),
            );
            table.add("load", Side::Kafka, figures(1000.0 / speed, speed * 1000.0, Some(2.0 * speed), 60.0));
            table.add(
                "load",
                Side::KafkaSynced,
                figures(500.0 / speed, speed * 2000.0, Some(4.0 * speed), 40.0),
            );
            table.add("read", Side::Pelton, figures(1.0, 1.0, None, 1.0));
            table.add("read", Side::Kafka, figures(1.0, 4.0, None, 2.0));
        }
        let text = table.text();
        let rows: Vec<_> = text.lines().skip(4).collect();
        assert_eq!(
            rows,
            [
                "| load | 2,000/s, 750 ns, p50 1.00 p99 2.00 ms, 30 MiB | 1,000/s, 1,000 ns, p50 2.00 p99 4.00 ms, 60 MiB \
                 | 0.50 (0.25) | 2.00 (4.00) | 0.50 (0.25) | 0.50 (0.25) | 0.50 (0.75) |",
                "| read | 1/s, 1 ns, 1 MiB | 1/s, 4 ns, 2 MiB | 0.25 | 1.00 |  |  | 0.50 |",
            ]
        );
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0.4, 999.0, 1000.0, 1_234_567.0].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
