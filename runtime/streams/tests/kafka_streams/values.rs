//! What values become: the same as in `tests/streams_oracle/java/Values.java`.

/// `{"f":foreign key or null,"g":0..2,"n":0..999}`; f follows from the other two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Values {
    g: i64,
    n: i64,
}

impl Values {
    pub(crate) fn new(g: i64, n: i64) -> Values {
        Values { g: g.rem_euclid(3), n: n.rem_euclid(1_000) }
    }

    pub(crate) fn parse(text: &[u8]) -> Values {
        let value: serde_json::Value = serde_json::from_slice(text).expect("a value of these tests");
        let number = |name| value[name].as_i64().expect("a number");
        Values::new(number("g"), number("n"))
    }

    pub(crate) fn key(self) -> Option<String> {
        (self.n % 10 != 0).then(|| format!("k{}", self.g))
    }

    pub(crate) fn text(self) -> String {
        let key = self.key().map_or("null".to_owned(), |key| format!("\"{key}\""));
        format!("{{\"f\":{key},\"g\":{},\"n\":{}}}", self.g, self.n)
    }

    pub(crate) fn passes(self) -> bool {
        self.n % 3 != 0
    }

    pub(crate) fn is_even(self) -> bool {
        self.n % 2 == 0
    }

    pub(crate) fn mapped(self) -> Values {
        Values::new(self.g + 1, self.n * 2 + 1)
    }

    pub(crate) fn folded(state: Option<Values>, value: Values) -> Values {
        state.map_or(value, |state| Values::new(state.g + value.g, state.n * 3 + value.n))
    }

    pub(crate) fn merged(self, later: Values) -> Values {
        Values::new(self.g + later.g, self.n * 7 + later.n)
    }

    pub(crate) fn summed(state: Option<Values>, value: Values, sign: i64) -> Values {
        let state = state.unwrap_or(Values::new(0, 0));
        Values::new(state.g + sign * value.g, state.n + sign * value.n)
    }

    pub(crate) fn joined(left: Option<Values>, right: Option<Values>) -> Values {
        let left = left.unwrap_or(Values::new(0, 500));
        let right = right.unwrap_or(Values::new(0, 700));
        Values::new(left.g + right.g, left.n * 2 + right.n + 1)
    }

    pub(crate) fn number(n: i64) -> Values {
        Values::new(n, n)
    }
}
