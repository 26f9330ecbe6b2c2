//! Conditions on a record, as `filter` and `branch` have them.
//!
//! ```text
//! condition  = and { "or" and }
//! and        = not { "and" not }
//! not        = "not" not | "(" condition ")" | test
//! test       = field ( "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) literal
//!            | field [ "not" ] "in" "(" literal { "," literal } ")"
//!            | field "is" [ "not" ] "null"
//!            | "exists" field
//! field      = as in a manifest: key, raw, long, double, json, json:a.b, json:/a/b; in backquotes if it has other characters
//! literal    = number | 'text' or "text", a quote in it twice | true | false
//! ```
//!
//! Words are written in either case. A condition is true, false or *unknown*, as in SQL: a test of a field that is absent or
//! null is unknown, but for `is null` and `exists`, which are always true or false. `not` unknown is unknown; `and` is false if
//! one side is, `or` is true if one side is, and both are unknown otherwise if one side is. A record passes where the condition
//! is true; so `a > 1` and `not a > 1` both leave out a record without `a`.
//!
//! Numbers are compared as numbers whatever their size, text by its bytes (as keys are). Values of another type than the
//! literal's, lists and objects among them, are not equal to it (`=` is false, `!=` true) and have no order (the other tests are
//! unknown). `key` and `raw` are text, and decimal numbers where the literal is a number. `exists` is true for a member that is
//! there, null or not. A record without a value has a key and nothing else. A value that is not JSON where one is asked for is
//! an error of the record.

use std::cmp::Ordering;
use std::fmt;

use super::OperatorError;
use super::field::{Extractor, Field};
use super::scalar::Scalar;

/// Bytes of a condition: nobody writes more by hand.
const MAX_BYTES: usize = 4_096;
/// How deep parentheses and `not` are nested at the most.
const MAX_DEPTH: u32 = 32;

/// A parsed condition. Two are equal if their texts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    text: String,
    fields: Vec<Field>,
    root: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// The field is an index in the condition's.
    Compare(usize, Test, Literal),
    IsNull(usize),
    Exists(usize),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Literal {
    Bool(bool),
    /// In the form that sorts as numbers do.
    Number(Vec<u8>),
    Text(String),
}

impl Condition {
    /// Parses a condition.
    ///
    /// # Errors
    /// What is wrong and where, as a text that follows the condition.
    pub fn parse(text: &str) -> Result<Condition, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("has {} bytes, but must have at most {MAX_BYTES}", text.len()));
        }
        let tokens = tokens(text)?;
        let mut parser = Parser { text, tokens: &tokens, at: 0, fields: Vec::new(), depth: 0 };
        let root = parser.any()?;
        match parser.peek() {
            None => Ok(Condition { text: text.to_owned(), fields: parser.fields, root }),
            Some(_) => Err(parser.expected("`and`, `or` or the end")),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a text is made of, with its place.
#[derive(Debug, Clone, PartialEq)]
struct Token {
    /// In bytes.
    at: usize,
    what: What,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Open,
    Close,
    Comma,
    Test(Test),
    Text(String),
    Number(String),
    /// A keyword or a field.
    Word(String),
    /// A field in backquotes.
    Quoted(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    const TESTS: [(&str, Test); 8] = [
        ("==", Test::Equal),
        ("!=", Test::NotEqual),
        ("<>", Test::NotEqual),
        ("<=", Test::LessOrEqual),
        (">=", Test::GreaterOrEqual),
        ("=", Test::Equal),
        ("<", Test::Less),
        (">", Test::Greater),
    ];
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let at = text.len() - rest.len();
        let one = |what| (what, first.len_utf8());
        let (what, len) = if let Some((sign, test)) = TESTS.iter().find(|(sign, _)| rest.starts_with(sign)) {
            (What::Test(*test), sign.len())
        } else {
            match first {
                '(' => one(What::Open),
                ')' => one(What::Close),
                ',' => one(What::Comma),
                '\'' | '"' => {
                    quoted(rest, first).map(|(text, len)| (What::Text(text), len)).ok_or_else(|| {
                        format!("has a text at character {} that does not end", place(text, at))
                    })?
                }
                '`' => quoted(rest, first).map(|(text, len)| (What::Quoted(text), len)).ok_or_else(|| {
                    format!("has a field at character {} that does not end", place(text, at))
                })?,
                _ => {
                    let is_end = |c: char| c.is_whitespace() || "()=<>!,'\"`".contains(c);
                    let word = &rest[..rest.find(is_end).unwrap_or(rest.len())];
                    if word.is_empty() {
                        return Err(format!(
                            "has `{first}` at character {}, which means nothing",
                            place(text, at)
                        ));
                    }
                    let is_number = first.is_ascii_digit() || "+-.".contains(first);
                    let what =
                        if is_number { What::Number(word.to_owned()) } else { What::Word(word.to_owned()) };
                    (what, word.len())
                }
            }
        };
        found.push(Token { at, what });
        rest = rest[len..].trim_start();
    }
    Ok(found)
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

struct Parser<'t> {
    text: &'t str,
    tokens: &'t [Token],
    at: usize,
    fields: Vec<Field>,
    depth: u32,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&What> {
        self.tokens.get(self.at).map(|token| &token.what)
    }

    fn expected(&self, what: &str) -> String {
        match self.tokens.get(self.at) {
            None => format!("ends where {what} should be"),
            Some(token) => {
                let rest = &self.text[token.at..];
                let shown: String = rest.chars().take(20).collect();
                format!("has `{shown}` at character {}, where {what} should be", place(self.text, token.at))
            }
        }
    }

    /// Takes a keyword, if it comes next.
    fn word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Some(What::Word(next)) if next.eq_ignore_ascii_case(word));
        self.at += usize::from(is_it);
        is_it
    }

    fn takes(&mut self, what: &What) -> bool {
        let is_it = self.peek() == Some(what);
        self.at += usize::from(is_it);
        is_it
    }

    fn any(&mut self) -> Result<Node, String> {
        let mut sides = vec![self.all()?];
        while self.word("or") {
            sides.push(self.all()?);
        }
        Ok(if sides.len() == 1 { sides.remove(0) } else { Node::Or(sides) })
    }

    fn all(&mut self) -> Result<Node, String> {
        let mut sides = vec![self.not()?];
        while self.word("and") {
            sides.push(self.not()?);
        }
        Ok(if sides.len() == 1 { sides.remove(0) } else { Node::And(sides) })
    }

    fn not(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("is nested deeper than {MAX_DEPTH} levels"));
        }
        let node = if self.word("not") {
            Node::Not(Box::new(self.not()?))
        } else if self.takes(&What::Open) {
            let inner = self.any()?;
            if !self.takes(&What::Close) {
                return Err(self.expected("`)`"));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn test(&mut self) -> Result<Node, String> {
        if self.word("exists") {
            return Ok(Node::Exists(self.field()?));
        }
        let field = self.field()?;
        if self.word("is") {
            let is_not = self.word("not");
            if !self.word("null") {
                return Err(self.expected("`null`"));
            }
            let node = Node::IsNull(field);
            return Ok(if is_not { Node::Not(Box::new(node)) } else { node });
        }
        let is_not = self.word("not");
        if self.word("in") {
            let node = self.one_of(field)?;
            return Ok(if is_not { Node::Not(Box::new(node)) } else { node });
        }
        let test = match self.peek() {
            Some(What::Test(test)) if !is_not => *test,
            _ if is_not => return Err(self.expected("`in`")),
            _ => return Err(self.expected("a comparison (as `=` or `<`), `in` or `is null`")),
        };
        self.at += 1;
        let literal = self.literal()?;
        let has_order = !matches!(literal, Literal::Bool(_));
        if !has_order && !matches!(test, Test::Equal | Test::NotEqual) {
            self.at -= 1;
            return Err(self.expected("a number or a text (true and false have no order)"));
        }
        Ok(Node::Compare(field, test, literal))
    }

    fn one_of(&mut self, field: usize) -> Result<Node, String> {
        if !self.takes(&What::Open) {
            return Err(self.expected("`(`"));
        }
        let mut sides = Vec::new();
        loop {
            sides.push(Node::Compare(field, Test::Equal, self.literal()?));
            if self.takes(&What::Close) {
                return Ok(Node::Or(sides));
            }
            if !self.takes(&What::Comma) {
                return Err(self.expected("`,` or `)`"));
            }
        }
    }

    /// The index of a field.
    fn field(&mut self) -> Result<usize, String> {
        let (Some(What::Word(text)) | Some(What::Quoted(text))) = self.peek() else {
            return Err(self.expected("a field (as `json:member` or `key`)"));
        };
        let field = Field::parse(text);
        let field = field.map_err(|expect| format!("{}, which is {expect}", self.expected("a field")))?;
        self.at += 1;
        let known = self.fields.iter().position(|known| *known == field);
        Ok(known.unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        }))
    }

    fn literal(&mut self) -> Result<Literal, String> {
        let literal = match self.peek() {
            Some(What::Text(text)) => Literal::Text(text.clone()),
            Some(What::Number(text)) => {
                let number = Scalar::Bytes(text.as_bytes()).number();
                let number = number.ok_or_else(|| self.expected("a number"))?;
                let mut encoded = Vec::new();
                number.encode(&mut encoded);
                Literal::Number(encoded)
            }
            Some(What::Word(word)) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Some(What::Word(word)) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
            Some(What::Word(word)) if word.eq_ignore_ascii_case("null") => {
                return Err(self.expected("a value (nothing equals null: say `is null` or `is not null`)"));
            }
            _ => return Err(self.expected("a number, a text in quotes, `true` or `false`")),
        };
        self.at += 1;
        Ok(literal)
    }
}

/// Says of records whether a condition is true of them.
pub struct Judge {
    condition: Condition,
    extractor: Extractor,
    scratch: Vec<u8>,
}

impl Judge {
    /// One for a condition.
    pub fn new(condition: Condition) -> Judge {
        let extractor = Extractor::new(condition.fields.clone());
        Judge { condition, extractor, scratch: Vec::new() }
    }

    /// True, false or unknown.
    ///
    /// # Errors
    /// The value does not have the layout that a field asks for.
    pub fn judge(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Option<bool>, OperatorError> {
        let found = match value {
            Some(value) => self.extractor.find(key, value),
            None => Ok(self.extractor.of_key(key)),
        };
        let found = found.map_err(|error| OperatorError::row(error.to_string()))?;
        Ok(self.condition.root.judge(&found, &mut self.scratch))
    }

    /// Whether it is true.
    ///
    /// # Errors
    /// As [`Judge::judge`].
    pub fn is_true(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, OperatorError> {
        Ok(self.judge(key, value)? == Some(true))
    }
}

impl Node {
    fn judge(&self, found: &[Option<Scalar<'_>>], scratch: &mut Vec<u8>) -> Option<bool> {
        match self {
            Node::Compare(field, test, literal) => {
                let value = found[*field].as_ref().filter(|value| !value.is_null())?;
                test.of(literal.against(value, scratch))
            }
            Node::IsNull(field) => Some(found[*field].as_ref().is_none_or(Scalar::is_null)),
            Node::Exists(field) => Some(found[*field].is_some()),
            Node::Not(node) => node.judge(found, scratch).map(|is_true| !is_true),
            Node::And(nodes) => together(nodes, false, found, scratch),
            Node::Or(nodes) => together(nodes, true, found, scratch),
        }
    }
}

/// `decisive` if one is, unknown if one is, the other one otherwise.
fn together(
    nodes: &[Node],
    decisive: bool,
    found: &[Option<Scalar<'_>>],
    scratch: &mut Vec<u8>,
) -> Option<bool> {
    let mut all = Some(!decisive);
    for node in nodes {
        match node.judge(found, scratch) {
            Some(is_true) if is_true == decisive => return Some(decisive),
            Some(_) => {}
            None => all = None,
        }
    }
    all
}

impl Literal {
    /// How a value is to it; none if they are of different types.
    fn against(&self, value: &Scalar<'_>, scratch: &mut Vec<u8>) -> Option<Ordering> {
        match (self, value) {
            (Literal::Bool(literal), Scalar::Bool(value)) => Some(value.cmp(literal)),
            (Literal::Number(literal), value) => {
                scratch.clear();
                value.number()?.encode(scratch);
                Some((**scratch).cmp(literal))
            }
            (Literal::Text(literal), Scalar::Text(value)) => Some(value.as_bytes().cmp(literal.as_bytes())),
            (Literal::Text(literal), Scalar::Bytes(value)) => Some((*value).cmp(literal.as_bytes())),
            (Literal::Bool(_) | Literal::Text(_), _) => None,
        }
    }
}

impl Test {
    /// What an order means for it; none: there is none.
    fn of(self, order: Option<Ordering>) -> Option<bool> {
        match self {
            Test::Equal => Some(order == Some(Ordering::Equal)),
            Test::NotEqual => Some(order != Some(Ordering::Equal)),
            Test::Less => order.map(Ordering::is_lt),
            Test::LessOrEqual => order.map(Ordering::is_le),
            Test::Greater => order.map(Ordering::is_gt),
            Test::GreaterOrEqual => order.map(Ordering::is_ge),
        }
    }
}

#[cfg(test)]
mod tests;
