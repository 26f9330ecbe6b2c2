//! All digits of a value but the last ones become stars, and what is internal is left out. The same plugin is in
//! `plugins/languages` in each language.

use pelton_sdk::{Config, Failure, Out, Record, Transform};

#[derive(Default)]
struct Mask {
    keep: usize,
    header: String,
}

impl Transform for Mask {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.keep = config.parse("keep")?.unwrap_or(4);
        self.header = config.get("header").unwrap_or_default().to_owned();
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        if record.header("internal") == Some(b"true") {
            return Ok(());
        }
        let digits = record.value().unwrap_or_default().iter().filter(|byte| byte.is_ascii_digit()).count();
        let masked = digits.saturating_sub(self.keep);
        if masked == 0 {
            out.keep(record);
            return Ok(());
        }
        let emitted = out.edit(record, |value| {
            value.iter_mut().filter(|byte| byte.is_ascii_digit()).take(masked).for_each(|byte| *byte = b'*');
        });
        if !self.header.is_empty() {
            emitted.header(&self.header, masked.to_string());
        }
        Ok(())
    }
}

pelton_sdk::export_transform!(Mask);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{TestRecord, run};

    #[test]
    fn digits_are_masked_and_counted() {
        let internal = [("internal".to_owned(), Some(b"true".to_vec()))];
        let given = [
            TestRecord::value("card 1234-5678-9012"),
            TestRecord::value("no 123"),
            TestRecord::default(),
            TestRecord { headers: internal.to_vec(), ..TestRecord::value("1234567") },
        ];
        let out = run::<Mask>(&[("keep", "4"), ("header", "masked")], &given).unwrap();
        let masked = ("masked".to_owned(), Some(b"8".to_vec()));
        let first = TestRecord { headers: vec![masked], ..TestRecord::value("card ****-****-9012") };
        assert_eq!(out, [first, given[1].clone(), given[2].clone()]);
    }
}
