//! What is wrong is refused when it is deployed, by name, with the exit code that `pelton --help` documents, and leaves
//! nothing behind.

use crate::lab::{Lab, Pipe, path, until_state};
use anyhow::{Context, Result, ensure};
use pelton_tests::cli::Cli;
use pelton_tests::load::create_topic;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;

/// A component that imports an interface with one function.
fn importing(import: &str) -> Result<Vec<u8>> {
    let text = format!("(component (import \"{import}\" (instance (export \"get\" (func (result u32))))))");
    Ok(wat::parse_str(text)?)
}

fn nothing_is_there(cli: &Cli) -> Result<()> {
    for list in ["plugin", "pipeline"] {
        let listed = cli.json(&[list, "list", "--json"])?;
        ensure!(listed.as_array().is_some_and(Vec::is_empty), "{list}s: {listed}");
    }
    Ok(())
}

/// Bytes of a component that is refused for its size alone.
const LARGE: u32 = 100 << 20;

/// A component with so many bytes more, in a section that means nothing.
fn padded(component: &[u8], bytes: u32) -> Vec<u8> {
    let mut padded = component.to_vec();
    // The length of a section is LEB128, which may be as long as five bytes; its name is empty.
    let length = [
        bytes & 0x7f | 0x80,
        bytes >> 7 & 0x7f | 0x80,
        bytes >> 14 & 0x7f | 0x80,
        bytes >> 21 & 0x7f | 0x80,
        bytes >> 28,
    ];
    padded.push(0);
    padded.extend(length.map(|byte| byte as u8));
    padded.resize(padded.len() + bytes as usize, 0);
    padded
}

pub(crate) fn components(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    let hint = "pelton plugin inspect";
    let cases: [(&str, Vec<u8>, &[&str]); 8] = [
        (
            "wasi",
            importing("wasi:http/outgoing-handler@0.2.0")?,
            &["wasi:http/outgoing-handler@0.2.0", "answer nothing", hint],
        ),
        (
            "stranger",
            importing("acme:secrets/store@1.0.0")?,
            &["acme:secrets/store@1.0.0", "`transform`", hint],
        ),
        (
            "state",
            importing("pelton:plugin/state@0.1.0")?,
            &["pelton:plugin/state@0.1.0", "another world", hint],
        ),
        ("function", wat::parse_str("(component (import \"now\" (func (result u64))))")?, &["`now`", hint]),
        ("empty", wat::parse_str("(component)")?, &["configure", hint]),
        (
            "module",
            wat::parse_str("(module (func (export \"process\")))")?,
            &["core module", "pelton plugin build"],
        ),
        ("text", b"not a component".to_vec(), &["component", hint]),
        ("nothing", Vec::new(), &["component", hint]),
    ];
    for (name, bytes, named) in &cases {
        let file = lab.write(&format!("{name}.wasm"), bytes)?;
        cli.refused(&["plugin", "push", &file], FAILED, named)?;
    }
    // As large as no plugin is.
    let file = lab.write("large.wasm", padded(&wat::parse_str("(component)")?, LARGE))?;
    cli.refused(&["plugin", "push", &file], FAILED, &["33554432"])?;
    // Cut off in the middle, and with a byte changed.
    let whole = std::fs::read(&lab.component)?;
    let cut = lab.write("cut.wasm", &whole[..whole.len() / 2])?;
    cli.refused(&["plugin", "push", &cut], FAILED, &["component"])?;
    cli.refused(&["plugin", "push", "/does/not/exist.wasm"], USAGE, &["/does/not/exist.wasm"])?;
    cli.refused(
        &["plugin", "inspect", &lab.write("no.wasm", "no")?],
        FAILED,
        &["no.wasm", "not a component"],
    )?;
    nothing_is_there(&cli)?;
    // The broker was not hurt, and the right one is taken, once.
    let pushed = cli.json(&["plugin", "push", path(&lab.component)])?;
    let again = cli.json(&["plugin", "push", path(&lab.component)])?;
    ensure!(
        pushed["new"] == true && again["new"] == false && pushed["digest"] == again["digest"],
        "{pushed} {again}"
    );
    broker.stop()?;
    Ok(format!("{} kinds", cases.len() + 1))
}

pub(crate) fn manifests(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start()?;
    create_topic(&broker.address, "in", 1, &[])?;
    let good = "name = \"p\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n[[node]]\nid = \"n\"\nfrom = \"s\"\n\
                plugin = \"unruly\"\n[[sink]]\nfrom = \"n\"\ntopic = \"made\"\n";
    // Before the plugin is there.
    let file = lab.write("p.toml", good)?;
    cli.refused(&["deploy", &file], FAILED, &["`unruly`", "never pushed", "hint"])?;
    cli.ok(&["plugin", "push", path(&lab.component)])?;
    let zeros = "0".repeat(64);
    let cases: [(&str, &str, i32, &[&str]); 13] = [
        ("topic = \"in\"", "topc = \"in\"", USAGE, &["p.toml", "topc", "`topic`", "line 4"]),
        ("name = \"p\"", "name = \"P!\"", USAGE, &["p.toml", "name", "P!"]),
        ("name = \"p\"", "name = ", USAGE, &["p.toml", "line 1"]),
        (
            "name = \"p\"",
            "name = \"p\"\nguarantee = \"twice\"",
            USAGE,
            &["guarantee", "twice", "exactly-once"],
        ),
        (
            "topic = \"in\"",
            "topic = \"missing\"",
            FAILED,
            &["`missing` does not exist", "pelton topic create"],
        ),
        ("topic = \"made\"", "topic = \"in\"", FAILED, &["`in`"]),
        ("topic = \"made\"", "topic = \"__consumer_offsets\"", USAGE, &["__consumer_offsets"]),
        ("from = \"s\"", "from = \"t\"", FAILED, &["`t`"]),
        ("from = \"n\"", "from = \"s\"", FAILED, &["`n`"]),
        ("plugin = \"unruly\"", "plugin = \"other\"", FAILED, &["`other`"]),
        ("\"unruly\"", "\"unruly@sha256:ZEROS\"", FAILED, &["sha256:0000", "never pushed"]),
        ("\"unruly\"", "\"unruly\"\nconfig = { tga = \"x\" }", FAILED, &["config.tga", "`tag`"]),
        ("\"unruly\"", "\"unruly\"\nconfig = { tag = \"refused\" }", FAILED, &["this tag is refused", "`n`"]),
    ];
    for (old, new, code, named) in cases {
        ensure!(good.contains(old), "{old}");
        let file = lab.write("p.toml", good.replacen(old, &new.replace("ZEROS", &zeros), 1))?;
        cli.refused(&["deploy", &file], code, named)?;
        cli.refused(&["deploy", "--dry-run", &file], code, named)?;
    }
    let file =
        lab.write("p.toml", good.replace("\"unruly\"", "\"unruly\"\nlimits = { memory = \"2 GiB\" }"))?;
    cli.refused(&["deploy", &file], USAGE, &["limits.memory", "1 GiB"])?;
    cli.refused(&["deploy", "/does/not/exist"], USAGE, &["/does/not/exist"])?;
    let listed = cli.json(&["pipeline", "list", "--json"])?;
    ensure!(listed.as_array().is_some_and(Vec::is_empty), "{listed}");
    ensure!(!cli.ok(&["topic", "list"])?.contains("made"), "a refused deployment made a topic");
    let file = lab.write("p.toml", good)?;
    let said = cli.ok(&["deploy", "--dry-run", &file])?;
    ensure!(said.contains("nothing was changed"), "{said}");
    ensure!(!cli.ok(&["topic", "list"])?.contains("made"), "a dry run made a topic");
    cli.ok(&["deploy", &file])?;
    // Two topics whose metrics would have one name.
    create_topic(&broker.address, "dotted.name", 1, &[])?;
    let file = lab.write("q.toml", good.replace("\"p\"", "\"q\"").replace("\"made\"", "\"dotted_name\""))?;
    for args in [&["deploy", &file][..], &["deploy", "--dry-run", &file]] {
        cli.refused(args, FAILED, &["`dotted_name`", "`dotted.name`", "hint"])?;
    }
    broker.stop()?;
    Ok(format!("{} manifests", cases.len() + 2))
}

/// Without a broker, without its token, about a pipeline that is not there.
pub(crate) fn strangers(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    create_topic(&broker.address, "in", 1, &[])?;
    for verb in ["describe", "pause", "resume", "delete", "logs"] {
        cli.refused(&["pipeline", verb, "nobody"], FAILED, &["no pipeline `nobody` is deployed"])?;
        cli.refused(&["pipeline", verb, "../v1"], FAILED, &["../v1"])?;
    }
    lab.deploy(&cli, Pipe::new("p", "in", "out"))?;
    let manifest = path(&lab.dir.join("p.toml")).to_owned();
    let changes: [&[&str]; 5] = [
        &["pipeline", "pause", "p"],
        &["pipeline", "resume", "p"],
        &["pipeline", "delete", "p"],
        &["plugin", "push", path(&lab.component)],
        &["deploy", &manifest],
    ];
    let elsewhere = Cli { data_dir: lab.dir.join("elsewhere"), ..cli.clone() };
    let wrong = Cli { data_dir: lab.dir.join("wrong"), ..cli.clone() };
    std::fs::create_dir(&wrong.data_dir)?;
    std::fs::write(wrong.data_dir.join("http.token"), "0123456789abcdef0123456789abcdef\n")?;
    for args in changes {
        elsewhere.refused(args, USAGE, &["http.token", "--data-dir"])?;
        wrong.refused(args, FAILED, &["token is wrong"])?;
    }
    until_state(&elsewhere, "p", "running").context("looking needs no token")?;
    broker.stop()?;
    // A port that others can reach, and no token that somebody made on purpose.
    let serve =
        ["serve", "--listen", "127.0.0.1:0", "--data-dir", path(&elsewhere.data_dir), "--http", "0.0.0.0:0"];
    cli.refused(
        &serve,
        USAGE,
        &["`http.listen`", "`0.0.0.0:0`", "`http.token`", "16 characters", "127.0.0.1"],
    )?;
    for args in changes.into_iter().chain([&["pipeline", "list"][..], &["plugin", "list"]]) {
        cli.refused(args, UNREACHABLE, &["no broker answers", &cli.http, "pelton serve"])?;
    }
    Ok(format!("{} changes", changes.len()))
}
