//! What plugins can call. Each world has a linker with the functions that the world imports and no others, so a plugin
//! cannot be linked with anything that its world lacks.

use std::sync::Arc;

use pelton_streams::World;
use pelton_streams::http::{HttpClient, MAX_SECRET_BYTES};
use pelton_streams::log::{LogLevel, LogSink, MAX_LINE_BYTES, MAX_LINES_PER_CALL, clip};
use pelton_streams::node_state::NodeState;
use pelton_streams::world::Interface;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, WasmStr};

use crate::limits::Limiter;

mod http;
mod state;
mod timers;
pub(crate) mod wasi;

pub(crate) use http::Sending;
pub(crate) use timers::DomainParam;

/// The name of an interface, as a component imports it.
pub(crate) fn qualified(interface: Interface) -> String {
    format!("pelton:plugin/{}@0.1.0", interface.name())
}

/// A linker for each world that this host runs.
pub(crate) struct Linkers(Vec<(World, Linker<HostState>)>);

impl Linkers {
    pub(crate) fn new(engine: &wasmtime::Engine) -> wasmtime::Result<Linkers> {
        let hosted = World::ALL.into_iter().filter(|world| world.spec().is_hosted);
        let linker = |world: World| {
            let mut linker = Linker::new(engine);
            world.spec().imports.iter().try_for_each(|interface| define(*interface, &mut linker))?;
            Ok((world, linker))
        };
        hosted.map(linker).collect::<wasmtime::Result<_>>().map(Linkers)
    }

    /// `None`: this host does not run plugins of that world.
    pub(crate) fn of(&self, world: World) -> Option<&Linker<HostState>> {
        self.0.iter().find(|(of, _)| *of == world).map(|(_, linker)| linker)
    }
}

/// The host's part of a store.
pub(crate) struct HostState {
    pub(crate) limiter: Limiter,
    pub(crate) log: CallLog,
    /// The stores of the node, while a call may use them.
    pub(crate) lent: Option<NodeState>,
    /// What sends requests, once the instance is configured, if it may make some.
    pub(crate) http: Option<Sending>,
    /// Resources of WASI that the instance holds.
    pub(crate) resources: u32,
}

/// Bytes of a printed line that are remembered: a secret that begins in what is kept of it is there whole.
const MAX_PRINTED_BYTES: usize = MAX_LINE_BYTES + MAX_SECRET_BYTES;

/// The log lines of one call, at most [`MAX_LINES_PER_CALL`]: a plugin that logs each record would slow down its
/// pipeline.
pub(crate) struct CallLog {
    sink: Arc<dyn LogSink>,
    lines: u32,
    dropped: u64,
    last_error: Option<String>,
    /// What was printed since the last line break.
    printed: Vec<u8>,
    /// What knows the secrets that must not be in a line.
    redact: Option<Arc<dyn HttpClient>>,
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "made out of the guest's number by the derived code, never by name")]
enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl CallLog {
    pub(crate) fn new(sink: Arc<dyn LogSink>) -> CallLog {
        CallLog { sink, lines: 0, dropped: 0, last_error: None, printed: Vec::new(), redact: None }
    }

    /// The secrets of a client are left out of lines: a server may tell a plugin what was sent to it.
    pub(crate) fn redact_by(&mut self, client: Option<&Arc<dyn HttpClient>>) {
        self.redact = client.cloned();
    }

    /// A call begins, with the whole budget of lines.
    pub(crate) fn begin(&mut self) {
        (self.lines, self.dropped, self.last_error) = (0, 0, None);
        self.printed.clear();
    }

    /// A call has ended: logs how many lines were dropped. Returns the last error line, which is the text of a panic if
    /// there was one.
    pub(crate) fn end(&mut self) -> Option<String> {
        self.end_line(LogLevel::Error);
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            let text =
                format!("{dropped} lines of this call were dropped: at most {MAX_LINES_PER_CALL} are kept");
            self.sink.write(LogLevel::Warn, &text);
        }
        self.last_error.take()
    }

    /// Takes what the plugin's language prints, as lines. Of a line that is too long the rest is left out.
    pub(crate) fn print(&mut self, level: LogLevel, bytes: impl Iterator<Item = u8>) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(level),
                _ if self.printed.len() < MAX_PRINTED_BYTES => self.printed.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self, level: LogLevel) {
        let line = std::mem::take(&mut self.printed);
        if line.is_empty() {
            return;
        }
        let mut kept = self.kept(&String::from_utf8_lossy(&line));
        if line.len() >= MAX_PRINTED_BYTES {
            // What a secret has left that was cut off with the rest of the line.
            kept.truncate(kept.floor_char_boundary(kept.len().saturating_sub(MAX_SECRET_BYTES)));
        }
        self.write(level, &kept);
    }

    /// As much of a text as a call can say, without secrets. They are taken out before it is cut: what is left of one that is cut
    /// through would not be found.
    fn kept(&self, text: &str) -> String {
        let most = MAX_LINE_BYTES * MAX_LINES_PER_CALL as usize;
        match &self.redact {
            Some(client) => clip(&client.redact(text), most).to_owned(),
            None => clip(text, most).to_owned(),
        }
    }

    /// Lines of what is kept of a text.
    fn write(&mut self, level: LogLevel, text: &str) {
        if level == LogLevel::Error {
            self.last_error = Some(one_line(text));
        }
        for line in text.split('\n') {
            if self.lines >= MAX_LINES_PER_CALL {
                self.dropped += 1;
                continue;
            }
            self.lines += 1;
            self.sink.write(level, &one_line(line));
        }
    }
}

/// Lines end up in terminals: control characters and line breaks become spaces.
fn one_line(text: &str) -> String {
    clip(text.trim_end(), MAX_LINE_BYTES).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn define(interface: Interface, linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut linker = linker.instance(&qualified(interface))?;
    match interface {
        Interface::Log => linker.func_wrap("write", write),
        Interface::State => state::define(&mut linker),
        Interface::Timers => timers::define(&mut linker),
        Interface::Http => http::define(&mut linker),
    }
}

fn write(mut store: StoreContextMut<'_, HostState>, (level, text): (Level, WasmStr)) -> wasmtime::Result<()> {
    // The guest's text is copied up to the limits of a call.
    let kept = {
        let text = text.to_str(&store)?;
        store.data().log.kept(&text)
    };
    let level = match level {
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
    };
    store.data_mut().log.write(level, &kept);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use pelton_streams::http::{HttpError, HttpRequest, HttpResponse};

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<(LogLevel, String)>>);

    impl LogSink for Kept {
        fn write(&self, level: LogLevel, text: &str) {
            self.0.lock().expect("not poisoned").push((level, text.to_owned()));
        }
    }

    /// Knows one secret.
    struct Secret(String);

    impl HttpClient for Secret {
        fn send(&self, _: Vec<HttpRequest>, _: Duration) -> Vec<Result<HttpResponse, HttpError>> {
            Vec::new()
        }

        fn cancel(&self) {}

        fn redact(&self, text: &str) -> String {
            text.replace(&self.0, "***")
        }
    }

    #[test]
    fn a_secret_that_lies_across_the_end_of_a_line_is_not_told_half() {
        let secret = "s3cret-".repeat(200);
        let client: Arc<dyn HttpClient> = Arc::new(Secret(secret.clone()));
        let kept = Arc::new(Kept::default());
        let mut log = CallLog::new(Arc::clone(&kept) as Arc<dyn LogSink>);
        log.redact_by(Some(&client));
        log.begin();
        let begins = "x".repeat(MAX_LINE_BYTES - 10);
        // Many of them, so that what is cut off would move to where it is kept.
        for line in [format!("{begins}{secret}"), format!("{secret} ").repeat(50)] {
            log.print(LogLevel::Info, line.bytes().chain(*b"\n"));
            let text = log.kept(&line);
            log.write(LogLevel::Info, &text);
        }
        for (_, line) in &*kept.0.lock().expect("not poisoned") {
            assert!(!line.contains("s3cret"), "{line}");
        }
    }

    #[test]
    fn a_call_says_only_so_much() {
        let kept = Arc::new(Kept::default());
        let mut log = CallLog::new(Arc::clone(&kept) as Arc<dyn LogSink>);
        log.begin();
        log.write(LogLevel::Info, "one\r\ntwo\x1b[31m");
        log.write(LogLevel::Error, &"x".repeat(2 * MAX_LINE_BYTES));
        for _ in 0..MAX_LINES_PER_CALL {
            log.write(LogLevel::Debug, "more");
        }
        assert_eq!(log.end(), Some("x".repeat(MAX_LINE_BYTES)));
        let lines = std::mem::take(&mut *kept.0.lock().expect("not poisoned"));
        assert_eq!(lines.len(), MAX_LINES_PER_CALL as usize + 1);
        assert_eq!(lines[0], (LogLevel::Info, "one".to_owned()));
        assert_eq!(lines[1], (LogLevel::Info, "two [31m".to_owned()));
        let last = "3 lines of this call were dropped: at most 100 are kept".to_owned();
        assert_eq!(lines.last(), Some(&(LogLevel::Warn, last)));
        log.begin();
        assert_eq!(log.end(), None);
    }
}
