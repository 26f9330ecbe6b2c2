//! What a field is compared with.

use std::cmp::Ordering;

use crate::find::Value;
use crate::number::Number;
use crate::token::{Token, Tokens};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Bool(bool),
    Number(Number<'static>),
    Text(String),
}

/// One way for a field to fit, as in `'eu', starts with 'de-', 7, null`.
#[derive(Debug, Clone, PartialEq)]
pub enum Match {
    /// It is equal to a text, a number, true or false.
    #[doc(hidden)]
    Is(Equal),
    /// It is a text that begins so.
    StartsWith(String),
    /// It is null or not there.
    Null,
}

/// A literal, for those outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Equal(Literal);

impl Literal {
    pub(crate) fn parse(tokens: &mut Tokens<'_>) -> Result<Literal, String> {
        let literal = match tokens.peek() {
            Some(Token::Text(text)) => Literal::Text(text.clone()),
            Some(Token::Number(text)) => {
                Literal::Number(Number::parse(text).ok_or_else(|| tokens.expected("a number"))?.into_owned())
            }
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("null") => {
                return Err(tokens.expected("a value (nothing equals null: say `is null` or `is not null`)"));
            }
            _ => return Err(tokens.expected("a number, a text in quotes, `true` or `false`")),
        };
        tokens.skip();
        Ok(literal)
    }

    /// How a value is to it; none if they are of different types. Bytes are a text, or the number that they are written as.
    pub(crate) fn against(&self, value: &Value<'_>) -> Option<Ordering> {
        match (self, value) {
            (Literal::Bool(literal), Value::Bool(value)) => Some(value.cmp(literal)),
            (Literal::Number(literal), Value::Number(value)) => Some(value.compare(literal)),
            (Literal::Number(literal), Value::Bytes(value)) => {
                Some(Number::parse(std::str::from_utf8(value).ok()?.trim_ascii())?.compare(literal))
            }
            (Literal::Text(literal), value) => Some(bytes(value)?.cmp(literal.as_bytes())),
            (Literal::Bool(_) | Literal::Number(_), _) => None,
        }
    }
}

/// The bytes of a text.
pub(crate) fn bytes<'v>(value: &'v Value<'_>) -> Option<&'v [u8]> {
    match value {
        Value::Text(text) => Some(text.as_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Composite(_) => None,
    }
}

/// The words behind a field of a list of matches.
///
/// # Errors
/// What is wrong and where, as a text that follows the name of the setting.
pub fn matches(setting: &str) -> Result<Vec<Match>, String> {
    let mut tokens = Tokens::of(setting)?;
    let mut found = Vec::new();
    loop {
        found.push(one(&mut tokens)?);
        if tokens.is_done() {
            return Ok(found);
        }
        if !tokens.sign(",") {
            return Err(tokens.expected("`,` or the end"));
        }
    }
}

fn one(tokens: &mut Tokens<'_>) -> Result<Match, String> {
    if tokens.word("null") {
        return Ok(Match::Null);
    }
    if tokens.word("starts") {
        return Ok(Match::StartsWith(text_behind_with(tokens)?));
    }
    let literal = Literal::parse(tokens);
    // A list has more to offer than a comparison.
    let more =
        |_| tokens.expected("a number, a text in quotes, `true`, `false`, `null` or `starts with 'x'`");
    literal.map(|literal| Match::Is(Equal(literal))).map_err(more)
}

/// What comes behind `starts` and `ends`.
pub(crate) fn text_behind_with(tokens: &mut Tokens<'_>) -> Result<String, String> {
    if !tokens.word("with") {
        return Err(tokens.expected("`with`"));
    }
    match tokens.peek() {
        Some(Token::Text(text)) => {
            let text = text.clone();
            tokens.skip();
            Ok(text)
        }
        _ => Err(tokens.expected("a text in quotes")),
    }
}

impl Match {
    /// Whether a field fits.
    pub fn takes(&self, value: Option<&Value<'_>>) -> bool {
        match (self, value) {
            (Match::Null, None | Some(Value::Null)) => true,
            (Match::Is(Equal(literal)), Some(value)) => literal.against(value) == Some(Ordering::Equal),
            (Match::StartsWith(text), Some(value)) => {
                bytes(value).is_some_and(|bytes| bytes.starts_with(text.as_bytes()))
            }
            (_, None) | (Match::Null, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn fields_fit_or_do_not() {
        let text = |text: &'static str| Value::Text(Cow::Borrowed(text));
        let number = |text| Value::Number(Number::parse(text).expect("is one"));
        let all = matches("'eu', starts with 'de-', 7, TRUE, null").expect("is a list");
        let takes = |value: Option<&Value<'_>>| all.iter().position(|one| one.takes(value));
        assert_eq!(takes(Some(&text("eu"))), Some(0));
        assert_eq!(takes(Some(&Value::Bytes(b"eu"))), Some(0));
        assert_eq!(takes(Some(&text("de-by"))), Some(1));
        assert_eq!(takes(Some(&text("de"))), None);
        assert_eq!(takes(Some(&number("7.0"))), Some(2));
        assert_eq!(takes(Some(&Value::Bytes(b" 7 "))), Some(2));
        assert_eq!(takes(Some(&text("7"))), None);
        assert_eq!(takes(Some(&Value::Bool(true))), Some(3));
        assert_eq!(takes(Some(&Value::Bool(false))), None);
        assert_eq!((takes(Some(&Value::Null)), takes(None)), (Some(4), Some(4)));
    }

    #[test]
    fn what_is_no_list() {
        for (bad, expect) in [
            ("", "ends where a number, a text in quotes, `true`, `false`, `null`"),
            ("'eu',", "ends where"),
            ("'eu' 'us'", "has `'us'` at character 6, where `,` or the end"),
            ("eu", "has `eu` at character 1, where a number"),
            ("starts 'x'", "where `with`"),
            ("starts with 5", "where a text"),
            ("'eu", "has a text that does not end, which begins at character 1"),
        ] {
            let error = matches(bad).expect_err(bad);
            assert!(error.contains(expect), "{bad}: {error}");
        }
    }
}
