use bytes::Bytes;

use super::*;

#[test]
fn rows_by_themselves() {
    let flat_map = || -> Box<dyn Operator> {
        let words = |row: &Row, emit: &mut dyn FnMut(usize, Row)| -> Result<(), OperatorError> {
            for word in row.value.as_deref().unwrap_or_default().split(|byte| *byte == b' ') {
                emit(0, Row { value: Some(Bytes::copy_from_slice(word)), ..row.clone() });
            }
            Ok(())
        };
        Box::new(FlatMap(Box::new(words)))
    };
    check(&flat_map, &[], &[("a=x y@1", &["a=x@1", "a=y@1"]), ("-=z@-1", &["-=z@-1"])]);

    let starts =
        |with: u8| move |row: &Row| Ok(row.value.as_ref().is_some_and(|value| value.starts_with(&[with])));
    let branch = || -> Box<dyn Operator> {
        let predicates: Vec<Box<dyn Predicate>> = vec![Box::new(starts(b'x')), Box::new(|_: &Row| Ok(true))];
        Box::new(Branch(predicates))
    };
    check(&branch, &[], &[("a=x@1", &["a=x@1"]), ("a=y@1", &["1>a=y@1"]), ("a=~@1", &["1>a=~@1"])]);

    let two =
        || -> Box<dyn Operator> { Box::new(Branch(vec![Box::new(starts(b'x')), Box::new(starts(b'y'))])) };
    check(&two, &[], &[("a=y@1", &["1>a=y@1"]), ("a=z@1", &["2>a=z@1"])]);

    let filter = || -> Box<dyn Operator> { Box::new(Filter(Box::new(starts(b'x')))) };
    check(&filter, &[], &[("a=x@1", &["a=x@1"]), ("a=y@1", &[])]);

    let merge = || -> Box<dyn Operator> { Box::new(Merge) };
    check(&merge, &[], &[("a=x@1", &["a=x@1"]), ("1>a=y@1", &["a=y@1"])]);
}

#[test]
fn another_key() {
    let select = |null| {
        move || -> Box<dyn Operator> { Box::new(SelectKey::new(Field::parse("json:k").unwrap(), null)) }
    };
    let table: [(&str, &[&str]); 4] = [
        (r#"a={"k":"b"}@1"#, &[r#"b={"k":"b"}@1"#]),
        (r#"a={"k":7}@1"#, &[r#"7={"k":7}@1"#]),
        ("a={}@1", &["-={}@1"]),
        ("a=~@1", &["-=~@1"]),
    ];
    let counts = check(&select(NullKey::Keep), &[], &table);
    assert_eq!(counts, Counts { null_field: 2, ..Counts::default() });
    let counts = check(&select(NullKey::Drop), &[], &[table[0], (table[2].0, &[]), (table[3].0, &[])]);
    assert_eq!(counts, Counts { null_field: 2, ..Counts::default() });
    let bad = Rig::new(&select(NullKey::Keep), &[]).give(0, &[testing::row("a={@1")]);
    assert!(matches!(bad, Err(OperatorError::Row(RowError { index: 0, .. }))));
}

/// A windowed result is one key for what follows.
#[test]
fn the_key_of_a_window() {
    let make = || -> Box<dyn Operator> { Box::new(AggregateByKey::new(0, single("count"), false)) };
    let window = Window { kind: WindowKind::Time, start: 5, end: 10 };
    let row = Row { window: Some(window), ..testing::row("a=x@7") };
    let out = Rig::new(&make, &[false]).give(0, &[row.clone(), row]).unwrap();
    assert_eq!(show(&out[1]), "a\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x05=2@7");
}
