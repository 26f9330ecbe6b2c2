//! Cleans and enriches flights: a line of CSV in, JSON keyed by carrier out. The work is in [`flight`].

pub mod flight;

use flight::{Columns, Line};
use pelton_sdk::{Config, Failure, Out, Record, Transform};

/// The plugin.
#[derive(Default)]
pub struct CleanFlight {
    keep_cancelled: bool,
    columns: Columns,
}

impl Transform for CleanFlight {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.keep_cancelled = config.parse("drop_cancelled")? == Some(false);
        if let Some(header) = config.get("columns") {
            self.columns = Columns::parse(header)?;
        }
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let line = record.value().ok_or_else(|| Failure::reject("the record has no value"))?;
        match self.columns.read(line).map_err(|error| Failure::reject(error.to_string()))? {
            Line::Header => {}
            Line::Flight(flight) if flight.arr_delay.is_none() && !self.keep_cancelled => {}
            Line::Flight(flight) => {
                out.write(record, |data| flight.write_json(data)).key(flight.carrier);
            }
        }
        Ok(())
    }
}

pelton_sdk::export_transform!(CleanFlight);

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{RunError, TestRecord, run};

    use super::*;

    const ON_TIME: &str =
        "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z";
    const CANCELLED: &str =
        "2013,1,1,NA,1630,NA,NA,1815,NA,EV,4308,N18120,EWR,RDU,NA,416,16,30,2013-01-01T21:00:00Z";

    #[test]
    fn flights_come_out_by_carrier() {
        let mut flight = TestRecord::value(ON_TIME);
        flight.timestamp = 77;
        let out = run::<CleanFlight>(&[], &[flight, TestRecord::value(CANCELLED)]).expect("is processed");
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].key.as_deref(), out[0].timestamp), (Some(&b"UA"[..]), 77));
        assert!(
            out[0]
                .text()
                .ends_with(r#""arr_delay":11,"air_time":227,"distance":1400,"delay_class":"on-time"}"#)
        );
    }

    #[test]
    fn cancelled_flights_can_be_kept() {
        let out = run::<CleanFlight>(&[("drop_cancelled", "false")], &[TestRecord::value(CANCELLED)]);
        let out = out.expect("is processed");
        assert!(out[0].text().ends_with(r#""distance":416,"delay_class":"cancelled"}"#), "{}", out[0].text());
    }

    #[test]
    fn ill_formed_lines_are_named() {
        let lines = [TestRecord::value(ON_TIME), TestRecord::value("a,b"), TestRecord::default()];
        let reasons = [(1, "it has 2 columns, not 19".to_owned()), (2, "the record has no value".to_owned())];
        assert_eq!(run::<CleanFlight>(&[], &lines), Err(RunError::Rejected(reasons.to_vec())));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (key, value) in [("drop_cancelled", "yes"), ("columns", "year,month")] {
            assert!(matches!(run::<CleanFlight>(&[(key, value)], &[]), Err(RunError::Configure(_))), "{key}");
        }
    }
}
