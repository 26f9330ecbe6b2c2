//! Lists of fields, as settings have them.

use crate::field::{Field, Path};
use crate::token::{Token, Tokens};

/// A field and the name that it gets.
pub type Named<F> = (F, Option<String>);

/// A field, as conditions have it.
pub(crate) fn field(tokens: &mut Tokens<'_>) -> Result<Field, String> {
    one(tokens, "a field (as `json:member` or `key`)", Field::parse)
}

/// `FIELD, FIELD, …`; none of an empty text.
///
/// # Errors
/// What is wrong and where, as a text that follows the name of the setting.
pub fn fields(setting: &str) -> Result<Vec<Field>, String> {
    let mut tokens = Tokens::of(setting)?;
    several(&mut tokens, field)
}

/// `PATH, PATH, …`; none of an empty text. Also takes `key`, which is `None`.
///
/// # Errors
/// What is wrong and where, as a text that follows the name of the setting.
pub fn targets(setting: &str) -> Result<Vec<Option<Path>>, String> {
    let parse = |text: &str| if text == "key" { Ok(None) } else { Path::parse(text).map(Some) };
    let mut tokens = Tokens::of(setting)?;
    several(&mut tokens, |tokens| one(tokens, "a member (as `json:member`)", parse))
}

/// `FIELD as NAME, FIELD, …`; none of an empty text. `parse` says what is wrong as a text that follows "which is".
///
/// # Errors
/// What is wrong and where, as a text that follows the name of the setting.
pub fn named_fields<F>(
    setting: &str,
    parse: impl Fn(&str) -> Result<F, &'static str>,
) -> Result<Vec<Named<F>>, String> {
    let mut tokens = Tokens::of(setting)?;
    several(&mut tokens, |tokens| {
        let field = one(tokens, "a field (as `json:member`)", &parse)?;
        if !tokens.word("as") {
            return Ok((field, None));
        }
        let (Some(Token::Word(name)) | Some(Token::Quoted(name)) | Some(Token::Text(name))) = tokens.peek()
        else {
            return Err(tokens.expected("a name"));
        };
        let name = name.clone();
        tokens.skip();
        Ok((field, Some(name)))
    })
}

fn one<F>(
    tokens: &mut Tokens<'_>,
    what: &str,
    parse: impl Fn(&str) -> Result<F, &'static str>,
) -> Result<F, String> {
    let (Some(Token::Word(text)) | Some(Token::Quoted(text))) = tokens.peek() else {
        return Err(tokens.expected(what));
    };
    let field = parse(text).map_err(|expect| format!("{}, which is {expect}", tokens.expected("a field")))?;
    tokens.skip();
    Ok(field)
}

fn several<T>(
    tokens: &mut Tokens<'_>,
    next: impl Fn(&mut Tokens<'_>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut found = Vec::new();
    if tokens.is_done() {
        return Ok(found);
    }
    loop {
        found.push(next(tokens)?);
        if tokens.is_done() {
            return Ok(found);
        }
        if !tokens.sign(",") {
            return Err(tokens.expected("`,` or the end"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_fields() {
        let named =
            named_fields("json:a.b as x, `json:odd name` as `y z`, key", Field::parse).expect("is a list");
        let texts: Vec<(String, Option<&str>)> =
            named.iter().map(|(field, name)| (field.to_string(), name.as_deref())).collect();
        let odd = "json:odd name".to_owned();
        assert_eq!(texts, [("json:a.b".to_owned(), Some("x")), (odd, Some("y z")), ("key".to_owned(), None)]);
        assert_eq!(fields(" "), Ok(Vec::new()));
        assert_eq!(targets("key, json:a").map(|found| (found[0].clone(), found.len())), Ok((None, 2)));
        for (bad, expect) in [
            ("json:a as", "ends where a name"),
            ("json:a,", "ends where a field"),
            ("json:a b", "has `b` at character 8, where `,` or the end"),
            ("a", "has `a` at character 1, where a field should be, which is one of"),
            ("'a'", "where a field (as `json:member`) should be"),
        ] {
            let error = named_fields(bad, Field::parse).expect_err(bad);
            assert!(error.contains(expect), "{bad}: {error}");
        }
    }
}
