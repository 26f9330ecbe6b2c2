//! A line with separators becomes a JSON object of texts. The same plugin is in `plugins/languages` in each language.

use pelton_sdk::{Config, Failure, Out, Record, Transform};

#[derive(Default)]
struct CsvJson {
    /// `"name":` of each column.
    columns: Vec<Vec<u8>>,
    separator: Vec<u8>,
}

impl Transform for CsvJson {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let names = config.get("columns").unwrap_or_default().split(',');
        for name in names {
            if name.is_empty() {
                return Err("columns: a name is empty".to_owned());
            }
            let mut column = Vec::new();
            quote(name.as_bytes(), &mut column);
            column.push(b':');
            self.columns.push(column);
        }
        self.separator = config.get("separator").unwrap_or_default().as_bytes().to_vec();
        if self.separator.is_empty() {
            return Err("separator is empty".to_owned());
        }
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let Some(line) = record.value() else {
            out.keep(record);
            return Ok(());
        };
        let fields = split(line, &self.separator);
        if fields.len() != self.columns.len() {
            let (fields, columns) = (fields.len(), self.columns.len());
            return Err(Failure::reject(format!("the line has {fields} fields, not {columns}")));
        }
        out.write(record, |json| {
            for (i, (column, field)) in self.columns.iter().zip(fields).enumerate() {
                json.push(if i == 0 { b'{' } else { b',' });
                json.extend_from_slice(column);
                quote(field, json);
            }
            json.push(b'}');
        });
        Ok(())
    }
}

fn split<'a>(mut line: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut fields = Vec::new();
    while let Some(at) = line.windows(separator.len()).position(|bytes| bytes == separator) {
        fields.push(&line[..at]);
        line = &line[at + separator.len()..];
    }
    fields.push(line);
    fields
}

/// A text of JSON.
fn quote(text: &[u8], json: &mut Vec<u8>) {
    json.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => json.extend_from_slice(&[b'\\', *byte]),
            0..0x20 => json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => json.push(*byte),
        }
    }
    json.push(b'"');
}

pelton_sdk::export_transform!(CsvJson);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{RunError, TestRecord, run};

    #[test]
    fn lines_become_objects() {
        let config = [("columns", "id,name"), ("separator", ";")];
        let given = [TestRecord::value("1;Jörg \"J\"\t"), TestRecord::value(";"), TestRecord::default()];
        let out = run::<CsvJson>(&config, &given).unwrap();
        let objects: Vec<String> = out.iter().map(TestRecord::text).collect();
        assert_eq!(objects, [r#"{"id":"1","name":"Jörg \"J\"\u0009"}"#, r#"{"id":"","name":""}"#, ""]);
        assert_eq!(out[2].value, None);
    }

    #[test]
    fn what_does_not_fit_is_rejected() {
        let given = [TestRecord::value("1,2"), TestRecord::value("1")];
        let rejected = run::<CsvJson>(&[("columns", "a,b"), ("separator", ",")], &given).unwrap_err();
        assert_eq!(rejected, RunError::Rejected(vec![(1, "the line has 1 fields, not 2".to_owned())]));
        let refused = run::<CsvJson>(&[("columns", "a,,b"), ("separator", ",")], &given).unwrap_err();
        assert_eq!(refused, RunError::Configure("columns: a name is empty".to_owned()));
    }
}
