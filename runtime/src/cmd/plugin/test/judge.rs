//! What came of a case beside what should have, and a fixture that says what came.

use std::ops::Range;

use toml::Spanned;

use super::fixture::{Case, Emitted, Failed, GivenEntry, List, Step, Timer, items, value_row};
use super::row::{Cell, Content, Row, compare};
use super::run::{Came, CaseCame};

/// What is not as it should be in a case, a line each; none if all is.
pub(super) fn differences(case: &Case, came: &CaseCame, outputs: &[String]) -> Vec<String> {
    let steps = match (came, &case.refused) {
        (CaseCame::Refused(text), Some(expected)) if text.contains(expected.get_ref().as_str()) => {
            return Vec::new();
        }
        (CaseCame::Refused(text), Some(expected)) => {
            let expected = expected.get_ref();
            return vec![
                "refused: differs".into(),
                format!("  expected {expected}"),
                format!("  came     {text}"),
            ];
        }
        (CaseCame::Refused(text), None) => return vec![format!("it refuses its settings: {text}")],
        (CaseCame::Steps(_), Some(expected)) => {
            return vec![format!("refused: it takes its settings, and should not: {}", expected.get_ref())];
        }
        (CaseCame::Steps(steps), None) => steps,
    };
    let mut lines = Vec::new();
    for (i, (step, came)) in case.steps.iter().zip(steps).enumerate() {
        let differences = step_differences(step, came, outputs);
        if differences.is_empty() {
            continue;
        }
        if case.has_steps {
            lines.push(format!("step[{i}]:"));
        }
        lines.extend(differences);
        lines.extend(came.log.iter().map(|line| format!("log: {line}")));
    }
    if steps.len() < case.steps.len() {
        lines.push(format!(
            "it stopped in step[{}], and has not come to the others",
            steps.len().saturating_sub(1)
        ));
    }
    lines
}

fn step_differences(step: &Step, came: &Came, outputs: &[String]) -> Vec<String> {
    let mut lines = compare("output", &output_rows(step, outputs), &came.output);
    if step.output.is_none() && outputs_do_not_count(step) {
        lines.clear();
    }
    lines.extend(compare("failures", &failure_rows(step), &came.failures));
    lines.extend(compare("values", &value_rows(step), &came.values));
    if let Some(placed) = &step.placed {
        let row = |partition: &u32| Row::default().with("partition", Some(Cell::Number((*partition).into())));
        let rows = |placed: &[u32]| placed.iter().map(row).collect::<Vec<_>>();
        lines.extend(compare("placed", &rows(placed.get_ref()), &rows(&came.placed)));
    }
    for (store, entries) in step.after.iter().flatten() {
        let expected: Vec<Row> = entries.get_ref().iter().map(GivenEntry::row).collect();
        match came.stores.get(store) {
            Some(came) => lines.extend(compare(&format!("after.{store}"), &expected, came)),
            None => lines.push(format!("after.{store}: the plugin has no such store")),
        }
    }
    if step.timers.is_some() {
        let expected: Vec<Row> = items(&step.timers).iter().map(Timer::row).collect();
        lines.extend(compare("timers", &expected, &came.timers));
    }
    lines
}

/// Of a partitioner it is where records go that counts.
fn outputs_do_not_count(step: &Step) -> bool {
    step.partitions.is_some()
}

/// In the order of outputs, as what came is.
fn output_rows(step: &Step, outputs: &[String]) -> Vec<Row> {
    let first = outputs.first().map_or("", String::as_str);
    let output = |to: &Option<String>| outputs.iter().position(|name| name == to.as_deref().unwrap_or(first));
    let mut emitted: Vec<&Emitted> = items(&step.output).iter().collect();
    emitted.sort_by_key(|emitted| output(&emitted.to));
    emitted.into_iter().map(|emitted| emitted.row(first)).collect()
}

fn failure_rows(step: &Step) -> Vec<Row> {
    items(&step.failures).iter().map(Failed::row).collect()
}

fn value_rows(step: &Step) -> Vec<Row> {
    items(&step.values).iter().cloned().map(value_row).collect()
}

/// A place in a fixture, and the text that goes there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    at: Range<usize>,
    text: String,
}

/// The fixture with all of these done.
pub(super) fn edited(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.at.start);
    let (mut done, mut from) = (String::with_capacity(text.len()), 0);
    for Edit { at, text: new } in edits {
        done.push_str(text.get(from..at.start).unwrap_or_default());
        done.push_str(&new);
        from = at.end;
    }
    done.push_str(text.get(from..).unwrap_or_default());
    done
}

/// Writes down what came where a fixture says something else. Whatever is right stays as it is written.
struct Blessing<'t> {
    text: &'t str,
    /// Behind which line of the text keys are added.
    behind: usize,
    edits: Vec<Edit>,
}

/// What has to be written in a fixture so that it says what came of a case.
pub(super) fn bless(text: &str, case: &Case, came: &CaseCame, outputs: &[String]) -> Vec<Edit> {
    let mut blessing = Blessing { text, behind: case.named_at.end, edits: Vec::new() };
    match (came, &case.refused) {
        (CaseCame::Refused(reason), Some(expected)) if reason.contains(expected.get_ref().as_str()) => {}
        (CaseCame::Refused(reason), Some(expected)) => {
            blessing.edits.push(Edit { at: expected.span(), text: Content::from(reason.as_str()).show() });
        }
        (CaseCame::Refused(reason), None) => blessing.add("refused", &Content::from(reason.as_str()).show()),
        (CaseCame::Steps(_), Some(expected)) => {
            let at = expected.span();
            let start = text[..at.start].rfind('\n').map_or(0, |line| line + 1);
            let end = (blessing.end_of_line(at.end) + 1).min(text.len());
            blessing.edits.push(Edit { at: start..end, text: String::new() });
        }
        (CaseCame::Steps(steps), None) => {
            for (i, (step, came)) in case.steps.iter().zip(steps).enumerate() {
                let begins = case.steps_at.get(i).map_or(case.named_at.end, |at| at.end);
                blessing.behind = step.end().map_or(begins, |end| end.max(case.named_at.end));
                blessing.step(step, came, outputs);
            }
        }
    }
    blessing.edits
}

impl Blessing<'_> {
    fn end_of_line(&self, from: usize) -> usize {
        self.text[from..].find('\n').map_or(self.text.len(), |line| from + line)
    }

    fn add(&mut self, key: &str, value: &str) {
        let at = self.end_of_line(self.behind);
        self.edits.push(Edit { at: at..at, text: format!("\n{key} = {value}") });
    }

    fn set(&mut self, key: &str, at: Option<Range<usize>>, value: String) {
        match at {
            Some(at) => self.edits.push(Edit { at, text: value }),
            None => self.add(key, &value),
        }
    }

    fn rows(&mut self, key: &str, at: Option<Range<usize>>, expected: &[Row], came: &[Row]) {
        if !same(expected, came) {
            let rows = came.iter().enumerate().map(|(i, row)| row.clone().like(expected.get(i)).show());
            self.set(key, at, list(rows));
        }
    }

    fn step(&mut self, step: &Step, came: &Came, outputs: &[String]) {
        let is_new = step.expects_nothing();
        if step.partitions.is_none() {
            self.rows("output", span(&step.output), &output_rows(step, outputs), &came.output);
        } else if items(&step.placed) != came.placed {
            let placed: Vec<String> = came.placed.iter().map(u32::to_string).collect();
            self.set("placed", span(&step.placed), format!("[{}]", placed.join(", ")));
        }
        self.rows("failures", span(&step.failures), &failure_rows(step), &came.failures);
        let expected = value_rows(step);
        if !same(&expected, &came.values) {
            let like = |(i, row): (usize, &Row)| row.clone().like(expected.get(i)).value();
            let values: Vec<String> = came.values.iter().enumerate().filter_map(like).collect();
            self.set("values", span(&step.values), list(values.into_iter()));
        }
        for (store, rows) in &came.stores {
            let entries = step.after.as_ref().and_then(|after| after.get(store));
            if entries.is_some() || (is_new && !rows.is_empty()) {
                let expected: Vec<Row> =
                    entries.iter().flat_map(|all| all.get_ref()).map(GivenEntry::row).collect();
                self.rows(&format!("after.{store}"), entries.map(Spanned::span), &expected, rows);
            }
        }
        if step.timers.is_some() || (is_new && !came.timers.is_empty()) {
            let expected: Vec<Row> = items(&step.timers).iter().map(Timer::row).collect();
            self.rows("timers", span(&step.timers), &expected, &came.timers);
        }
    }
}

fn span<T>(list: &List<T>) -> Option<Range<usize>> {
    list.as_ref().map(Spanned::span)
}

fn same(expected: &[Row], came: &[Row]) -> bool {
    expected.len() == came.len() && expected.iter().zip(came).all(|(expected, came)| expected.is(came))
}

/// A list with a line for each of its items.
fn list(items: impl Iterator<Item = String>) -> String {
    let lines: String = items.map(|item| format!("\n  {item},")).collect();
    if lines.is_empty() { "[]".to_owned() } else { format!("[{lines}\n]") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pelton_streams::World;

    use super::*;
    use crate::cmd::plugin::test::fixture::{Fixture, entry_row};
    use crate::cmd::plugin::test::row::Content;

    fn row(value: &str) -> Row {
        value_row(value.into())
    }

    fn came(output: &[&str]) -> CaseCame {
        let output = output.iter().map(|value| row(value)).collect();
        CaseCame::Steps(vec![Came { output, ..Came::default() }])
    }

    fn cases(text: &str, world: World) -> Vec<Case> {
        Fixture::parse(text).and_then(|fixture| fixture.cases(world)).expect("is a fixture")
    }

    fn outputs() -> Vec<String> {
        vec!["main".to_owned()]
    }

    /// A fixture with what came in its first case.
    fn blessed(text: &str, world: World, came: &CaseCame) -> String {
        let blessed = edited(text, bless(text, &cases(text, world)[0], came, &outputs()));
        assert_eq!(
            differences(&cases(&blessed, world)[0], came, &outputs()),
            Vec::<String>::new(),
            "{blessed}"
        );
        blessed
    }

    #[test]
    fn what_is_left_out_is_expected_not_to_come() {
        let case = &cases("[[case]]\nname = 'c'", World::Transform)[0];
        assert!(differences(case, &came(&[]), &outputs()).is_empty());
        let told = differences(case, &came(&["a"]), &outputs());
        assert_eq!(told, ["output[0]: came, and is not expected: { value = \"a\" }"]);
    }

    #[test]
    fn records_of_each_output_have_an_order_and_outputs_have_none() {
        let text = "[[case]]\nname = 'c'\noutput = [{ value = 'x', to = 'other' }, { value = 'a' }, { value = 'b', to = 'main' }]";
        let case = &cases(text, World::Transform)[0];
        let outputs = ["main", "other"].map(str::to_owned);
        let other = row("x").with("to", Some(Cell::Text("other".into())));
        let came =
            |output: [Row; 3]| CaseCame::Steps(vec![Came { output: output.into(), ..Came::default() }]);
        assert!(differences(case, &came([row("a"), row("b"), other.clone()]), &outputs).is_empty());
        assert!(!differences(case, &came([row("b"), row("a"), other]), &outputs).is_empty());
    }

    #[test]
    fn steps_that_were_not_reached_are_a_difference() {
        let text = "[[case]]\nname = 'c'\n[[case.step]]\nfailures = [{ kind = 'fatal', stops = true }]\n[[case.step]]";
        let case = &cases(text, World::Transform)[0];
        let mut first = Came { log: vec!["info: x".into()], ..Came::default() };
        first.fails(&Failed {
            kind: Some("fatal".into()),
            reason: "r".into(),
            stops: true,
            ..Failed::default()
        });
        let told = differences(case, &CaseCame::Steps(vec![first]), &outputs());
        assert_eq!(told, ["it stopped in step[0], and has not come to the others"]);
    }

    #[test]
    fn a_line_of_the_log_is_told_beside_a_difference() {
        let case = &cases("[[case]]\nname = 'c'\noutput = [{ value = 'b' }]", World::Transform)[0];
        let output = vec![row("a")];
        let log = vec!["warn: odd".to_owned()];
        let told =
            differences(case, &CaseCame::Steps(vec![Came { output, log, ..Came::default() }]), &outputs());
        assert_eq!(told.last().map(String::as_str), Some("log: warn: odd"), "{told:?}");
    }

    #[test]
    fn settings_that_are_refused() {
        let case = |text: &str| cases(&format!("[[case]]\nname = 'c'\n{text}"), World::Transform).remove(0);
        let refused = CaseCame::Refused("at is 5, which is too much".into());
        assert!(differences(&case("refused = 'too much'"), &refused, &outputs()).is_empty());
        assert!(!differences(&case("refused = 'too little'"), &refused, &outputs()).is_empty());
        assert!(!differences(&case(""), &refused, &outputs()).is_empty());
        assert!(!differences(&case("refused = 'x'"), &CaseCame::Steps(Vec::new()), &outputs()).is_empty());
    }

    #[test]
    fn what_came_is_written_and_the_rest_stays() {
        let text = "# A plugin.\n[[case]]\nname = 'c' # its name\ninput = [{ value = 'x' }] # given\n\
                    output = [{ value = 'old' }]\n\n[[case]]\nname = 'other'\noutput = [{ value = 'o' }]\n";
        let expect = "# A plugin.\n[[case]]\nname = 'c' # its name\ninput = [{ value = 'x' }] # given\n\
                      output = [\n  { value = \"a\" },\n  { value = \"b\" },\n]\n\n[[case]]\nname = 'other'\noutput = [{ value = 'o' }]\n";
        assert_eq!(blessed(text, World::Transform, &came(&["a", "b"])), expect);
        // What is right is not touched, however it is written.
        let right = "[[case]]\nname = 'c'\noutput = [ {value='a'} ]\n";
        assert_eq!(blessed(right, World::Transform, &came(&["a"])), right);
    }

    #[test]
    fn a_new_case_gets_all_that_came_and_another_one_what_it_looks_at() {
        let entry = entry_row("k".into(), None, Content::Bytes(vec![0]));
        let came = || {
            let stores = BTreeMap::from([("seen".to_owned(), vec![entry.clone()])]);
            CaseCame::Steps(vec![Came { output: vec![row("a")], stores, ..Came::default() }])
        };
        let new = "[[case]]\nname = 'c'\n\n[[case.step]]\ninput = [{}]\n";
        let expect = format!(
            "{new}output = [\n  {{ value = \"a\" }},\n]\nafter.seen = [\n  {{ key = \"k\", value = {{ base64 = \"AA==\" }} }},\n]\n"
        );
        assert_eq!(blessed(new, World::TransformState, &came()), expect);
        let old = "[[case]]\nname = 'c'\noutput = [{}]\n";
        assert!(!blessed(old, World::TransformState, &came()).contains("after"));
    }

    #[test]
    fn placed_records_and_values_are_written_as_they_are() {
        let text = "[[case]]\nname = 'c'\npartitions = 3\ninput = [{}]\n";
        let placed =
            CaseCame::Steps(vec![Came { placed: vec![2], output: vec![row("a")], ..Came::default() }]);
        assert!(blessed(text, World::Partitioner, &placed).ends_with("placed = [2]\n"));
        let text = "[[case]]\nname = 'c'\nadd = [{ group = 'g' }]\n";
        let values = CaseCame::Steps(vec![Came { values: vec![row("v")], ..Came::default() }]);
        assert!(blessed(text, World::Aggregator, &values).ends_with("values = [\n  \"v\",\n]\n"));
    }

    #[test]
    fn a_case_that_is_refused_says_so() {
        let text = "[[case]]\nname = 'c'\n";
        let refused = CaseCame::Refused("no".into());
        let blessing = "[[case]]\nname = 'c'\nrefused = \"no\"\n";
        assert_eq!(blessed(text, World::Transform, &refused), blessing);
        let other = blessing.replace("no", "not so");
        assert_eq!(blessed(&other, World::Transform, &refused), blessing);
        assert_eq!(
            edited(
                blessing,
                bless(blessing, &cases(blessing, World::Transform)[0], &CaseCame::Steps(Vec::new()), &[])
            ),
            text
        );
    }
}
