use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::operator::foreign_key::{ANSWERS, LEFT_ROWS, RIGHT_ROWS, SUBSCRIBERS, SUBSCRIPTIONS};

/// Both halves, with the topics between them.
struct Halves<'m> {
    left: Rig<'m>,
    right: Rig<'m>,
    subscriptions: VecDeque<Row>,
    answers: VecDeque<Row>,
    results: Vec<Row>,
}

impl<'m> Halves<'m> {
    fn new(left: Make<'m>, right: Make<'m>) -> Halves<'m> {
        Halves {
            left: Rig::new(left, &[false, false]),
            right: Rig::new(right, &[false, true]),
            subscriptions: VecDeque::new(),
            answers: VecDeque::new(),
            results: Vec::new(),
        }
    }

    fn left(&mut self, input: usize, row: Row) {
        for Emitted { output, row } in self.left.give(input, &[row]).unwrap() {
            if output == SUBSCRIPTIONS { self.subscriptions.push_back(row) } else { self.results.push(row) }
        }
    }

    fn right(&mut self, input: usize, row: Row) {
        self.answers.extend(self.right.give(input, &[row]).unwrap().into_iter().map(|emitted| emitted.row));
    }

    /// One message of a topic arrives.
    fn subscription_arrives(&mut self) -> bool {
        self.subscriptions.pop_front().map(|row| self.right(SUBSCRIBERS, row)).is_some()
    }

    fn answer_arrives(&mut self) -> bool {
        self.answers.pop_front().map(|row| self.left(ANSWERS, row)).is_some()
    }

    fn settle(&mut self) {
        while self.subscription_arrives() || self.answer_arrives() {}
    }

    /// A row of a side; what comes of it when all has arrived.
    fn give(&mut self, text: &str) -> Vec<String> {
        let (side, row) = rows(&[text]).pop().unwrap();
        if side == LEFT {
            self.left(LEFT_ROWS, row)
        } else {
            self.right(RIGHT_ROWS, row)
        }
        self.settle();
        self.results.drain(..).map(|row| show(&Emitted { output: 0, row })).collect()
    }
}

fn left_half(is_left: bool) -> impl Fn() -> Box<dyn Operator> {
    move || Box::new(ForeignKeyLeft::new(0, 1, Field::parse("json:f").unwrap(), is_left, value_and(), true))
}

fn right_half() -> Box<dyn Operator> {
    Box::new(ForeignKeyRight::new(0, 1))
}

/// The member `v` of the left value, and the right one.
fn value_and() -> Box<dyn Joiner> {
    Box::new(
        |_: Option<&[u8]>,
         left: Option<&[u8]>,
         right: Option<&[u8]>,
         out: &mut Vec<u8>|
         -> Result<(), OperatorError> {
            let left: serde_json::Value = serde_json::from_slice(left.unwrap()).unwrap();
            let right = right.map_or("~".to_owned(), |right| right.escape_ascii().to_string());
            out.extend_from_slice(format!("{}+{right}", left["v"]).as_bytes());
            Ok(())
        },
    )
}

#[test]
fn rows_find_the_row_that_they_name() {
    // Row, then what an inner and what a left join makes of it.
    let table: [(&str, &[&str], &[&str]); 16] = [
        (r#"1={"f":"x","v":1}@10"#, &[], &["1=1+~@10 was ~"]),
        ("1>x=X@5", &["1=1+X@10 was ~"], &["1=1+X@10 was 1+~"]),
        (r#"2={"f":"x","v":2}@3"#, &["2=2+X@5 was ~"], &["2=2+X@5 was ~"]),
        ("1>x=Y@20", &["1=1+Y@20 was 1+X", "2=2+Y@20 was 2+X"], &["1=1+Y@20 was 1+X", "2=2+Y@20 was 2+X"]),
        // To a key that is not there.
        (r#"1={"f":"z","v":1}@21"#, &["1=~@21 was 1+Y"], &["1=1+~@21 was 1+Y"]),
        (r#"1={"f":"z","v":3}@22"#, &[], &["1=3+~@22 was 1+~"]),
        ("1>z=Z@23", &["1=3+Z@23 was ~"], &["1=3+Z@23 was 3+~"]),
        ("1>x=V@24", &["2=2+V@24 was 2+Y"], &["2=2+V@24 was 2+Y"]),
        // Without a foreign key.
        (r#"1={"v":4}@25"#, &["1=~@25 was 3+Z"], &["1=4+~@25 was 3+Z"]),
        ("1>z=W@26", &[], &[]),
        ("1=~@27", &[], &["1=~@27 was 4+~"]),
        ("1=~@28", &[], &[]),
        ("2=~@29", &["2=~@29 was 2+V"], &["2=~@29 was 2+V"]),
        ("1>x=U@30", &[], &[]),
        ("1>x=~@31", &[], &[]),
        (r#"2={"f":"x","v":5}@32"#, &[], &["2=5+~@32 was ~"]),
    ];
    for is_left in [false, true] {
        let left = left_half(is_left);
        let mut halves = Halves::new(&left, &right_half);
        for (row, inner, outer) in &table {
            assert_eq!(halves.give(row), if is_left { *outer } else { *inner }, "{row} left: {is_left}");
            halves.left.restart(0);
            halves.right.restart(0);
        }
        assert_eq!(halves.left.counts.null_field, 1);
        halves.give("2=~@40");
        assert_eq!(halves.right.replayed()[1].len(), 0, "nobody subscribes");
    }
}

/// An answer to a row that was replaced, though by one of the same value, says nothing.
#[test]
fn stale_answers() {
    let left = left_half(true);
    let mut halves = Halves::new(&left, &right_half);
    halves.give("1>x=X@1");
    for _ in 0..2 {
        halves.left(LEFT_ROWS, testing::row(r#"1={"f":"x","v":1}@2"#));
    }
    halves.settle();
    assert_eq!(halves.results.len(), 1);
    assert_eq!(halves.left.counts.stale, 1);
}

#[test]
fn messages_that_are_none() {
    for (make, input) in [(&left_half(true) as Make<'_>, ANSWERS), (&right_half as Make<'_>, SUBSCRIBERS)] {
        for row in [
            "a=~@1",
            "a=@1",
            "a=\u{1}\u{1}1234567@1",
            "a=\u{2}\u{1}12345678@1",
            "a=\u{1}\u{9}1234567812345678@1",
        ] {
            let result = Rig::new(make, &[true, true]).give(input, &[testing::row(row)]);
            assert!(matches!(result, Err(OperatorError::Row(_))), "{row}");
        }
    }
}

/// With messages on their way for any time, what is there in the end is the join of what both tables have then.
#[test]
fn both_halves_against_a_naive_model() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let is_left = random.random();
        let left = left_half(is_left);
        let mut halves = Halves::new(&left, &right_half);
        let (mut lefts, mut rights) = (BTreeMap::new(), BTreeMap::new());
        for step in 0..80 {
            match random.random_range(0..10) {
                0..3 => {
                    let (key, foreign) = (random.random_range(0..3), random.random_range(0..4));
                    let text = match random.random_range(0..4) {
                        0 => {
                            lefts.remove(&key);
                            format!("{key}=~@{step}")
                        }
                        _ if foreign == 3 => {
                            lefts.insert(key, (step % 5, None));
                            format!(r#"{key}={{"v":{}}}@{step}"#, step % 5)
                        }
                        _ => {
                            lefts.insert(key, (step % 5, Some(foreign)));
                            format!(r#"{key}={{"f":"{foreign}","v":{}}}@{step}"#, step % 5)
                        }
                    };
                    halves.left(LEFT_ROWS, testing::row(&text));
                }
                3..5 => {
                    let key = random.random_range(0..3);
                    let text = if random.random_bool(0.3) {
                        rights.remove(&key);
                        format!("{key}=~@{step}")
                    } else {
                        rights.insert(key, step);
                        format!("{key}={step}@{step}")
                    };
                    halves.right(RIGHT_ROWS, testing::row(&text));
                }
                5..7 => drop(halves.subscription_arrives()),
                7..9 => drop(halves.answer_arrives()),
                _ => {
                    halves.left.restart(0);
                    halves.right.restart(0);
                }
            }
        }
        halves.settle();
        let mut table = BTreeMap::new();
        for row in &halves.results {
            let was = row.change.was().cloned();
            let key = row.key.clone().unwrap();
            let before = match &row.value {
                Some(value) => table.insert(key, value.clone()),
                None => table.remove(&key),
            };
            assert_eq!(before, was, "seed {seed}");
        }
        let mut expect = BTreeMap::new();
        for (key, (value, foreign)) in lefts {
            let right = foreign.and_then(|foreign| rights.get(&foreign));
            if right.is_some() || is_left {
                let right = right.map_or("~".to_owned(), |right| right.to_string());
                expect.insert(
                    bytes::Bytes::from(key.to_string()),
                    bytes::Bytes::from(format!("{value}+{right}")),
                );
            }
        }
        assert_eq!(table, expect, "seed {seed}");
    }
}
