//! What settings are made of: words, texts, numbers and signs, each with its place.

/// Bytes of a setting: nobody writes more by hand.
const MAX_BYTES: usize = 4_096;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A keyword or a field.
    Word(String),
    /// A field in backquotes.
    Quoted(String),
    Text(String),
    Number(String),
    /// A bracket, a comma or a comparison.
    Sign(&'static str),
}

const SIGNS: [&str; 11] = ["==", "!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ","];

/// The tokens of a setting, and how far a parser is.
pub(crate) struct Tokens<'t> {
    text: &'t str,
    /// With their places, in bytes.
    tokens: Vec<(usize, Token)>,
    at: usize,
}

impl<'t> Tokens<'t> {
    /// # Errors
    /// What is wrong and where, as a text that follows the name of the setting.
    pub(crate) fn of(text: &'t str) -> Result<Tokens<'t>, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("has {} bytes, but must have at most {MAX_BYTES}", text.len()));
        }
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            let (token, len) =
                next(rest).map_err(|what| format!("{what} at character {}", place(text, at)))?;
            tokens.push((at, token));
            rest = rest[len..].trim_start();
        }
        Ok(Tokens { text, tokens, at: 0 })
    }

    pub(crate) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.at == self.tokens.len()
    }

    pub(crate) fn skip(&mut self) {
        self.at += 1;
    }

    /// So that what is wrong is said of the token before.
    pub(crate) fn back(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    /// Takes a keyword, in either case, if it comes next.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Word(next)) if next.eq_ignore_ascii_case(word));
        self.at += usize::from(is_it);
        is_it
    }

    /// Takes a sign, if it comes next.
    pub(crate) fn sign(&mut self, sign: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Sign(next)) if *next == sign);
        self.at += usize::from(is_it);
        is_it
    }

    /// What is there, and what should be.
    pub(crate) fn expected(&self, what: &str) -> String {
        let Some((at, _)) = self.tokens.get(self.at) else {
            return format!("ends where {what} should be");
        };
        let shown: String = self.text[*at..].chars().take(20).collect();
        format!("has `{shown}` at character {}, where {what} should be", place(self.text, *at))
    }
}

/// The token with which a text begins, and how many bytes it has.
fn next(rest: &str) -> Result<(Token, usize), String> {
    if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        return Ok((Token::Sign(sign), sign.len()));
    }
    let first = rest.chars().next().unwrap_or_default();
    if matches!(first, '\'' | '"' | '`') {
        let what = if first == '`' { "field" } else { "text" };
        let (inner, len) =
            quoted(rest, first).ok_or_else(|| format!("has a {what} that does not end, which begins"))?;
        return Ok((if first == '`' { Token::Quoted(inner) } else { Token::Text(inner) }, len));
    }
    let is_end = |c: char| c.is_whitespace() || "()=<>!,'\"`".contains(c);
    let word = &rest[..rest.find(is_end).unwrap_or(rest.len())];
    if word.is_empty() {
        return Err(format!("has `{first}`, which means nothing,"));
    }
    let is_number = first.is_ascii_digit() || "+-.".contains(first);
    let token = if is_number { Token::Number(word.to_owned()) } else { Token::Word(word.to_owned()) };
    Ok((token, word.len()))
}

/// What is between quotes, in which a quote is written twice, and how long it is with them.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            inner.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            inner.push(quote);
        } else {
            return Some((inner, at + 1));
        }
    }
    None
}

/// The number of a character, from 1.
fn place(text: &str, at: usize) -> usize {
    text[..at].chars().count() + 1
}
