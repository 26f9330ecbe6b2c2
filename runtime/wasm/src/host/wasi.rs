//! WASI 0.2 without access to anything, for components whose language always imports it (Python, JavaScript). What a
//! function answers depends on its type alone, but for the few below: time stands still, random bytes are all the same,
//! there are no files, no network, no environment. The same input gives the same output, on every machine. Standard
//! output and error are lines of the plugin's log.
//!
//! All resources have one type and hold nothing, so interfaces that share them always fit together.

use pelton_streams::log::LogLevel;
use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentItem, ResultType, Type};
use wasmtime::component::{Component, Linker, Resource, ResourceType, Val};

use super::HostState;

/// What every clock says, in nanoseconds: 2023-11-14T22:13:20Z.
pub(crate) const CLOCK_NS: u64 = 1_700_000_000_000_000_000;
/// The value of every random byte.
pub(crate) const RANDOM_BYTE: u8 = 7;

/// Resources (streams, things to wait for) that an instance holds at once.
const MAX_RESOURCES: u32 = 10_000;
/// Random bytes that one call gives, and bytes that a stream says it takes at once.
const MAX_CHUNK_BYTES: u64 = 4096;

/// The interfaces that are answered. Any other import of WASI is refused by name.
const INTERFACES: [&str; 28] = [
    "cli/environment",
    "cli/exit",
    "cli/stderr",
    "cli/stdin",
    "cli/stdout",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stderr",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "clocks/monotonic-clock",
    "clocks/timezone",
    "clocks/wall-clock",
    "filesystem/preopens",
    "filesystem/types",
    "io/error",
    "io/poll",
    "io/streams",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
    "sockets/instance-network",
    "sockets/ip-name-lookup",
    "sockets/network",
    "sockets/tcp",
    "sockets/tcp-create-socket",
    "sockets/udp",
    "sockets/udp-create-socket",
];

/// A resource of any kind. Its number tells standard output and error from the rest.
struct Nothing;

const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// Whether an import is one of WASI that is answered by a deterministic nothing: `wasi:clocks/wall-clock@0.2.9`.
pub fn is_answered(import: &str) -> bool {
    interface(import).is_some()
}

/// The interface of such an import, without package and version.
fn interface(import: &str) -> Option<&'static str> {
    let (name, version) = import.strip_prefix("wasi:")?.split_once('@')?;
    let known = INTERFACES.into_iter().find(|known| *known == name)?;
    version.starts_with("0.2.").then_some(known)
}

/// The linker of a world for one component: with what the component imports of WASI, if it does.
pub(crate) fn linker(
    engine: &wasmtime::Engine,
    component: &Component,
    world: &Linker<HostState>,
) -> wasmtime::Result<Linker<HostState>> {
    let mut linker = world.clone();
    for (name, import) in component.component_type().imports(engine) {
        let (Some(interface), ComponentItem::ComponentInstance(instance)) = (interface(name), &import.ty)
        else {
            continue;
        };
        let mut linker = linker.instance(name)?;
        for (export, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let answer = Answer::of(interface, export);
                    let name = format!("{name}#{export}");
                    linker.func_new(export, move |mut store, ty, given, results| {
                        let given = Given::take(&mut store, given)?;
                        for (result, ty) in results.iter_mut().zip(ty.results()) {
                            *result = answer.give(&mut store, &given, &ty, &name)?;
                        }
                        match answer {
                            Answer::Trap => {
                                wasmtime::bail!("the plugin called `{name}`, which nothing answers")
                            }
                            _ => Ok(()),
                        }
                    })?;
                }
                ComponentItem::Resource(_) => {
                    linker.resource(export, ResourceType::host::<Nothing>(), |mut store, _| {
                        store.data_mut().resources = store.data().resources.saturating_sub(1);
                        Ok(())
                    })?;
                }
                ComponentItem::Type(_) => {}
                _ => wasmtime::bail!("`{name}` has `{export}`, which is neither a function nor a type"),
            }
        }
    }
    Ok(linker)
}

/// What a function answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// What says least, by its type: none, no element, "access denied".
    Nothing,
    /// Success without a value, or true.
    Done,
    /// The clock, as nanoseconds or as a record of seconds and nanoseconds.
    Clock,
    /// As many random bytes as were asked for, up to a limit.
    RandomBytes,
    /// Numbers of random bytes.
    RandomNumber,
    /// The number of each of the things to wait for: all are ready.
    AllReady,
    /// How much may be written.
    Room,
    /// Bytes for the log.
    Write,
    /// A stream of this number.
    Stream(u32),
    /// The end of the instance.
    Trap,
}

impl Answer {
    fn of(interface: &str, function: &str) -> Answer {
        match (interface, function) {
            ("clocks/monotonic-clock" | "clocks/wall-clock", "now") => Answer::Clock,
            ("random/random", "get-random-bytes") | ("random/insecure", "get-insecure-random-bytes") => {
                Answer::RandomBytes
            }
            ("random/random", "get-random-u64") | ("random/insecure", "get-insecure-random-u64") => {
                Answer::RandomNumber
            }
            ("random/insecure-seed", "insecure-seed" | "get-insecure-seed") => Answer::RandomNumber,
            ("io/poll", "poll") => Answer::AllReady,
            ("io/poll", "[method]pollable.ready") => Answer::Done,
            ("io/streams", "[method]output-stream.check-write") => Answer::Room,
            (
                "io/streams",
                "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush",
            ) => Answer::Write,
            ("io/streams", "[method]output-stream.flush" | "[method]output-stream.blocking-flush") => {
                Answer::Done
            }
            ("cli/stdout", "get-stdout") => Answer::Stream(STDOUT),
            ("cli/stderr", "get-stderr") => Answer::Stream(STDERR),
            ("cli/exit", _) => Answer::Trap,
            _ => Answer::Nothing,
        }
    }

    fn give(
        self,
        store: &mut StoreContextMut<'_, HostState>,
        given: &Given<'_>,
        ty: &Type,
        name: &str,
    ) -> wasmtime::Result<Val> {
        Ok(match (self, ty) {
            (Answer::Clock, Type::U64) => Val::U64(CLOCK_NS),
            (Answer::Clock, Type::Record(record)) => {
                let field = |name: &str| match name {
                    "seconds" => Val::U64(CLOCK_NS / 1_000_000_000),
                    _ => Val::U32(0),
                };
                Val::Record(record.fields().map(|f| (f.name.to_owned(), field(f.name))).collect())
            }
            (Answer::RandomBytes, Type::List(_)) => {
                let Some(asked) = given.number.filter(|asked| *asked <= MAX_CHUNK_BYTES) else {
                    wasmtime::bail!("`{name}` gives at most {MAX_CHUNK_BYTES} bytes at once");
                };
                Val::List((0..asked).map(|_| Val::U8(RANDOM_BYTE)).collect())
            }
            (Answer::RandomNumber, Type::U64) => Val::U64(u64::from_le_bytes([RANDOM_BYTE; 8])),
            (Answer::RandomNumber, Type::Tuple(tuple)) => {
                Val::Tuple(tuple.types().map(|_| Val::U64(u64::from_le_bytes([RANDOM_BYTE; 8]))).collect())
            }
            (Answer::AllReady, Type::List(_)) => Val::List((0..given.listed).map(Val::U32).collect()),
            (Answer::Done, Type::Bool) => Val::Bool(true),
            (Answer::Done, Type::Result(_)) => Val::Result(Ok(None)),
            (Answer::Room, Type::Result(_)) => Val::Result(Ok(Some(Box::new(Val::U64(MAX_CHUNK_BYTES))))),
            (Answer::Write, Type::Result(_)) => {
                let level = match given.resource {
                    Some(STDERR) => LogLevel::Error,
                    _ => LogLevel::Info,
                };
                store.data_mut().log.print(level, given.bytes());
                Val::Result(Ok(None))
            }
            (Answer::Stream(number), Type::Own(_)) => resource(store, number)?,
            _ => nothing(store, ty, name)?,
        })
    }
}

/// What a function was given, as far as an answer depends on it.
struct Given<'a> {
    /// The number of its first resource.
    resource: Option<u32>,
    /// How many entries its list has.
    listed: u32,
    number: Option<u64>,
    list: &'a [Val],
}

impl<'a> Given<'a> {
    /// Takes the parameters. Handles that were lent for the call are given back, those that were given are dropped.
    fn take(store: &mut StoreContextMut<'_, HostState>, params: &'a [Val]) -> wasmtime::Result<Given<'a>> {
        let mut given = Given { resource: None, listed: 0, number: None, list: &[] };
        for param in params {
            match param {
                Val::Resource(_) => {
                    let number = release(store, param)?;
                    given.resource = given.resource.or(number);
                }
                Val::List(list) => {
                    given.listed = u32::try_from(list.len())?;
                    given.list = list;
                    for entry in list {
                        release(store, entry)?;
                    }
                }
                Val::U64(number) => given.number = Some(*number),
                _ => {}
            }
        }
        Ok(given)
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.list.iter().filter_map(|byte| match byte {
            Val::U8(byte) => Some(*byte),
            _ => None,
        })
    }
}

fn release(store: &mut StoreContextMut<'_, HostState>, value: &Val) -> wasmtime::Result<Option<u32>> {
    let Val::Resource(any) = value else { return Ok(None) };
    let owned = any.owned();
    let number = Resource::<Nothing>::try_from_resource_any(*any, &mut *store)?.rep();
    if owned {
        store.data_mut().resources = store.data().resources.saturating_sub(1);
    }
    Ok(Some(number))
}

fn resource(store: &mut StoreContextMut<'_, HostState>, number: u32) -> wasmtime::Result<Val> {
    let held = store.data().resources;
    if held >= MAX_RESOURCES {
        wasmtime::bail!("the plugin holds {MAX_RESOURCES} resources of WASI, and more are not allowed");
    }
    store.data_mut().resources = held + 1;
    Ok(Val::Resource(Resource::<Nothing>::new_own(number).try_into_resource_any(store)?))
}

/// The value of a type that says least.
fn nothing(store: &mut StoreContextMut<'_, HostState>, ty: &Type, name: &str) -> wasmtime::Result<Val> {
    Ok(match ty {
        Type::Bool => Val::Bool(false),
        Type::S8 => Val::S8(0),
        Type::U8 => Val::U8(0),
        Type::S16 => Val::S16(0),
        Type::U16 => Val::U16(0),
        Type::S32 => Val::S32(0),
        Type::U32 => Val::U32(0),
        Type::S64 => Val::S64(0),
        Type::U64 => Val::U64(0),
        Type::Float32 => Val::Float32(0.0),
        Type::Float64 => Val::Float64(0.0),
        Type::Char => Val::Char('\0'),
        Type::String => Val::String(String::new()),
        Type::List(_) => Val::List(Vec::new()),
        Type::Map(_) => Val::Map(Vec::new()),
        Type::Option(_) => Val::Option(None),
        Type::Flags(_) => Val::Flags(Vec::new()),
        Type::Own(_) => resource(store, 0)?,
        Type::Record(record) => {
            let fields = record.fields().map(|field| (field.name.to_owned(), field.ty));
            let fields = fields.map(|(field, ty)| Ok((field, nothing(store, &ty, name)?)));
            Val::Record(fields.collect::<wasmtime::Result<_>>()?)
        }
        Type::Tuple(tuple) => {
            let values = tuple.types().map(|ty| nothing(store, &ty, name));
            Val::Tuple(values.collect::<wasmtime::Result<_>>()?)
        }
        Type::Variant(variant) => {
            let Some(case) = variant.cases().find(|case| case.ty.is_none()) else {
                wasmtime::bail!("`{name}` cannot be answered");
            };
            Val::Variant(case.name.to_owned(), None)
        }
        Type::Enum(cases) => {
            let denied = cases.names().find(|case| matches!(*case, "access" | "access-denied"));
            Val::Enum(denied.or_else(|| cases.names().next()).unwrap_or_default().to_owned())
        }
        Type::Result(result) => refusal(store, result, name)?,
        Type::Borrow(_)
        | Type::Future(_)
        | Type::Stream(_)
        | Type::ErrorContext
        | Type::FixedLengthList(_) => wasmtime::bail!("`{name}` cannot be answered"),
    })
}

fn refusal(
    store: &mut StoreContextMut<'_, HostState>,
    result: &ResultType,
    name: &str,
) -> wasmtime::Result<Val> {
    let error = result.err().map(|ty| nothing(store, &ty, name)).transpose()?;
    Ok(Val::Result(Err(error.map(Box::new))))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use pelton_streams::log::{LogLevel, LogSink};
    use pelton_streams::{PluginLimits, World};
    use wasmtime::component::{Instance, TypedFunc};
    use wasmtime::{Engine, Store};

    use super::*;
    use crate::host::Linkers;
    use crate::limits::MemoryPool;
    use crate::store;

    #[derive(Default)]
    struct Kept(Mutex<Vec<(LogLevel, String)>>);

    impl LogSink for Kept {
        fn write(&self, level: LogLevel, text: &str) {
            self.0.lock().expect("not poisoned").push((level, text.to_owned()));
        }
    }

    /// Calls what it imports, as the runtimes of Python and JavaScript do.
    const GUEST: &str = r#"(component
        (import "wasi:io/poll@0.2.12" (instance $poll
            (export "pollable" (type $pollable (sub resource)))
            (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))
        ))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:io/streams@0.2.9" (instance $streams
            (export "output-stream" (type $output (sub resource)))
            (export "[method]output-stream.write"
                (func (param "self" (borrow $output)) (param "contents" (list u8)) (result (result))))
        ))
        (alias export $streams "output-stream" (type $output))
        (import "wasi:cli/stderr@0.2.9" (instance $stderr
            (alias outer 1 $output (type $outer))
            (export "output-stream" (type $output (eq $outer)))
            (export "get-stderr" (func (result (own $output))))
        ))
        (import "wasi:clocks/monotonic-clock@0.2.12" (instance $clock
            (alias outer 1 $pollable (type $outer))
            (export "pollable" (type $pollable (eq $outer)))
            (export "now" (func (result u64)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))
        ))
        (import "wasi:random/random@0.2.9" (instance $random (export "get-random-u64" (func (result u64)))))
        (import "wasi:cli/exit@0.2.9" (instance $exit (export "exit" (func (param "status" (result))))))
        (core module $memory (memory (export "memory") 1) (data (i32.const 16) "out of line\nrest"))
        (core instance $memory (instantiate $memory))
        (core func $now (canon lower (func $clock "now")))
        (core func $soon (canon lower (func $clock "subscribe-duration")))
        (core func $number (canon lower (func $random "get-random-u64")))
        (core func $stderr (canon lower (func $stderr "get-stderr")))
        (core func $write (canon lower (func $streams "[method]output-stream.write") (memory (core memory $memory "memory"))))
        (core func $drop (canon resource.drop $pollable))
        (core func $exit (canon lower (func $exit "exit")))
        (core module $guest
            (import "" "now" (func $now (result i64)))
            (import "" "soon" (func $soon (param i64) (result i32)))
            (import "" "number" (func $number (result i64)))
            (import "" "stderr" (func $stderr (result i32)))
            (import "" "write" (func $write (param i32 i32 i32) (result i32)))
            (import "" "drop" (func $drop (param i32)))
            (import "" "exit" (func $exit (param i32)))
            (func (export "now") (result i64) (call $now))
            (func (export "number") (result i64) (call $number))
            (func (export "print") (drop (call $write (call $stderr) (i32.const 16) (i32.const 16))))
            (func (export "wait") (call $drop (call $soon (i64.const 1))))
            (func (export "hold") (drop (call $soon (i64.const 1))))
            (func (export "leave") (call $exit (i32.const 0)))
        )
        (core instance $guest (instantiate $guest (with "" (instance
            (export "now" (func $now)) (export "soon" (func $soon)) (export "number" (func $number))
            (export "stderr" (func $stderr)) (export "write" (func $write)) (export "drop" (func $drop))
            (export "exit" (func $exit))
        ))))
        (func (export "now") (result u64) (canon lift (core func $guest "now")))
        (func (export "number") (result u64) (canon lift (core func $guest "number")))
        (func (export "print") (canon lift (core func $guest "print")))
        (func (export "wait") (canon lift (core func $guest "wait")))
        (func (export "hold") (canon lift (core func $guest "hold")))
        (func (export "leave") (canon lift (core func $guest "leave")))
    )"#;

    struct Run {
        store: Store<HostState>,
        instance: Instance,
        kept: Arc<Kept>,
    }

    impl Run {
        fn start() -> Run {
            let engine = Engine::new(&crate::engine::wasmtime_config().expect("fits")).expect("runs here");
            let component = wat::parse_str(GUEST).expect("is valid");
            let component = Component::new(&engine, component).expect("is valid");
            let linkers = Linkers::new(&engine).expect("fits");
            let world = linkers.of(World::Transform).expect("is hosted");
            let linker = linker(&engine, &component, world).expect("is answered");
            let (limits, kept) = (PluginLimits::default(), Arc::new(Kept::default()));
            let pool = MemoryPool::new(limits.memory_bytes);
            let mut store = store::store(&engine, &limits, &pool, Arc::clone(&kept) as Arc<dyn LogSink>);
            store::arm(&mut store, 1_000);
            let instance = linker.instantiate(&mut store, &component).expect("links");
            Run { store, instance, kept }
        }

        fn number(&mut self, name: &str) -> u64 {
            let function: TypedFunc<(), (u64,)> =
                self.instance.get_typed_func(&mut self.store, name).expect("is there");
            function.call(&mut self.store, ()).expect("answers").0
        }

        fn call(&mut self, name: &str) -> wasmtime::Result<()> {
            let function: TypedFunc<(), ()> =
                self.instance.get_typed_func(&mut self.store, name).expect("is there");
            function.call(&mut self.store, ())
        }
    }

    #[test]
    fn time_stands_still_and_chance_is_always_the_same() {
        for _ in 0..2 {
            let mut run = Run::start();
            assert_eq!((run.number("now"), run.number("now")), (CLOCK_NS, CLOCK_NS));
            assert_eq!(
                (run.number("number"), run.number("number")),
                (0x0707_0707_0707_0707, 0x0707_0707_0707_0707)
            );
        }
    }

    #[test]
    fn what_is_printed_is_logged_by_line() {
        let mut run = Run::start();
        run.call("print").expect("answers");
        run.call("print").expect("answers");
        assert_eq!(run.store.data_mut().log.end().as_deref(), Some("rest"));
        let lines = ["out of line", "restout of line", "rest"].map(|line| (LogLevel::Error, line.to_owned()));
        assert_eq!(*run.kept.0.lock().expect("not poisoned"), lines);
    }

    #[test]
    fn resources_are_counted_and_given_back() {
        let mut run = Run::start();
        for _ in 0..2 * MAX_RESOURCES {
            run.call("wait").expect("answers");
        }
        assert_eq!(run.store.data().resources, 0);
        let error = (0..=MAX_RESOURCES).find_map(|_| run.call("hold").err()).expect("is stopped");
        assert!(format!("{error:#}").contains("holds 10000 resources of WASI"), "{error:#}");
    }

    #[test]
    fn who_leaves_is_stopped() {
        let error = Run::start().call("leave").expect_err("traps");
        assert!(format!("{error:#}").contains("called `wasi:cli/exit@0.2.9#exit`"), "{error:#}");
    }

    #[test]
    fn nothing_else_is_answered() {
        assert!(is_answered("wasi:clocks/wall-clock@0.2.0") && is_answered("wasi:sockets/tcp@0.2.12"));
        for other in [
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:clocks/wall-clock@0.3.0",
            "wasi:clocks/wall-clock",
            "acme:clocks/wall-clock@0.2.0",
            "pelton:plugin/log@0.1.0",
        ] {
            assert!(!is_answered(other), "{other}");
        }
    }
}
