use std::fmt::Display;
use std::str::FromStr;

/// The settings of a plugin: every key of `plugin.toml`, as the pipeline sets it or with its default.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pairs: Vec<(String, String)>,
}

impl Config {
    #[doc(hidden)]
    pub fn new(pairs: Vec<(String, String)>) -> Config {
        Config { pairs }
    }

    /// The value of a key, as text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of a key as another type; `None` if there is no such key.
    ///
    /// # Errors
    /// A text for [`Transform::configure`](crate::Transform::configure) to return: the key, the value, and why it does
    /// not fit.
    pub fn parse<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|error| format!("{key} is `{value}`: {error}"))
    }

    /// All keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_and_errors_name_the_key() {
        let config = Config::new(vec![("a".into(), "5".into()), ("b".into(), "x".into())]);
        assert_eq!(config.parse::<u8>("a"), Ok(Some(5)));
        assert_eq!(config.parse::<u8>("c"), Ok(None));
        assert_eq!(config.parse::<u8>("b"), Err("b is `x`: invalid digit found in string".to_owned()));
    }
}
