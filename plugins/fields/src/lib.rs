//! What the ready plugins share: fields of records as manifests name them, JSON whose parts stay as they are written,
//! numbers that are compared digit by digit, and conditions. No plugin by itself.
//!
//! Fields and conditions are written as those of the built-in nodes; `conditions.tsv` beside this crate is a table of
//! conditions that both are tested with.

mod condition;
mod field;
mod find;
mod json;
mod list;
mod literal;
mod number;
mod rewrite;
mod token;

pub use condition::Condition;
pub use field::{Field, Path, Step, names};
pub use find::{Reader, Value};
pub use json::{Json, quote};
pub use list::{Named, fields, named_fields, targets};
pub use literal::{Match, matches};
pub use number::Number;
pub use rewrite::{Action, Rewrite};

/// A setting that is one of a few words.
///
/// # Errors
/// A text for the person who deploys.
pub fn choice<T: Copy>(key: &str, given: Option<&str>, choices: &[(&str, T)]) -> Result<T, String> {
    let given = given.unwrap_or_default();
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == given) {
        return Ok(*chosen);
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    Err(format!("{key} is `{given}`, but must be one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_chosen_or_refused() {
        let choices = [("skip", 1), ("null", 2)];
        assert_eq!(choice("missing", Some("null"), &choices), Ok(2));
        let refused = choice("missing", Some("nul"), &choices);
        assert_eq!(refused, Err("missing is `nul`, but must be one of `skip`, `null`".to_owned()));
    }
}
