//! What a setting names of a record.

use std::fmt;

/// Levels of a path, as in the fields of manifests.
const MAX_PATH: usize = 32;
/// What a field may be, as a text that follows "which is".
const FIELDS: &str = "one of `key`, `raw`, `timestamp`, `header:NAME`, `json`, `json:a.b`, \
                      or `json:/a/b` as a JSON pointer, with at most 32 names";

/// A part of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The key, as bytes.
    Key,
    /// The value, as bytes.
    Raw,
    /// The timestamp, in milliseconds since 1970-01-01 UTC.
    Timestamp,
    /// The value of the last header of this name, as bytes.
    Header(String),
    /// A member of the value, which is JSON: the names on the way to it, none for the whole value. In a list, a name that
    /// is a number is a place.
    Json(Vec<String>),
}

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A member of an object, or the item of a list where it is a number.
    Name(String),
    /// Each item of a list.
    Each,
}

/// A way to members of a JSON value: as `json:a.b`, with `*` for each item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

impl Field {
    /// Parses the text of a setting.
    ///
    /// # Errors
    /// What would be right, as a text that follows "which is".
    pub fn parse(text: &str) -> Result<Field, &'static str> {
        match text {
            "key" => Ok(Field::Key),
            "raw" => Ok(Field::Raw),
            "timestamp" => Ok(Field::Timestamp),
            "json" => Ok(Field::Json(Vec::new())),
            _ => match text.split_once(':') {
                Some(("json", path)) => names(path).map(Field::Json).ok_or(FIELDS),
                Some(("header", name)) if !name.is_empty() => Ok(Field::Header(name.to_owned())),
                _ => Err(FIELDS),
            },
        }
    }
}

impl Path {
    /// Parses the text of a setting.
    ///
    /// # Errors
    /// What would be right, as a text that follows "which is".
    pub fn parse(text: &str) -> Result<Path, &'static str> {
        const PATHS: &str =
            "one of `json:a.b`, `json:items.*.b`, or `json:/a/b` as a JSON pointer, with at most 32 names";
        let path = text.strip_prefix("json:").ok_or(PATHS)?;
        // A pointer takes any name, so a star in it is a name.
        let is_pointer = path.starts_with('/');
        let step = |name: String| if name == "*" && !is_pointer { Step::Each } else { Step::Name(name) };
        Ok(Path(names(path).ok_or(PATHS)?.into_iter().map(step).collect()))
    }
}

/// The names of `a.b` or of the JSON pointer `/a/b` (RFC 6901); none if there are too many, or one is empty without a slash.
pub fn names(path: &str) -> Option<Vec<String>> {
    let names: Vec<String> = match path.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect(),
        None => path.split('.').map(str::to_owned).collect(),
    };
    let good =
        names.len() <= MAX_PATH && (path.starts_with('/') || names.iter().all(|name| !name.is_empty()));
    good.then_some(names)
}

fn write_names<'n>(f: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'n str> + Clone) -> fmt::Result {
    let is_odd = |name: &str| name.is_empty() || name.contains(['.', '/', '~']);
    if names.clone().any(is_odd) {
        f.write_str("json:")?;
        return names
            .into_iter()
            .try_for_each(|name| write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")));
    }
    for (i, name) in names.enumerate() {
        write!(f, "{}{name}", if i == 0 { "json:" } else { "." })?;
    }
    Ok(())
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Key => f.write_str("key"),
            Field::Raw => f.write_str("raw"),
            Field::Timestamp => f.write_str("timestamp"),
            Field::Header(name) => write!(f, "header:{name}"),
            Field::Json(names) if names.is_empty() => f.write_str("json"),
            Field::Json(names) => write_names(f, names.iter().map(String::as_str)),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |step| match step {
            &Step::Each => "*",
            Step::Name(name) => name.as_str(),
        };
        write_names(f, self.0.iter().map(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_they_are_parsed() {
        for good in [
            "key",
            "raw",
            "timestamp",
            "header:a b:c",
            "json",
            "json:a",
            "json:a.b.0",
            "json:/a.b/c~1d/~0",
            "json:/",
        ] {
            assert_eq!(Field::parse(good).map(|field| field.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "value", "json:", "json:a..b", "header:", "header", "all", "long", "Key"] {
            assert!(Field::parse(bad).is_err(), "{bad}");
        }
        assert!(Field::parse(&format!("json:{}", ["a"; 33].join("."))).is_err());
    }

    #[test]
    fn a_star_is_each_item() {
        let path = Path::parse("json:a.*.b").expect("is one");
        assert_eq!((path.0[1].clone(), path.to_string().as_str()), (Step::Each, "json:a.*.b"));
        assert_eq!(Path::parse("json:/a/*").expect("is one").0[1], Step::Name("*".to_owned()));
        assert!(Path::parse("json").is_err() && Path::parse("key").is_err() && Path::parse("a.b").is_err());
    }
}
