//! `pelton plugin test`: fixtures of plugins, without a broker.

use crate::lab::{Lab, path};
use anyhow::{Context, Result, ensure};
use pelton_tests::guest;
use std::path::Path;
use std::process::Command;

/// What `unruly` makes of records, and what it cannot process.
const UNRULY: &str = r#"# Of the guest `unruly`.
[[case]]
name = "records are what they say"
topic = "t"
input = [{ value = "a" }, { value = "log hello", offset = 7, timestamp = 3, headers = [["h"]] }]
output = [
  { key = "0", value = "0:0:a" },
  { key = "0", value = "0:7:log hello", timestamp = 3, headers = [["h"]] }, # as it came
]

[[case]]
name = "what cannot be processed is left out"
input = [{ value = "a" }, { value = "trap" }, { value = "b" }, { value = "reject" }, { value = "ill-formed" }, { value = "c" }]
output = [{ key = "0", value = "0:0:a" }, { key = "0", value = "0:2:b" }, { key = "0", value = "0:5:c" }]
failures = [
  { offset = 1, kind = "trapped", reason = "told to trap" },
  { offset = 3, reason = "told to reject" },
  { offset = 4, kind = "ill-formed" },
]

[[case]]
name = "a task that stops"
config = { tag = "!" }

[[case.step]]
partition = 2
input = [{ value = "a" }]
output = [{ key = "2", value = "2:0:a!" }]

[[case.step]]
input = [{ value = "b" }]
output = [{ key = "0", value = "0:0:b!" }]

[[case.step]]
input = [{ value = "c" }, { value = "fatal" }]
failures = [{ offset = 1, last = 2, kind = "fatal", reason = "told to stop", stops = true }]

[[case]]
name = "settings that are refused"
config = { tag = "refused" }
refused = "this tag is refused"
"#;

/// What `keeper` keeps.
const KEEPER: &str = r#"
[[case]]
name = "what a failed call has written is not there"
before.seen = [{ key = "a", value = "4" }]

[[case.step]]
input = [{ key = "a" }, { key = "b", value = "trap" }, { key = "a", value = "reject" }, { key = "b", value = "all" }]
output = [{ key = "a", value = "5" }, { key = "b", value = "a=5 b=1" }]
failures = [{ offset = 1, kind = "trapped" }, { offset = 2, kind = "reject" }]
after.seen = [{ key = "a", value = "5" }, { key = "b", value = "1" }]

[[case.step]]
input = [{ key = "w", value = "window", timestamp = 60000 }]
output = [{ key = "w", value = "1@60000", timestamp = 60000 }]
after.recent = [{ key = "w", start = 60000, value = "1" }]
"#;

struct Tested {
    code: i32,
    stdout: String,
    stderr: String,
}

fn test(lab: &Lab, dir: &Path, component: &Path, more: &[&str]) -> Result<Tested> {
    let mut command = Command::new(&lab.binary);
    command.args(["plugin", "test"]).arg(dir).arg("--component").arg(component).args(more);
    let ended = command.output().context("run pelton")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&ended.stdout), text(&ended.stderr));
    ensure!(!stderr.contains("panicked"), "{stderr}");
    Ok(Tested { code: ended.status.code().unwrap_or(-1), stdout, stderr })
}

/// A plugin's directory with one fixture.
fn fixture(lab: &Lab, name: &str, text: &str) -> Result<std::path::PathBuf> {
    let dir = lab.dir.join(name);
    std::fs::create_dir_all(dir.join("tests"))?;
    std::fs::write(dir.join("tests/cases.toml"), text)?;
    Ok(dir)
}

/// What is right passes, what is not is told and can be written anew, and what makes no sense is refused.
pub(crate) fn tell(lab: &Lab) -> Result<String> {
    let unruly = fixture(lab, "unruly", UNRULY)?;
    let Tested { code, stdout, stderr } = test(lab, &unruly, &lab.component, &[])?;
    ensure!(code == 0 && stdout.ends_with("4 passed\n"), "{stdout}{stderr}");
    let keeper = guest::build(&lab.binary, "keeper", &lab.build_dir, &lab.dir)?;
    let Tested { code, stdout, stderr } = test(lab, &fixture(lab, "keeper", KEEPER)?, &keeper, &[])?;
    ensure!(code == 0 && stdout.ends_with("1 passed\n"), "{stdout}{stderr}");

    let wrong = UNRULY.replace("0:0:a\" },\n", "0:0:b\" },\n").replace("offset = 3, ", "");
    let dir = fixture(lab, "wrong", &wrong)?;
    let Tested { code, stdout, stderr } = test(lab, &dir, &lab.component, &[])?;
    ensure!(
        code == 1 && stderr.contains("2 of 4 cases failed") && stderr.contains("--bless"),
        "{code}: {stderr}"
    );
    for line in [
        "FAILED  cases.toml: records are what they say",
        "          output[0]: value differs",
        "            expected { key = \"0\", value = \"0:0:b\" }",
        "            came     { key = \"0\", value = \"0:0:a\" }",
        "          log: info: hello",
        "FAILED  cases.toml: what cannot be processed is left out",
        "          failures[1]: offset differs",
        "ok      cases.toml: a task that stops",
    ] {
        ensure!(stdout.lines().any(|other| other == line), "it says nothing of `{line}`: {stdout}");
    }
    let Tested { code, stdout, .. } = test(lab, &dir, &lab.component, &["--filter", "stops"])?;
    ensure!(code == 0 && stdout.ends_with("1 passed\n"), "{stdout}");

    let Tested { code, stdout, stderr } = test(lab, &dir, &lab.component, &["--bless"])?;
    ensure!(code == 0 && stdout.ends_with("2 passed, 2 written anew\n"), "{stdout}{stderr}");
    let Tested { code, stdout, .. } = test(lab, &dir, &lab.component, &[])?;
    ensure!(code == 0 && stdout.ends_with("4 passed\n"), "{stdout}");
    let blessed = std::fs::read_to_string(dir.join("tests/cases.toml"))?;
    ensure!(
        blessed.starts_with("# Of the guest `unruly`.\n") && blessed.contains("topic = \"t\""),
        "{blessed}"
    );

    for (name, text, named) in [
        (
            "key",
            "[[case]]\nname = 'c'\nplaced = [1]\n",
            "`placed` is not for plugins of the world `transform`",
        ),
        ("toml", "[[case]\n", "cases.toml"),
        ("empty", "", "it has no [[case]]"),
        ("setting", "[[case]]\nname = 'c'\nconfig.tga = 'x'\n", "config.tga is not a setting of the plugin"),
    ] {
        let Tested { code, stdout, stderr } = test(lab, &fixture(lab, name, text)?, &lab.component, &[])?;
        let said = format!("{stdout}{stderr}");
        // Settings that do not fit are a case that fails, as a deployment would.
        let expected = if name == "setting" { 1 } else { 2 };
        ensure!(code == expected && said.contains(named), "{name}: {code}: {said}");
    }
    let bare = lab.dir.join("bare");
    std::fs::create_dir(&bare)?;
    let Tested { code, stderr, .. } = test(lab, &bare, &lab.component, &[])?;
    ensure!(code == 2 && stderr.contains(path(&bare.join("tests"))), "{code}: {stderr}");
    Ok("5 cases of two guests".to_owned())
}
