//! A server that takes webhooks and is not well: it fails, stalls, and loses answers to what it has done. It remembers what it
//! was sent.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    /// In small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Does it and says so.
    Takes,
    /// Does nothing and answers this.
    Refuses(u16),
    /// Does nothing, answers this, and tells what it was sent as `authorization`: in a header, and twice in the body, once across
    /// its 200th byte.
    Echoes(u16),
    /// Does it and closes the connection.
    Forgets,
    /// Does it, and answers when nobody waits any more.
    Stalls,
    /// Waits until the other side has gone.
    Hangs,
}

/// What it knows.
#[derive(Default)]
pub(crate) struct Book {
    /// How often each record was sent, by its idempotency key.
    pub(crate) sent: BTreeMap<String, u32>,
    /// What was done, by idempotency key.
    pub(crate) done: BTreeMap<String, String>,
    /// The idempotency keys of what was answered with 200.
    pub(crate) taken: BTreeSet<String>,
    /// Of each chain, the number of the last record that was answered with 200.
    last: BTreeMap<String, i64>,
    /// What must not have happened.
    pub(crate) problems: Vec<String>,
    /// All requests, if they are kept.
    pub(crate) hooks: Vec<Hook>,
    /// Done again.
    pub(crate) repeated: u64,
}

/// Which records wait for each other: a body is `CHAIN:NUMBER`, with numbers from 0 on.
fn chain(body: &str) -> Option<(String, i64)> {
    let (chain, number) = body.split_once(':')?;
    Some((chain.to_owned(), number.parse().ok()?))
}

impl Book {
    /// Notes a request, and how often it came before.
    fn note(&mut self, hook: &Hook) -> u32 {
        let key = hook.headers.get("idempotency-key").cloned().unwrap_or_default();
        if let Some((chain, number)) = chain(&hook.body) {
            let next = self.last.get(&chain).map_or(0, |last| last + 1);
            if number > next {
                self.problems.push(format!("{} came before {chain}:{next} was taken", hook.body));
            }
        }
        let sent = self.sent.entry(key).or_insert(0);
        *sent += 1;
        *sent - 1
    }

    fn do_it(&mut self, hook: &Hook) {
        let key = hook.headers.get("idempotency-key").cloned().unwrap_or_default();
        match self.done.insert(key.clone(), hook.body.clone()) {
            Some(before) if before != hook.body => {
                self.problems.push(format!("{key} was {before}, and is {}", hook.body));
            }
            Some(_) => self.repeated += 1,
            None => {}
        }
    }

    fn take(&mut self, hook: &Hook) {
        self.taken.insert(hook.headers.get("idempotency-key").cloned().unwrap_or_default());
        if let Some((chain, number)) = chain(&hook.body) {
            let last = self.last.entry(chain).or_insert(-1);
            *last = number.max(*last);
        }
    }
}

/// See the module. Its threads end with the process.
pub(crate) struct Hooks {
    pub(crate) port: u16,
    book: Arc<Mutex<Book>>,
}

impl Hooks {
    /// `mood` is told a request, and how often it came before.
    pub(crate) fn start(mood: impl Fn(&Hook, u32) -> Mood + Send + Sync + 'static) -> Result<Hooks> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
        let port = listener.local_addr()?.port();
        let book: Arc<Mutex<Book>> = Arc::default();
        let (shared, mood) = (Arc::clone(&book), Arc::new(mood));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (book, mood) = (Arc::clone(&shared), Arc::clone(&mood));
                std::thread::spawn(move || serve(stream, &book, &*mood));
            }
        });
        Ok(Hooks { port, book })
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// A mood for each request that depends on its seed and how often it came: most are taken, the rest not at first.
    pub(crate) fn unwell(seed: u64) -> impl Fn(&Hook, u32) -> Mood + Send + Sync + 'static {
        move |hook, before| {
            let key = hook.headers.get("idempotency-key").map_or("", String::as_str);
            let dice = seed
                ^ key.bytes().fold(u64::from(before), |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
            match dice.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59 {
                _ if before > 4 => Mood::Takes,
                0..=3 => Mood::Refuses(503),
                4..=5 => Mood::Forgets,
                6 => Mood::Stalls,
                7 => Mood::Refuses(429),
                _ => Mood::Takes,
            }
        }
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until the other side has gone, or is left without an answer.
fn serve(mut stream: TcpStream, book: &Mutex<Book>, mood: &(dyn Fn(&Hook, u32) -> Mood + Sync)) {
    let Ok(reader) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reader);
    while let Some(hook) = read(&mut reader) {
        let mut authorization = String::new();
        let mood = {
            let mut book = lock(book);
            let before = book.note(&hook);
            let mood = mood(&hook, before);
            if matches!(mood, Mood::Takes | Mood::Forgets | Mood::Stalls) {
                book.do_it(&hook);
            }
            // Before it is told: who is told may send the next one at once.
            if mood == Mood::Takes {
                book.take(&hook);
            }
            if matches!(mood, Mood::Echoes(_)) {
                authorization = hook.headers.get("authorization").cloned().unwrap_or_default();
            }
            book.hooks.push(hook);
            mood
        };
        let status = match mood {
            Mood::Takes => 200,
            Mood::Refuses(status) | Mood::Echoes(status) => status,
            Mood::Forgets => return,
            Mood::Stalls => {
                std::thread::sleep(STALL);
                return;
            }
            Mood::Hangs => {
                let _ = reader.read(&mut [0]);
                return;
            }
        };
        let (more, body) = match mood {
            Mood::Echoes(_) => (format!("x-sent: {authorization}\r\n"), echo(&authorization)),
            _ if status == 429 => ("retry-after: 0\r\n".to_owned(), "ok".to_owned()),
            _ => (String::new(), "ok".to_owned()),
        };
        let length = body.len();
        if write!(stream, "HTTP/1.1 {status} X\r\n{more}content-length: {length}\r\n\r\n{body}").is_err() {
            return;
        }
    }
}

/// The plugin shows the first 200 bytes of a body, so half of the second one.
fn echo(authorization: &str) -> String {
    let first = format!("you sent {authorization} ");
    let half = 200 - authorization.len() / 2;
    format!("{first:.<half$}{authorization}")
}

/// Longer than the plugin of the tests waits.
const STALL: Duration = Duration::from_millis(400);

fn read(reader: &mut BufReader<TcpStream>) -> Option<Hook> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Hook { headers, body: String::from_utf8(body).ok()? })
}
