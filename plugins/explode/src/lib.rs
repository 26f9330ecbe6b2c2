//! Each item of a JSON list becomes a record.

use fields::{Field, Json, Reader, choice, fields};
use pelton_sdk::{Config, Failure, Out, Record, Transform};

/// Bytes of values that one record may become: half of what a node may answer where a manifest says nothing.
const MAX_BYTES: usize = 8 << 20;

/// The plugin.
#[derive(Default)]
pub struct Explode(Option<Settings>);

struct Settings {
    items: Field,
    reader: Reader,
    shape: Shape,
    /// Finds the key in an item.
    key: Option<(Field, Reader)>,
    index_header: String,
    missing: Missing,
    max_items: usize,
}

#[derive(Clone, Copy)]
enum Shape {
    Item,
    Object,
}

#[derive(Clone, Copy)]
enum Missing {
    Drop,
    Keep,
    Reject,
}

impl Transform for Explode {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let items = member(config, "items")?.ok_or("items is empty: name the list, as json:items")?;
        let missing = [("drop", Missing::Drop), ("keep", Missing::Keep), ("reject", Missing::Reject)];
        let max_items = config.parse("max_items")?.unwrap_or(10_000);
        if max_items == 0 {
            return Err("max_items is 0, but must be 1 at the least".to_owned());
        }
        let shape = choice("into", config.get("into"), &[("item", Shape::Item), ("object", Shape::Object)])?;
        self.0 = Some(Settings {
            reader: Reader::new(vec![items.clone()]),
            items,
            shape,
            key: member(config, "key")?.map(|key| (key.clone(), Reader::new(vec![key]))),
            index_header: config.get("index_header").unwrap_or_default().to_owned(),
            missing: choice("missing", config.get("missing"), &missing)?,
            max_items,
        });
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let settings = self.0.as_ref().ok_or_else(|| Failure::Fatal("it was not configured".to_owned()))?;
        let Some(value) = record.value() else {
            out.keep(record);
            return Ok(());
        };
        settings.explode(record, value, out).map_err(Failure::Reject)
    }
}

/// The setting that names one member, or none.
fn member(config: &Config, setting: &str) -> Result<Option<Field>, String> {
    let named =
        fields(config.get(setting).unwrap_or_default()).map_err(|error| format!("{setting} {error}"))?;
    match &named[..] {
        [] => Ok(None),
        [field @ Field::Json(_)] => Ok(Some(field.clone())),
        [field] => Err(format!("{setting} is `{field}`, but must be of JSON, as json:items")),
        [..] => Err(format!("{setting} names {} fields, and must name one", named.len())),
    }
}

impl Settings {
    fn explode(&self, record: Record<'_>, value: &[u8], out: &mut Out<'_>) -> Result<(), String> {
        let list = self.reader.members(Some(value))?[0].filter(|list| !list.is_null());
        let Some(list) = list else {
            return match self.missing {
                Missing::Drop => Ok(()),
                Missing::Keep => {
                    out.keep(record);
                    Ok(())
                }
                Missing::Reject => Err(format!("it has no `{}`", self.items)),
            };
        };
        let items = list.items().ok_or_else(|| format!("`{}` is no list", self.items))?;
        let around = self.around(value, list);
        self.check(&items, list, around)?;
        // All of a record comes out or nothing, so what can fail comes first.
        let keys = items.iter().map(|item| self.key_of(*item)).collect::<Result<Vec<_>, String>>()?;
        for (place, (item, key)) in items.iter().zip(keys).enumerate() {
            let mut emitted = out.write(record, |data| {
                [around.0, item.text().as_bytes(), around.1]
                    .iter()
                    .for_each(|part| data.extend_from_slice(part));
            });
            if let Some(key) = key {
                emitted = emitted.key(key);
            }
            if !self.index_header.is_empty() {
                emitted.header(&self.index_header, place.to_string());
            }
        }
        Ok(())
    }

    /// What stands before and behind each item.
    fn around<'v>(&self, value: &'v [u8], list: Json<'v>) -> (&'v [u8], &'v [u8]) {
        match self.shape {
            Shape::Item => (b"", b""),
            Shape::Object => {
                // The list is a part of the value's own bytes.
                let start = list.text().as_ptr() as usize - value.as_ptr() as usize;
                (&value[..start], &value[start + list.text().len()..])
            }
        }
    }

    fn check(&self, items: &[Json<'_>], list: Json<'_>, around: (&[u8], &[u8])) -> Result<(), String> {
        if items.len() > self.max_items {
            let (items, max) = (items.len(), self.max_items);
            return Err(format!("`{}` has {items} items, and max_items is {max}", self.items));
        }
        let bytes =
            (around.0.len() + around.1.len()).saturating_mul(items.len()).saturating_add(list.text().len());
        if bytes > MAX_BYTES {
            return Err(format!(
                "its records would have {bytes} bytes, and at most {MAX_BYTES} come of one record"
            ));
        }
        Ok(())
    }

    /// The key of an item, if it gets one of its own: text as it is, anything else as JSON.
    fn key_of(&self, item: Json<'_>) -> Result<Option<Vec<u8>>, String> {
        let Some((field, reader)) = &self.key else { return Ok(None) };
        let found = reader.members(Some(item.text().as_bytes()))?[0].filter(|found| !found.is_null());
        let found = found.ok_or_else(|| format!("an item has no `{field}` to be its key"))?;
        match found.string() {
            Some(text) => Ok(Some(text?.into_owned().into_bytes())),
            None => Ok(Some(found.text().as_bytes().to_vec())),
        }
    }
}

pelton_sdk::export_transform!(Explode);

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{RunError, TestRecord, run};

    use super::*;

    const ORDER: &str = r#"{"id":18446744073709551615, "items" : [ {"sku":"a","n":1.0} , {"sku":7}, {"sku":"b\u0021"} ],"x":null}"#;

    fn config<'a>(of: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let defaults = [
            ("items", "json:items"),
            ("into", "item"),
            ("key", ""),
            ("index_header", ""),
            ("missing", "drop"),
            ("max_items", "10000"),
        ];
        let rest = defaults.into_iter().filter(|(key, _)| of.iter().all(|(given, _)| given != key));
        of.iter().copied().chain(rest).collect()
    }

    fn order() -> TestRecord {
        let headers = vec![("h".to_owned(), Some(b"1".to_vec()))];
        TestRecord { timestamp: 77, headers, ..TestRecord::value(ORDER).with_key("k") }
    }

    fn exploded(of: &[(&str, &str)]) -> Vec<TestRecord> {
        run::<Explode>(&config(of), &[order()]).expect("is processed")
    }

    #[test]
    fn items_become_records() {
        let items = [r#"{"sku":"a","n":1.0}"#, r#"{"sku":7}"#, r#"{"sku":"b\u0021"}"#];
        let expect = items.map(|item| TestRecord { value: Some(item.into()), ..order() });
        assert_eq!(exploded(&[]), expect);
        let objects = expect.clone().map(|record| {
            let value = format!(r#"{{"id":18446744073709551615, "items" : {},"x":null}}"#, record.text());
            TestRecord { value: Some(value.into()), ..record }
        });
        assert_eq!(exploded(&[("into", "object")]), objects);
        let keyed = exploded(&[("key", "json:sku"), ("index_header", "nr")]);
        let keys: Vec<&[u8]> = keyed.iter().filter_map(|record| record.key.as_deref()).collect();
        assert_eq!(keys, [&b"a"[..], b"7", b"b!"]);
        assert_eq!(
            keyed[2].headers,
            [("h".to_owned(), Some(b"1".to_vec())), ("nr".to_owned(), Some(b"2".to_vec()))]
        );
        let whole = [TestRecord::value(" [1, null ,[2]]")];
        let out = run::<Explode>(&config(&[("items", "json")]), &whole).expect("is processed");
        assert_eq!(out.iter().map(TestRecord::text).collect::<Vec<_>>(), ["1", "null", "[2]"]);
    }

    #[test]
    fn lists_that_are_empty_or_not_there() {
        let given = [r#"{"items":[]}"#, r#"{"items":null}"#, "{}"].map(TestRecord::value);
        let gone = TestRecord::default().with_key("k");
        let given = [&given[..], std::slice::from_ref(&gone)].concat();
        assert_eq!(run::<Explode>(&config(&[]), &given), Ok(vec![gone]));
        assert_eq!(run::<Explode>(&config(&[("missing", "keep")]), &given), Ok(given[1..].to_vec()));
        let strict = run::<Explode>(&config(&[("missing", "reject")]), &given);
        let reason = "it has no `json:items`".to_owned();
        assert_eq!(strict, Err(RunError::Rejected(vec![(1, reason.clone()), (2, reason)])));
    }

    #[test]
    fn records_that_do_not_fit_come_out_whole_or_not_at_all() {
        let big = format!("{{\"big\":\"{}\",\"items\":[1,2,3]}}", "x".repeat(MAX_BYTES / 3));
        let given = [
            r#"{"items":{"a":1}}"#,
            r#"{"items":[1,2,3,4]}"#,
            r#"{"items":[1,2],"#,
            &big,
            r#"{"items":[1]}"#,
        ];
        let of = config(&[("max_items", "3"), ("into", "object")]);
        let Err(RunError::Rejected(reasons)) = run::<Explode>(&of, &given.map(TestRecord::value)) else {
            panic!("is rejected")
        };
        let [(0, no_list), (1, long), (2, not_json), (3, big)] = &reasons[..] else { panic!("{reasons:?}") };
        assert_eq!(no_list, "`json:items` is no list");
        assert_eq!(long, "`json:items` has 4 items, and max_items is 3");
        assert!(not_json.starts_with("the value is not JSON"), "{not_json}");
        assert!(big.starts_with("its records would have 8388"), "{big}");
        let keyless = run::<Explode>(&config(&[("key", "json:n")]), &[order()]);
        assert_eq!(
            keyless,
            Err(RunError::Rejected(vec![(0, "an item has no `json:n` to be its key".to_owned())]))
        );
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (of, expect) in [
            (("items", ""), "items is empty"),
            (("items", "items"), "items has `items` at character 1, where a field should be"),
            (("items", "key"), "items is `key`, but must be of JSON"),
            (("items", "json:a, json:b"), "items names 2 fields"),
            (("key", "header:x"), "key is `header:x`, but must be of JSON"),
            (("into", "list"), "into is `list`, but must be one of `item`, `object`"),
            (("missing", "null"), "missing is `null`"),
            (("max_items", "0"), "max_items is 0"),
            (("max_items", "-1"), "max_items is `-1`"),
        ] {
            let Err(RunError::Configure(error)) = run::<Explode>(&config(&[of]), &[]) else {
                panic!("{expect}")
            };
            assert!(error.starts_with(expect), "{error}");
        }
    }
}
