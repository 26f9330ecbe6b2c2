//! The built-in functions, as a manifest names them.

use std::fmt;

use super::super::field::Field;

/// Functions of one node. Each costs a part of every result.
pub const MAX_PARTS: usize = 64;
/// Entries that `top` keeps: each result has all of them.
pub const MAX_TOP: u16 = 1_000;

/// What is made of the records of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Function {
    /// How many records there are.
    Count,
    /// How many records have this field, not null.
    CountOf(Field),
    /// The exact sum of numbers, rounded once where one of them is no whole number.
    Sum(Field),
    /// Their mean.
    Avg(Field),
    /// The smallest value: numbers before text.
    Min(Field),
    /// The largest value.
    Max(Field),
    /// The value of the record with the earliest time; of several, of the one that came first.
    First(Field),
    /// The value of the record with the latest time; of several, of the one that came last.
    Last(Field),
    /// The largest values with what they are of, largest first. Of equal ones a stream keeps those that came first,
    /// and a table those with the smallest label.
    Top {
        /// How many.
        n: u16,
        /// What they are ordered by.
        by: Field,
        /// What is told of each; of a table's row without it, its key.
        label: Option<Field>,
    },
    /// How many different values there are: exactly.
    Distinct(Field),
}

impl Function {
    /// Parses `count`, `count:FIELD`, `sum:FIELD`, `avg:`, `min:`, `max:`, `first:`, `last:`, `distinct:FIELD`,
    /// `top:N:FIELD` or `top:N:FIELD,label=FIELD`.
    ///
    /// # Errors
    /// What would be right, as a text that follows "must be".
    pub fn parse(text: &str) -> Result<Function, String> {
        const NAMES: &str = "`count`, `count:FIELD`, `sum:FIELD`, `avg:FIELD`, `min:FIELD`, `max:FIELD`, `first:FIELD`, \
                             `last:FIELD`, `distinct:FIELD` or `top:N:FIELD,label=FIELD`";
        let (name, rest) = match text.split_once(':') {
            None if text == "count" => return Ok(Function::Count),
            None => return Err(format!("one of {NAMES}")),
            Some(parts) => parts,
        };
        let field = |text: &str| {
            Field::parse(text)
                .map_err(|expect| format!("one of {NAMES}, where the field `{text}` must be {expect}"))
        };
        Ok(match name {
            "count" => Function::CountOf(field(rest)?),
            "sum" => Function::Sum(field(rest)?),
            "avg" => Function::Avg(field(rest)?),
            "min" => Function::Min(field(rest)?),
            "max" => Function::Max(field(rest)?),
            "first" => Function::First(field(rest)?),
            "last" => Function::Last(field(rest)?),
            "distinct" => Function::Distinct(field(rest)?),
            "top" => {
                let (n, by) = rest.split_once(':').unwrap_or((rest, ""));
                let n = n.parse().ok().filter(|n| (1..=MAX_TOP).contains(n));
                let n = n.ok_or_else(|| format!("`top:N:FIELD` with N from 1 to {MAX_TOP}"))?;
                let (by, label) = match by.split_once(",label=") {
                    Some((by, label)) => (by, Some(field(label)?)),
                    None => (by, None),
                };
                Function::Top { n, by: field(by)?, label }
            }
            _ => return Err(format!("one of {NAMES}")),
        })
    }

    /// The fields that it looks at.
    pub(super) fn fields(&self) -> Vec<Field> {
        match self {
            Function::Count => Vec::new(),
            Function::Top { by, label, .. } => {
                [Some(by), label.as_ref()].into_iter().flatten().cloned().collect()
            }
            Function::CountOf(field)
            | Function::Sum(field)
            | Function::Avg(field)
            | Function::Min(field)
            | Function::Max(field)
            | Function::First(field)
            | Function::Last(field)
            | Function::Distinct(field) => vec![field.clone()],
        }
    }

    /// Whether it keeps members.
    pub(super) fn has_members(&self, of_table: bool) -> bool {
        match self {
            Function::Distinct(_) => true,
            Function::Min(_) | Function::Max(_) | Function::Top { .. } => of_table,
            _ => false,
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Function::Count => f.write_str("count"),
            Function::CountOf(field) => write!(f, "count:{field}"),
            Function::Sum(field) => write!(f, "sum:{field}"),
            Function::Avg(field) => write!(f, "avg:{field}"),
            Function::Min(field) => write!(f, "min:{field}"),
            Function::Max(field) => write!(f, "max:{field}"),
            Function::First(field) => write!(f, "first:{field}"),
            Function::Last(field) => write!(f, "last:{field}"),
            Function::Distinct(field) => write!(f, "distinct:{field}"),
            Function::Top { n, by, label: None } => write!(f, "top:{n}:{by}"),
            Function::Top { n, by, label: Some(label) } => write!(f, "top:{n}:{by},label={label}"),
        }
    }
}

/// A function and what its result is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The name in a result.
    pub name: String,
    /// What is computed.
    pub function: Function,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultForm {
    /// A JSON object with the parts by name, in their order.
    Object,
    /// The value of the only part: text and bytes as they are, anything else as JSON. No value where there is none.
    Single,
    /// What a plugin makes, as it is. There are no parts.
    Raw,
}

/// What a node computes of each group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateSpec {
    /// The functions, in the order of the result.
    pub parts: Vec<Part>,
    /// How the result is written.
    pub form: ResultForm,
    /// Rows leave groups again: it is a table that is grouped.
    pub of_table: bool,
}

/// An aggregate that cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No parts, or too many.
    #[error("an aggregate has 1 to {MAX_PARTS} functions, and this one {0}")]
    Parts(usize),
    /// A name comes twice.
    #[error("`{0}` names two functions")]
    Twice(String),
    /// A single value of several parts.
    #[error("a result that is a single value has one function, and this one has {0}")]
    NotSingle(usize),
    /// A row that leaves cannot be taken out of it.
    #[error("`{0}` cannot be computed of a table: it would have to remember all that there was")]
    NotOfTable(Function),
}

impl AggregateSpec {
    /// Whether it can be computed.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.form == ResultForm::Raw {
            return Ok(());
        }
        if self.parts.is_empty() || self.parts.len() > MAX_PARTS {
            return Err(SpecError::Parts(self.parts.len()));
        }
        if self.form == ResultForm::Single && self.parts.len() != 1 {
            return Err(SpecError::NotSingle(self.parts.len()));
        }
        for (index, part) in self.parts.iter().enumerate() {
            if self.parts[..index].iter().any(|earlier| earlier.name == part.name) {
                return Err(SpecError::Twice(part.name.clone()));
            }
            if self.of_table && matches!(part.function, Function::First(_) | Function::Last(_)) {
                return Err(SpecError::NotOfTable(part.function.clone()));
            }
        }
        Ok(())
    }

    /// Whether it needs a store for members.
    pub fn has_members(&self) -> bool {
        self.parts.iter().any(|part| part.function.has_members(self.of_table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_written_as_they_are_parsed() {
        for text in [
            "count",
            "count:json:a",
            "sum:long",
            "avg:json:a.b",
            "min:raw",
            "max:key",
            "first:json",
            "last:double",
            "distinct:json:a",
            "top:10:json:a",
            "top:3:json:a,label=json:b",
        ] {
            assert_eq!(Function::parse(text).map(|function| function.to_string()).as_deref(), Ok(text));
        }
        for text in
            ["", "sum", "sum:", "total:raw", "top:0:raw", "top:1001:raw", "top:raw", "top:3:raw,label=x"]
        {
            assert!(Function::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn specs_that_cannot_be() {
        let part =
            |name: &str, text: &str| Part { name: name.to_owned(), function: Function::parse(text).unwrap() };
        let check = |parts: Vec<Part>, form, of_table| AggregateSpec { parts, form, of_table }.check();
        let (count, last) = (part("n", "count"), part("l", "last:raw"));
        assert_eq!(check(vec![count.clone(), last.clone()], ResultForm::Object, false), Ok(()));
        assert_eq!(check(vec![], ResultForm::Object, false), Err(SpecError::Parts(0)));
        let two = vec![count.clone(), last.clone()];
        assert_eq!(check(two, ResultForm::Single, false), Err(SpecError::NotSingle(2)));
        let twice = vec![count.clone(), count];
        assert_eq!(check(twice, ResultForm::Object, false), Err(SpecError::Twice("n".into())));
        let refused = SpecError::NotOfTable(last.function.clone());
        assert_eq!(check(vec![last], ResultForm::Single, true), Err(refused));
    }
}
