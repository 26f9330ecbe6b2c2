//! What is compared: rows of named cells, as a fixture says them and as they came. Both are shown in one way, which is that of a
//! fixture, so what is shown can be copied into one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::Value as Json;

/// Bytes, as a fixture says them: `"text"`, `{ json = '…' }`, `{ base64 = "…" }`, `{ long = 5 }`. What is left out is null.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// JSON: the text for what is given, the value for what is expected.
    Json { text: String, value: Json },
}

impl Content {
    /// What a plugin is given.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Content::Bytes(bytes) => bytes,
            Content::Json { text, .. } => text.as_bytes(),
        }
    }

    fn is(&self, came: &[u8]) -> bool {
        match self {
            Content::Bytes(bytes) => bytes == came,
            Content::Json { value, .. } => {
                serde_json::from_slice::<Json>(came).is_ok_and(|came| came == *value)
            }
        }
    }

    /// As a fixture has it.
    pub(super) fn show(&self) -> String {
        match self {
            Content::Json { text, .. } => format!("{{ json = {} }}", quoted(text)),
            Content::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) => {
                    quoted(text)
                }
                _ => format!("{{ base64 = {} }}", quoted(&BASE64.encode(bytes))),
            },
        }
    }

    /// The same bytes in the form that was expected, where they have it.
    fn like(self, expected: Option<&Content>) -> Content {
        match (self, expected) {
            (Content::Bytes(bytes), Some(Content::Json { .. })) => match serde_json::from_slice(&bytes) {
                // Bytes that are JSON are UTF-8.
                Ok(value) => Content::Json { text: String::from_utf8_lossy(&bytes).into_owned(), value },
                Err(_) => Content::Bytes(bytes),
            },
            (content, _) => content,
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Content {
        Content::Bytes(text.into())
    }
}

impl TryFrom<toml::Value> for Content {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Content, String> {
        let wrong = "must be a text, or one of { json = '…' }, { base64 = \"…\" }, { long = 5 }";
        let table = match value {
            toml::Value::String(text) => return Ok(Content::Bytes(text.into_bytes())),
            toml::Value::Table(table) if table.len() == 1 => table,
            _ => return Err(wrong.to_owned()),
        };
        match table.into_iter().next() {
            Some((kind, toml::Value::String(text))) if kind == "json" => match serde_json::from_str(&text) {
                Ok(value) => Ok(Content::Json { text, value }),
                Err(error) => Err(format!("is no JSON: {error}")),
            },
            Some((kind, toml::Value::String(text))) if kind == "base64" => {
                BASE64.decode(&text).map(Content::Bytes).map_err(|error| format!("is no base64: {error}"))
            }
            Some((kind, toml::Value::Integer(number))) if kind == "long" => {
                Ok(Content::Bytes(number.to_be_bytes().to_vec()))
            }
            _ => Err(wrong.to_owned()),
        }
    }
}

/// A text on one line, as TOML has it: in single quotes where that saves escapes.
fn quoted(text: &str) -> String {
    let is_plain = !text.chars().any(|c| c == '\'' || c.is_control());
    if is_plain && text.contains(['"', '\\']) {
        return format!("'{text}'");
    }
    // TOML's escapes are those of JSON, but for one character.
    Json::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A name and a value; none is null. In a fixture an array of one or two.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Vec<Content>")]
pub(super) struct Header(pub(super) String, pub(super) Option<Content>);

impl TryFrom<Vec<Content>> for Header {
    type Error = String;

    fn try_from(parts: Vec<Content>) -> Result<Header, String> {
        let wrong = || "must be [\"name\", \"value\"], or [\"name\"] for a value that is null".to_owned();
        let mut parts = parts.into_iter();
        let (Some(Content::Bytes(name)), value, None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        Ok(Header(String::from_utf8(name).map_err(|_| wrong())?, value))
    }
}

/// A cell of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Content(Content),
    Number(i64),
    Flag(bool),
    Text(String),
    /// Of what came, a part is enough.
    Part(String),
    Headers(Vec<Header>),
}

impl Cell {
    fn is(&self, came: &Cell) -> bool {
        match (self, came) {
            (Cell::Content(expected), Cell::Content(came)) => expected.is(came.bytes()),
            (Cell::Part(part), Cell::Text(came)) => came.contains(part.as_str()),
            (Cell::Headers(expected), Cell::Headers(came)) => {
                let same = |(expected, came): (&Header, &Header)| {
                    expected.0 == came.0
                        && match (&expected.1, &came.1) {
                            (Some(expected), Some(came)) => expected.is(came.bytes()),
                            (expected, came) => expected.is_none() && came.is_none(),
                        }
                };
                expected.len() == came.len() && expected.iter().zip(came).all(same)
            }
            (expected, came) => expected == came,
        }
    }

    fn show(&self) -> String {
        match self {
            Cell::Content(content) => content.show(),
            Cell::Number(number) => number.to_string(),
            Cell::Flag(flag) => flag.to_string(),
            Cell::Text(text) | Cell::Part(text) => quoted(text),
            Cell::Headers(headers) => {
                let pair = |Header(name, value): &Header| {
                    let value = value.iter().map(|value| format!(", {}", value.show()));
                    format!("[{}{}]", quoted(name), value.collect::<String>())
                };
                format!("[{}]", headers.iter().map(pair).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Cells that are not as they mostly are (null, 0, none), by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row(Vec<(&'static str, Cell)>);

/// What a fixture may leave out although it came.
const OPTIONAL: &str = "kind";

impl Row {
    /// With one more cell, if there is something in it.
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, cell: Option<Cell>) -> Row {
        self.0.extend(cell.map(|cell| (name, cell)));
        self
    }

    fn get(&self, name: &str) -> Option<&Cell> {
        self.0.iter().find(|(of, _)| *of == name).map(|(_, cell)| cell)
    }

    /// The cells in which `came` is not as it should be.
    pub(super) fn differences(&self, came: &Row) -> Vec<&'static str> {
        let wrong =
            |(name, expected): &&(&'static str, Cell)| !came.get(name).is_some_and(|came| expected.is(came));
        let more = |(name, _): &&(&'static str, Cell)| self.get(name).is_none() && *name != OPTIONAL;
        self.0.iter().filter(wrong).chain(came.0.iter().filter(more)).map(|(name, _)| *name).collect()
    }

    pub(super) fn is(&self, came: &Row) -> bool {
        self.differences(came).is_empty()
    }

    /// In a fixture's own words, on one line.
    pub(super) fn show(&self) -> String {
        let cells = self.0.iter().map(|(name, cell)| format!("{name} = {}", cell.show()));
        format!("{{ {} }}", cells.collect::<Vec<_>>().join(", ")).replace("{  }", "{}")
    }

    /// The cell `value` alone.
    pub(super) fn value(&self) -> Option<String> {
        self.get("value").map(Cell::show)
    }

    /// What came, with its bytes in the form of what was expected.
    pub(super) fn like(self, expected: Option<&Row>) -> Row {
        let like = |(name, cell)| {
            let was = expected.and_then(|expected| expected.get(name));
            match (cell, was) {
                (Cell::Content(content), Some(Cell::Content(was))) => {
                    (name, Cell::Content(content.like(Some(was))))
                }
                (cell, _) => (name, cell),
            }
        };
        Row(self.0.into_iter().map(like).collect())
    }
}

/// What is not as it should be in a list, a line each: `output[1]: …`.
pub(super) fn compare(name: &str, expected: &[Row], came: &[Row]) -> Vec<String> {
    let is = |pair: (&Row, &Row)| pair.0.is(pair.1);
    // What is alike at both ends says nothing.
    let before = expected.iter().zip(came).take_while(|pair| is(*pair)).count();
    let rest = (&expected[before..], &came[before..]);
    let behind = rest.0.iter().rev().zip(rest.1.iter().rev()).take_while(|pair| is(*pair)).count();
    let expected = &rest.0[..rest.0.len() - behind];
    let came = &rest.1[..rest.1.len() - behind];
    let mut lines = Vec::new();
    for i in 0..expected.len().max(came.len()) {
        let at = before + i;
        match (expected.get(i), came.get(i)) {
            (Some(expected), Some(came)) => {
                let cells = expected.differences(came);
                if cells.is_empty() {
                    continue;
                }
                let came = came.clone().like(Some(expected));
                lines.push(format!("{name}[{at}]: {} differs", cells.join(", ")));
                lines.push(format!("  expected {}", expected.show()));
                lines.push(format!("  came     {}", came.show()));
            }
            (Some(expected), None) => lines.push(format!("{name}[{at}]: did not come: {}", expected.show())),
            (None, Some(came)) => {
                lines.push(format!("{name}[{at}]: came, and is not expected: {}", came.show()))
            }
            (None, None) => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(toml: &str) -> Result<Content, String> {
        #[derive(Deserialize)]
        struct Of {
            of: Content,
        }
        toml::from_str::<Of>(&format!("of = {toml}"))
            .map(|of| of.of)
            .map_err(|error| error.message().to_owned())
    }

    fn row(value: &str) -> Row {
        Row::default().with("value", Some(Cell::Content(content(value).expect("is content"))))
    }

    #[test]
    fn bytes_in_four_forms() {
        assert_eq!(content("'a'").expect("is text").bytes(), b"a");
        assert_eq!(content("{ base64 = 'AAE=' }").expect("is base64").bytes(), [0, 1]);
        assert_eq!(content("{ long = 258 }").expect("is a number").bytes(), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(content("{ json = '{ \"a\": 1 }' }").expect("is JSON").bytes(), b"{ \"a\": 1 }");
        for wrong in ["5", "{}", "{ text = 'a' }", "{ long = 'a' }", "{ json = '{' }", "{ base64 = '?' }"] {
            assert!(content(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_can_be_expected() {
        for (bytes, shown) in [
            (&b"a\"b"[..], r#"'a"b'"#),
            (b"", r#""""#),
            (b"\x00", r#"{ base64 = "AA==" }"#),
            (b"\xff", r#"{ base64 = "/w==" }"#),
            ("ä".as_bytes(), "\"ä\""),
        ] {
            let text = Content::Bytes(bytes.to_vec()).show();
            assert_eq!(text, shown);
            assert_eq!(content(&text).expect("is content").bytes(), bytes);
        }
    }

    #[test]
    fn json_is_what_it_means_and_text_is_what_it_says() {
        let came = |text: &str| Row::default().with("value", Some(Cell::Content(text.into())));
        let json = row("{ json = '{\"a\": 1, \"b\": [true]}' }");
        assert!(
            json.is(&came("{\"b\":[true],\"a\":1}")) && !json.is(&came("{\"a\":1}")) && !json.is(&came("?"))
        );
        assert!(!row("'{\"a\": 1}'").is(&came("{\"a\":1}")));
        let like = came("{\"a\":2}").like(Some(&json)).show();
        assert_eq!(like, "{ value = { json = '{\"a\":2}' } }");
    }

    #[test]
    fn a_list_says_which_row_and_which_cell() {
        let rows =
            |values: &[&str]| values.iter().map(|value| row(&format!("'{value}'"))).collect::<Vec<_>>();
        let lines = |expected: &[&str], came: &[&str]| compare("output", &rows(expected), &rows(came));
        assert!(lines(&["a", "b"], &["a", "b"]).is_empty());
        let differs = lines(&["a", "b", "c"], &["a", "x", "c"]);
        let shown =
            ["output[1]: value differs", "  expected { value = \"b\" }", "  came     { value = \"x\" }"];
        assert_eq!(differs, shown);
        assert_eq!(lines(&["a", "b", "c"], &["a", "c"]), ["output[1]: did not come: { value = \"b\" }"]);
        assert_eq!(lines(&["a"], &["x", "a"]), ["output[0]: came, and is not expected: { value = \"x\" }"]);
        // The same row twice is not one row.
        assert_eq!(lines(&["a"], &["a", "a"]), ["output[1]: came, and is not expected: { value = \"a\" }"]);
    }

    #[test]
    fn of_a_reason_a_part_is_enough_and_its_kind_may_be_left_out() {
        let came = Row::default()
            .with("kind", Some(Cell::Text("reject".into())))
            .with("reason", Some(Cell::Text("no value (line 7)".into())));
        let expected = |reason: &str| Row::default().with("reason", Some(Cell::Part(reason.into())));
        assert!(expected("no value").is(&came) && !expected("no key").is(&came));
        assert_eq!(expected("").with("kind", Some(Cell::Text("fatal".into()))).differences(&came), ["kind"]);
        assert!(!Row::default().is(&came));
    }

    #[test]
    fn headers_have_names_and_values() {
        let header = |toml: &str| {
            #[derive(Deserialize)]
            struct Of {
                of: Header,
            }
            toml::from_str::<Of>(&format!("of = {toml}")).map(|of| of.of).map_err(|_| ())
        };
        assert_eq!(header("['a', 'b']"), Ok(Header("a".into(), Some("b".into()))));
        assert_eq!(header("['a']"), Ok(Header("a".into(), None)));
        assert!(header("[]").is_err() && header("['a', 'b', 'c']").is_err());
        let cell = |headers: &[&Header]| {
            let headers = headers.iter().map(|header| (*header).clone()).collect();
            Row::default().with("headers", Some(Cell::Headers(headers)))
        };
        let [both, null] = [Header("a".into(), Some("b".into())), Header("a".into(), None)];
        assert_eq!(cell(&[&both, &null]).show(), "{ headers = [[\"a\", \"b\"], [\"a\"]] }");
        assert!(cell(&[&both]).is(&cell(&[&both])));
        assert!(!cell(&[&both]).is(&cell(&[&null])) && !cell(&[&null]).is(&cell(&[&both])));
    }
}
