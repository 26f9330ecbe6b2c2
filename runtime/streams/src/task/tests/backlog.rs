//! Records that bring more than closes, or fires, in one pass: the rest comes with passes of its own, before any other record is read.
//! [`check`] has passes of one to three results, with commits and aborts between them.

use super::graph::{Lab, check, linked};

const SOURCE: &str = "[[source]]\nid='in'\ntopic='in'\n";

fn rows(keys: usize, then: &[&str]) -> Vec<String> {
    let first = (0..keys).map(|n| format!("k{n}=x@{}", n % 4));
    first.chain(then.iter().map(|row| (*row).to_owned())).collect()
}

fn texts(rows: &[String]) -> Vec<&str> {
    rows.iter().map(String::as_str).collect()
}

/// What closes in one node brings time to the next one, which closes as well.
#[test]
fn what_closes_closes_other_things_behind_it() {
    let manifest = format!(
        "{SOURCE}[[node]]\nid='a'\nfrom='in'\nwindow={{tumbling='5ms',emit='on-close'}}\naggregate='count'\n\
         [[node]]\nid='b'\nfrom='a'\nwindow={{session='1ms',emit='on-close'}}\naggregate='count'\n\
         [[node]]\nid='c'\nfrom='b'\ngroup_by='all'\naggregate='count'\n\
         [[sink]]\nfrom='b'\ntopic='out'\n[[sink]]\nfrom='c'\ntopic='all'\n"
    );
    let given = rows(9, &["a=x@10", "b=x@11", "c=x@50", "a=x@3", "d=x@100", "e=x@200"]);
    let given = texts(&given);
    let expect = {
        let inputs = [("in", &given[..])];
        let topology = linked(&manifest);
        let mut lab = Lab::new(&topology, &inputs);
        lab.run(None).unwrap();
        lab.topics.taken
    };
    // What is late behind the first one is dropped there.
    assert!(expect.len() > 15, "{expect:?}");
    let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
    check(&manifest, &[("in", &given)], &expect);
}

#[test]
fn joins_and_plugins_with_timers_behind_them() {
    let manifest = "[[source]]\nid='l'\ntopic='l'\n[[source]]\nid='r'\ntopic='r'\n\
        [[node]]\nid='j'\nfrom='l'\njoin={with='r',within='3ms',kind='outer',left='l',right='r'}\n\
        [[node]]\nid='n'\nfrom='j'\nplugin='timers'\nkeeps_key=true\n\
        [[node]]\nid='c'\nfrom='n'\naggregate='count'\n[[sink]]\nfrom='n'\ntopic='out'\n[[sink]]\nfrom='c'\ntopic='counts'\n";
    let left = ["a=1@0", "b=1@0", "c=1@1", "d=1@2", "a=2@30", "e=1@31", "a=3@60", "b=9@61"];
    let right = ["b=7@1", "x=1@0", "y=1@2", "z=1@3", "a=8@31", "x=2@62", "y=2@90"];
    let inputs = [("l", &left[..]), ("r", &right[..])];
    let mut lab = Lab::new(&linked(manifest), &inputs);
    lab.run(None).unwrap();
    let expect = lab.topics.taken;
    assert!(expect.iter().filter(|one| one.contains("due")).count() > 5, "{expect:?}");
    // Records come in the order in which they are there, so all sizes of reads give the same.
    for at_once in [1, 2, 3, 5] {
        let mut other = Lab::new(&linked(manifest), &inputs);
        other.at_once = at_once;
        other.abort();
        other.run(None).unwrap();
        let of = |topic: &str, all: &[String]| -> Vec<String> {
            all.iter().filter(|one| one.starts_with(topic)).cloned().collect()
        };
        for topic in ["out: ", "counts: "] {
            assert_eq!(of(topic, &other.topics.taken), of(topic, &expect), "{at_once} at once");
        }
    }
}

/// The offset of the record is committed when it waits: what is left is found in the stores.
#[test]
fn a_task_that_begins_anew_goes_on_where_the_transaction_has_ended() {
    for node in [
        "window={tumbling='5ms',emit='on-close'}\naggregate='count'",
        "window={tumbling='5ms',emit='on-close',retention='1h'}\naggregate='count'",
        "window={sliding='5ms',emit='on-close'}\naggregate='count'",
        "window={session='5ms',emit='on-close'}\naggregate='count'",
        "plugin='timers'",
    ] {
        let manifest =
            format!("{SOURCE}[[node]]\nid='n'\nfrom='in'\n{node}\n[[sink]]\nfrom='n'\ntopic='out'\n");
        let given = rows(40, &["a=x@100", "b=x@101", "k3=x@102"]);
        let given = texts(&given);
        let inputs = [("in", &given[..])];
        let mut calm = Lab::new(&linked(&manifest), &inputs);
        calm.run(None).unwrap();
        let mut lab = Lab::new(&linked(&manifest), &inputs);
        lab.at_once = 6;
        lab.abort();
        let (mut passes, mut most) = (0, 0);
        loop {
            let before = lab.topics.taken.len();
            if !lab.step(&mut || 50).unwrap() {
                break;
            }
            passes += 1;
            // Of the first step that of the records before it as well.
            if passes > 1 {
                most = most.max(lab.topics.taken.len() - before);
            }
            lab.commit(passes % 2 == 0);
            lab.abort();
        }
        assert_eq!(lab.topics.taken, calm.topics.taken, "{node}");
        assert!(passes >= 40 / 6 && most <= 6 + 3, "{node}: {passes} passes with up to {most} results");
        assert!(!lab.task.is_behind().unwrap());
    }
}

/// What a topic does not take is left out by itself, as the policy says; the rest goes out.
#[test]
fn results_that_are_refused_are_left_out_alone() {
    let manifest = |on_error: &str| {
        format!(
            "{SOURCE}[[node]]\nid='n'\nfrom='in'\nwindow={{session='5ms',emit='on-close'}}\naggregate='last:raw'\n\
             on_error={on_error}\n[[sink]]\nfrom='n'\ntopic='out'\n"
        )
    };
    let mut given = rows(30, &["a=x@100"]);
    given[13] = "k13=big@1".to_owned();
    given[22] = "k22=big@1".to_owned();
    let given = texts(&given);
    let inputs = [("in", &given[..])];
    let mut lab = Lab::new(&linked(&manifest("{policy='skip'}")), &inputs);
    lab.at_once = 8;
    lab.abort();
    lab.run(None).unwrap();
    assert_eq!(lab.topics.taken.len(), 28, "{:?}", lab.topics.taken);
    assert!(lab.topics.taken.iter().all(|one| !one.contains("big")));
    let mut lab = Lab::new(&linked(&manifest("{policy='fail'}")), &inputs);
    lab.at_once = 8;
    lab.abort();
    assert!(lab.run(None).unwrap_err().contains("does not take"));
}
