//! Conditions on a record.
//!
//! ```text
//! condition  = and { "or" and }
//! and        = not { "and" not }
//! not        = "not" not | "(" condition ")" | test
//! test       = field ( "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) literal
//!            | field [ "not" ] "in" "(" literal { "," literal } ")"
//!            | field [ "not" ] ( "starts" "with" | "ends" "with" ) text
//!            | field [ "not" ] "contains" literal
//!            | field "is" [ "not" ] "null"
//!            | "exists" field
//! field      = key | raw | timestamp | header:NAME | json | json:a.b | json:/a/b; in backquotes if it has other characters
//! literal    = number | text | true | false
//! text       = 'text' or "text", a quote in it twice
//! ```
//!
//! It is the language of `filter` and `branch` in a manifest, with the same three values, and with the tests of texts,
//! `header:NAME` and `timestamp` added. Numbers are compared digit by digit, which tells apart what does not fit into a
//! machine's number.

use std::cmp::Ordering;

use pelton_sdk::Record;

use crate::field::Field;
use crate::find::{Reader, Value};
use crate::literal::{Literal, bytes, text_behind_with};
use crate::token::{Token, Tokens};

/// How deep parentheses and `not` are nested at the most.
const MAX_DEPTH: u32 = 32;

/// A parsed condition.
#[derive(Debug)]
pub struct Condition {
    reader: Reader,
    root: Node,
}

#[derive(Debug)]
enum Node {
    /// Of a field, by its place in the reader.
    Test(usize, Test),
    IsNull(usize),
    Exists(usize),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

/// What is asked of a field that is there and not null.
#[derive(Debug)]
enum Test {
    Compare(Comparison, Literal),
    StartsWith(String),
    EndsWith(String),
    Contains(Literal),
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Parses a condition.
    ///
    /// # Errors
    /// What is wrong and where, as a text that follows the name of the setting.
    pub fn parse(text: &str) -> Result<Condition, String> {
        let mut parser = Parser { tokens: Tokens::of(text)?, fields: Vec::new(), depth: 0 };
        let root = parser.any()?;
        if !parser.tokens.is_done() {
            return Err(parser.tokens.expected("`and`, `or` or the end"));
        }
        Ok(Condition { reader: Reader::new(parser.fields), root })
    }

    /// True, false, or `None` for unknown.
    ///
    /// # Errors
    /// The value is not JSON where a member of it is asked for; for people.
    pub fn judge(&self, record: Record<'_>) -> Result<Option<bool>, String> {
        self.root.judge(&self.reader.read(record)?)
    }
}

impl Node {
    fn judge(&self, found: &[Option<Value<'_>>]) -> Result<Option<bool>, String> {
        Ok(match self {
            Node::Test(field, test) => match &found[*field] {
                None | Some(Value::Null) => None,
                Some(value) => test.of(value)?,
            },
            Node::IsNull(field) => Some(matches!(found[*field], None | Some(Value::Null))),
            Node::Exists(field) => Some(found[*field].is_some()),
            Node::Not(node) => node.judge(found)?.map(|is_true| !is_true),
            Node::And(nodes) => together(nodes, false, found)?,
            Node::Or(nodes) => together(nodes, true, found)?,
        })
    }
}

/// `decisive` if one is, unknown if one is, the other one otherwise.
fn together(nodes: &[Node], decisive: bool, found: &[Option<Value<'_>>]) -> Result<Option<bool>, String> {
    let mut all = Some(!decisive);
    for node in nodes {
        match node.judge(found)? {
            Some(is_true) if is_true == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => all = None,
        }
    }
    Ok(all)
}

impl Test {
    fn of(&self, value: &Value<'_>) -> Result<Option<bool>, String> {
        let is_text = |test: &dyn Fn(&[u8]) -> bool| Some(bytes(value).is_some_and(test));
        Ok(match self {
            Test::Compare(comparison, literal) => comparison.of(literal.against(value)),
            Test::StartsWith(text) => is_text(&|bytes| bytes.starts_with(text.as_bytes())),
            Test::EndsWith(text) => is_text(&|bytes| bytes.ends_with(text.as_bytes())),
            Test::Contains(literal) => Some(match (value.items(), literal) {
                (Some(items), _) => items?.iter().any(|item| literal.against(item) == Some(Ordering::Equal)),
                (None, Literal::Text(text)) => bytes(value).is_some_and(|bytes| has(bytes, text.as_bytes())),
                (None, Literal::Bool(_) | Literal::Number(_)) => false,
            }),
        })
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

impl Comparison {
    /// What an order means for it; none: there is none.
    fn of(self, order: Option<Ordering>) -> Option<bool> {
        match self {
            Comparison::Equal => Some(order == Some(Ordering::Equal)),
            Comparison::NotEqual => Some(order != Some(Ordering::Equal)),
            Comparison::Less => order.map(Ordering::is_lt),
            Comparison::LessOrEqual => order.map(Ordering::is_le),
            Comparison::Greater => order.map(Ordering::is_gt),
            Comparison::GreaterOrEqual => order.map(Ordering::is_ge),
        }
    }

    fn signed(sign: &str) -> Option<Comparison> {
        Some(match sign {
            "=" | "==" => Comparison::Equal,
            "!=" | "<>" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }
}

struct Parser<'t> {
    tokens: Tokens<'t>,
    fields: Vec<Field>,
    depth: u32,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Node, String> {
        let mut sides = vec![self.all()?];
        while self.tokens.word("or") {
            sides.push(self.all()?);
        }
        Ok(if sides.len() == 1 { sides.remove(0) } else { Node::Or(sides) })
    }

    fn all(&mut self) -> Result<Node, String> {
        let mut sides = vec![self.not()?];
        while self.tokens.word("and") {
            sides.push(self.not()?);
        }
        Ok(if sides.len() == 1 { sides.remove(0) } else { Node::And(sides) })
    }

    fn not(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("is nested deeper than {MAX_DEPTH} levels"));
        }
        let node = if self.tokens.word("not") {
            negated(self.not()?, true)
        } else if self.tokens.sign("(") {
            let inner = self.any()?;
            if !self.tokens.sign(")") {
                return Err(self.tokens.expected("`)`"));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn test(&mut self) -> Result<Node, String> {
        if self.tokens.word("exists") {
            return Ok(Node::Exists(self.field()?));
        }
        let field = self.field()?;
        if self.tokens.word("is") {
            let is_not = self.tokens.word("not");
            if !self.tokens.word("null") {
                return Err(self.tokens.expected("`null`"));
            }
            return Ok(negated(Node::IsNull(field), is_not));
        }
        let is_not = self.tokens.word("not");
        if let Some(node) = self.worded(field)? {
            return Ok(negated(node, is_not));
        }
        if is_not {
            return Err(self.tokens.expected("`in`, `starts with`, `ends with` or `contains`"));
        }
        let comparison = match self.tokens.peek() {
            Some(Token::Sign(sign)) => Comparison::signed(sign),
            _ => None,
        };
        let Some(comparison) = comparison else {
            return Err(self.tokens.expected(
                "a comparison (as `=` or `<`), `in`, `starts with`, `ends with`, `contains` or `is null`",
            ));
        };
        self.tokens.skip();
        let literal = Literal::parse(&mut self.tokens)?;
        let by_order = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        if by_order && matches!(literal, Literal::Bool(_)) {
            self.tokens.back();
            return Err(self.tokens.expected("a number or a text (true and false have no order)"));
        }
        Ok(Node::Test(field, Test::Compare(comparison, literal)))
    }

    /// A test that is a word, which may have `not` before it.
    fn worded(&mut self, field: usize) -> Result<Option<Node>, String> {
        let test = if self.tokens.word("in") {
            return self.one_of(field).map(Some);
        } else if self.tokens.word("starts") {
            Test::StartsWith(text_behind_with(&mut self.tokens)?)
        } else if self.tokens.word("ends") {
            Test::EndsWith(text_behind_with(&mut self.tokens)?)
        } else if self.tokens.word("contains") {
            Test::Contains(Literal::parse(&mut self.tokens)?)
        } else {
            return Ok(None);
        };
        Ok(Some(Node::Test(field, test)))
    }

    fn one_of(&mut self, field: usize) -> Result<Node, String> {
        if !self.tokens.sign("(") {
            return Err(self.tokens.expected("`(`"));
        }
        let mut sides = Vec::new();
        loop {
            let literal = Literal::parse(&mut self.tokens)?;
            sides.push(Node::Test(field, Test::Compare(Comparison::Equal, literal)));
            if self.tokens.sign(")") {
                return Ok(Node::Or(sides));
            }
            if !self.tokens.sign(",") {
                return Err(self.tokens.expected("`,` or `)`"));
            }
        }
    }

    /// The place of a field in the reader.
    fn field(&mut self) -> Result<usize, String> {
        let field = crate::list::field(&mut self.tokens)?;
        let known = self.fields.iter().position(|known| *known == field);
        Ok(known.unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        }))
    }
}

fn negated(node: Node, is_not: bool) -> Node {
    if is_not { Node::Not(Box::new(node)) } else { node }
}

#[cfg(test)]
mod tests;
