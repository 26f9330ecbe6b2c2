//! Against servers on this machine: what is sent, what comes back, and what never leaves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use pelton_streams::http::{
    GrantSpec, HttpClient, HttpError, HttpLimits, HttpRequest, HttpResponse, HttpSpec, Network,
};

use crate::Outbound;
use crate::resolve::Resolver;

/// What a server was sent: the request line, the headers in small letters, the body.
#[derive(Debug, Clone)]
struct Got {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// Answers each request of each connection with what `answer` says, which may be nothing.
struct Server {
    port: u16,
    got: Arc<Mutex<Vec<Got>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(answer: impl Fn(&Got, &mut TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let port = listener.local_addr().expect("has an address").port();
        let (got, connections) = (Arc::<Mutex<Vec<Got>>>::default(), Arc::<AtomicUsize>::default());
        let (all, count, answer) = (Arc::clone(&got), Arc::clone(&connections), Arc::new(answer));
        // Ends with the process: a test has no more to ask of it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = stream.expect("connects");
                    let mut reader = BufReader::new(stream.try_clone().expect("is cloned"));
                    while let Some(got) = read(&mut reader) {
                        all.lock().expect("not poisoned").push(got.clone());
                        answer(&got, &mut stream);
                    }
                });
            }
        });
        Server { port, got, connections }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().expect("not poisoned").clone()
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Got> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end().to_owned();
        if header.is_empty() {
            break;
        }
        if let Some(given) = header.to_lowercase().strip_prefix("content-length: ") {
            length = given.parse().ok()?;
        }
        headers.push(header);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Got { line: line.trim_end().to_owned(), headers, body })
}

fn ok(stream: &mut TcpStream, body: &str) {
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
}

fn spec(grants: &[&str]) -> HttpSpec {
    let grants = grants.iter().map(|text| GrantSpec::Host((*text).to_owned()).check().expect("is a grant"));
    let limits = HttpLimits { timeout_ms: 5_000, ..HttpLimits::default() };
    HttpSpec { grants: grants.collect(), limits, ..HttpSpec::default() }
}

fn client(spec: &HttpSpec) -> (Outbound, Arc<dyn HttpClient>) {
    let outbound = Outbound::new("/nonexistent".into());
    let client = outbound.client(spec).expect("can send");
    (outbound, client)
}

/// The same, where names have the addresses that `look` says.
fn client_where(
    spec: &HttpSpec,
    look: impl Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
) -> (Outbound, Arc<dyn HttpClient>) {
    let outbound = Outbound::with("/nonexistent".into(), Resolver::new(look));
    let client = outbound.client(spec).expect("can send");
    (outbound, client)
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

/// Sends one request.
fn one(client: &Arc<dyn HttpClient>, request: HttpRequest) -> Result<HttpResponse, HttpError> {
    client.send(vec![request], LONG).remove(0)
}

fn get(url: impl Into<String>) -> HttpRequest {
    HttpRequest { method: "GET".to_owned(), url: url.into(), ..HttpRequest::default() }
}

#[test]
fn requests_are_sent_at_once_and_answered_in_order() {
    let server = Server::start(|got, stream| ok(stream, &got.line));
    let spec = spec(&[&format!("127.0.0.1:{}", server.port)]);
    let (_outbound, client) = client(&spec);
    let post = HttpRequest {
        method: "POST".to_owned(),
        headers: vec![("X-One".to_owned(), b"1".to_vec()), ("X-One".to_owned(), b"2".to_vec())],
        body: b"hello".to_vec(),
        ..get(server.url("/p?q=1"))
    };
    let answers = client.send(vec![get(server.url("/a")), post, get(server.url("/b"))], LONG);
    let bodies: Vec<String> = answers
        .into_iter()
        .map(|answer| String::from_utf8(answer.expect("is answered").body).expect("is text"))
        .collect();
    assert_eq!(bodies, ["GET /a HTTP/1.1", "POST /p?q=1 HTTP/1.1", "GET /b HTTP/1.1"]);
    let got = server.got();
    let post = got.iter().find(|got| got.line.starts_with("POST")).expect("came");
    assert_eq!(post.body, b"hello");
    let ones: Vec<&String> = post.headers.iter().filter(|header| header.starts_with("x-one")).collect();
    assert_eq!(ones, ["x-one: 1", "x-one: 2"]);
    assert!(post.headers.contains(&format!("user-agent: pelton/{}", env!("CARGO_PKG_VERSION"))));
    // Connections are kept.
    let before = server.connections.load(Ordering::SeqCst);
    for _ in 0..5 {
        assert!(one(&client, get(server.url("/c"))).is_ok());
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), before);
}

#[test]
fn what_is_not_granted_never_leaves() {
    let server = Server::start(|_, stream| ok(stream, ""));
    let port = server.port;
    let local = format!("127.0.0.1:{port}");
    let answer = |grants: &[&str], request: HttpRequest| {
        let (_outbound, client) = client(&spec(grants));
        one(&client, request)
    };
    let denied = |grants: &[&str], url: String, words: &str| {
        let answer = answer(grants, get(url.clone()));
        let Err(HttpError::Denied(why)) = &answer else { panic!("{url} with {grants:?}: {answer:?}") };
        assert!(why.contains(words), "{url}: {why}");
    };
    denied(&[], server.url("/"), "does not name the host");
    denied(&["127.0.0.1"], server.url("/"), "not its port");
    denied(&["127.0.0.2"], server.url("/"), "does not name the host");
    denied(&[&local], format!("http://localhost:{port}/"), "does not name the host");
    denied(&[&local], format!("http://[::ffff:127.0.0.2]:{port}/"), "does not name the host");
    let invalid = |request: HttpRequest, words: &str| {
        let answer = answer(&[&local], request.clone());
        let Err(HttpError::Invalid(why)) = &answer else { panic!("{request:?}: {answer:?}") };
        assert!(why.contains(words), "{request:?}: {why}");
    };
    invalid(get(format!("http://me@127.0.0.1:{port}/")), "a user in it");
    invalid(get(format!("ftp://127.0.0.1:{port}/")), "http:// or https://");
    invalid(get("/path"), "http:// or https://");
    invalid(HttpRequest { method: "CONNECT".to_owned(), ..get(server.url("/")) }, "the method is none");
    let headers = [
        ("host", "x", "server's own"),
        ("Content-Length", "1", "server's own"),
        ("proxy-authorization", "x", "server's own"),
        ("a b", "x", "no name of a header"),
        ("x", "a\nb", "no header can have"),
    ];
    for (name, value, words) in headers {
        let headers = vec![(name.to_owned(), value.as_bytes().to_vec())];
        invalid(HttpRequest { headers, ..get(server.url("/")) }, words);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn an_address_that_is_not_admitted_is_not_reached_and_another_one_may_come() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let host = format!("hooks.test:{}", server.port);
    let (grant, addresses) = (host.clone(), vec!["127.0.0.1/32".to_owned()]);
    let grants = vec![GrantSpec::Addresses { host: grant, addresses }.check().expect("is a grant")];
    let spec = HttpSpec { grants, ..spec(&[]) };
    // First where it may be, then where the metadata of a cloud are, then where it may be, after one that it may not have.
    let looks = AtomicUsize::new(0);
    let (_outbound, client) = client_where(&spec, move |name, port| {
        assert_eq!(name, "hooks.test");
        let addresses: &[&str] = match looks.fetch_add(1, Ordering::SeqCst) {
            0 => &["127.0.0.1"],
            1 => &["169.254.169.254", "10.0.0.1"],
            _ => &["10.0.0.1", "127.0.0.1"],
        };
        Ok(addresses.iter().map(|at| SocketAddr::new(at.parse().expect("an address"), port)).collect())
    });
    let send = || one(&client, get(format!("http://{host}/")));
    assert_eq!(send().expect("is answered").status, 200);
    let refused = send();
    let Err(HttpError::NotSent(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("169.254.169.254, which is no address of the public internet"), "{why}");
    assert_eq!(send().expect("is answered").status, 200);
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn localhost_is_reached_by_its_name() {
    let server = Server::start(|_, stream| ok(stream, "here"));
    let (_outbound, client) = client(&spec(&[&format!("localhost:{}", server.port)]));
    let answer = one(&client, get(format!("http://localhost:{}/", server.port)));
    assert_eq!(answer.expect("is answered").body, b"here");
}

#[test]
fn a_name_that_nobody_answers_for_holds_up_its_node_alone() {
    let server = Server::start(|_, stream| ok(stream, "here"));
    let grants = [format!("slow.test:{}", server.port), format!("localhost:{}", server.port)];
    let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    let mut spec = spec(&grants);
    spec.limits.timeout_ms = 200;
    // A look-up of `slow.test` ends with the test.
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let outbound = Outbound::with(
        "/nonexistent".into(),
        Resolver::new(move |name, port| {
            if name == "slow.test" {
                let _ = held.lock().expect("not poisoned").recv();
            }
            Ok(vec![SocketAddr::new([127, 0, 0, 1].into(), port)])
        }),
    );
    let slow = outbound.client(&spec).expect("can send");
    let other =
        outbound.client(&HttpSpec { limits: HttpLimits::default(), ..spec.clone() }).expect("can send");
    let url = |host: &str| format!("http://{host}:{}/", server.port);
    // More than there are threads: none of them is sent, and each is told in time.
    let answers = slow.send(vec![get(url("slow.test")); 40], LONG);
    assert!(answers.iter().all(|answer| matches!(answer, Err(HttpError::NotSent(_)))), "{answers:?}");
    assert_eq!(one(&other, get(url("localhost"))).expect("is answered").body, b"here");
    drop(release);
}

#[test]
fn redirects_are_handed_on_or_asked_about_again() {
    let inside = Server::start(|_, stream| ok(stream, "secret things"));
    let target = inside.url("/inside");
    let server = Server::start(move |got, stream| {
        let (status, location) = match got.line.split(' ').nth(1) {
            Some("/out") => (307, &*target),
            Some("/loop") => (308, "/loop"),
            Some("/here") => (307, "/there"),
            Some("/moved") => (302, "/there"),
            _ => return ok(stream, &format!("{} with {} bytes", got.line, got.body.len())),
        };
        let _ = write!(stream, "HTTP/1.1 {status} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    });
    let local = format!("127.0.0.1:{}", server.port);
    let following = |redirects, grants: &[&str]| {
        let mut spec = spec(grants);
        spec.limits.redirects = redirects;
        client(&spec)
    };
    let post = |path: &str| HttpRequest {
        method: "POST".to_owned(),
        body: b"hello".to_vec(),
        ..get(server.url(path))
    };
    let (_outbound, client) = following(0, &[&local]);
    assert_eq!(one(&client, get(server.url("/out"))).expect("is answered").status, 307);
    let (_outbound, client) = following(2, &[&local]);
    let body =
        |request| String::from_utf8(one(&client, request).expect("is answered").body).expect("is text");
    assert_eq!(body(get(server.url("/here"))), "GET /there HTTP/1.1 with 0 bytes");
    assert_eq!(body(post("/here")), "POST /there HTTP/1.1 with 5 bytes");
    assert_eq!(body(get(server.url("/moved"))), "GET /there HTTP/1.1 with 0 bytes");
    let status = |request| one(&client, request).expect("is answered").status;
    assert_eq!(status(post("/moved")), 302, "a GET would say nothing of what was to be done");
    assert_eq!(status(get(server.url("/loop"))), 308);
    assert_eq!(status(get(server.url("/out"))), 307, "it leads where nothing is granted");
    assert_eq!(inside.connections.load(Ordering::SeqCst), 0);
    // Where both are granted, what authorizes stays behind.
    let (_outbound, client) = following(1, &[&local, &format!("127.0.0.1:{}", inside.port)]);
    let headers =
        vec![("Authorization".to_owned(), b"Bearer x".to_vec()), ("x-other".to_owned(), b"y".to_vec())];
    let answer = one(&client, HttpRequest { headers, ..get(server.url("/out")) });
    assert_eq!(answer.expect("is answered").body, b"secret things");
    let sent = inside.got().remove(0).headers;
    assert!(
        sent.contains(&"x-other: y".to_owned()) && !sent.iter().any(|header| header.contains("Bearer")),
        "{sent:?}"
    );
}

#[test]
fn what_was_not_sent_is_told_from_what_may_have_arrived() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        listener.local_addr().expect("has an address").port()
    };
    let (arrived, has_arrived) = mpsc::channel();
    let silent = Server::start(move |_, stream| {
        let _ = arrived.send(());
        // Until the other side has gone.
        let _ = stream.read(&mut [0]);
    });
    let cut = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let (silent_at, cut_at) = (format!("127.0.0.1:{}", silent.port), format!("127.0.0.1:{}", cut.port));
    let (_outbound, client) = client(&spec(&[&format!("127.0.0.1:{closed}"), &silent_at, &cut_at]));
    // A time in which a request gets to a server of this machine.
    let answers = client.send(
        vec![
            get(format!("http://127.0.0.1:{closed}/")),
            HttpRequest { timeout_ms: 2_000, ..get(silent.url("/")) },
            get(cut.url("/")),
        ],
        LONG,
    );
    assert!(matches!(answers[0], Err(HttpError::NotSent(_))), "{:?}", answers[0]);
    assert!(matches!(answers[1], Err(HttpError::UnknownOutcome(_))), "{:?}", answers[1]);
    assert!(matches!(answers[2], Err(HttpError::UnknownOutcome(_))), "{:?}", answers[2]);
    has_arrived.recv().expect("has arrived");
}

/// How many were not sent, and of how many it is not known.
fn counts(answers: &[Result<HttpResponse, HttpError>]) -> (usize, usize) {
    let count = |is: fn(&HttpError) -> bool| answers.iter().filter(|a| a.as_ref().is_err_and(is)).count();
    (
        count(|error| matches!(error, HttpError::NotSent(_))),
        count(|error| matches!(error, HttpError::UnknownOutcome(_))),
    )
}

#[test]
fn a_client_that_is_cancelled_waits_for_nobody() {
    let (arrived, has_arrived) = mpsc::channel();
    let silent = Server::start(move |_, stream| {
        let _ = arrived.send(());
        let _ = stream.read(&mut [0]);
    });
    let mut spec = spec(&[&format!("127.0.0.1:{}", silent.port)]);
    (spec.limits.timeout_ms, spec.limits.requests) = (600_000, 1);
    let (_outbound, client) = client(&spec);
    let answers = std::thread::scope(|scope| {
        let sent = scope.spawn(|| client.send(vec![get(silent.url("/")); 2], LONG));
        has_arrived.recv().expect("one of them arrives");
        client.cancel();
        sent.join().expect("does not panic")
    });
    assert_eq!(counts(&answers), (1, 1), "{answers:?}");
    // Nothing is sent from now on.
    let answers = client.send(vec![get(silent.url("/")); 20], LONG);
    assert_eq!(counts(&answers), (20, 0), "{answers:?}");
    assert!(has_arrived.try_recv().is_err(), "one at once");
}

#[test]
fn what_does_not_get_its_turn_in_time_is_not_sent() {
    let (arrived, has_arrived) = mpsc::channel();
    let silent = Server::start(move |_, stream| {
        let _ = arrived.send(());
        let _ = stream.read(&mut [0]);
    });
    let mut spec = spec(&[&format!("127.0.0.1:{}", silent.port)]);
    (spec.limits.timeout_ms, spec.limits.requests) = (2_000, 1);
    let (_outbound, client) = client(&spec);
    let answers = client.send(vec![get(silent.url("/")); 3], Duration::from_millis(10));
    assert_eq!(counts(&answers), (2, 1), "{answers:?}");
    assert_eq!(has_arrived.try_iter().count(), 1);
}

#[test]
fn answers_have_a_limit_each_and_together() {
    let server = Server::start(|got, stream| match got.line.split(' ').nth(1) {
        Some("/large") => ok(stream, &"x".repeat(4097)),
        Some("/head") => {
            let head = "x".repeat(4097);
            let _ = write!(stream, "HTTP/1.1 503 X\r\nx-large: {head}\r\ncontent-length: 0\r\n\r\n");
        }
        Some("/none") => {
            let _ = stream.write_all(b"HTTP/1.1 204 X\r\n\r\n");
        }
        _ => ok(stream, &"x".repeat(3500)),
    });
    let mut spec = spec(&[&format!("127.0.0.1:{}", server.port)]);
    spec.limits.response_bytes = 4096;
    let (_outbound, client) = client(&spec);
    let too_large = |path: &str, expect: u16| {
        let answer = one(&client, get(server.url(path)));
        let Err(HttpError::TooLarge { status, .. }) = answer else { panic!("{path}: {answer:?}") };
        assert_eq!(status, expect, "what it has done is known");
    };
    too_large("/large", 200);
    too_large("/head", 503);
    // 16 times as much for all: of 20 some do not fit, and each says what was done.
    let all = client.send(vec![get(server.url("/")); 20], LONG);
    let fit = all.iter().filter(|answer| answer.is_ok()).count();
    assert!((16..20).contains(&fit), "{fit}");
    let is_200 = |answer: &Result<HttpResponse, HttpError>| match answer {
        Ok(answer) => answer.status == 200,
        Err(error) => matches!(error, HttpError::TooLarge { status: 200, .. }),
    };
    assert!(all.iter().all(is_200), "{all:?}");
    assert_eq!(one(&client, get(server.url("/none"))).expect("is answered").status, 204);
}

#[test]
fn secrets_are_put_in_on_the_way_and_in_no_answer() {
    let server = Server::start(|got, stream| {
        let (head, body) = (got.headers.join("; "), format!("{} {}", got.line, got.headers.join("\n")));
        let length = body.len();
        let _ = write!(stream, "HTTP/1.1 400 X\r\nx-echo: {head}\r\ncontent-length: {length}\r\n\r\n{body}");
    });
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("hook"), "s3cret-value\n").expect("writes");
    let mut spec = spec(&[&format!("127.0.0.1:{}", server.port)]);
    spec.secrets.insert("token".to_owned(), "hook".to_owned());
    let outbound = Outbound::new(dir.path().to_owned());
    let client = outbound.client(&spec).expect("can send");
    let with = |value: &str| HttpRequest {
        headers: vec![("authorization".to_owned(), value.as_bytes().to_vec())],
        ..get(server.url("/in/${secret:token}?key=${secret:token}"))
    };
    let answers = client.send(vec![with("Bearer ${secret:token}"), with("Bearer ${secret:other}")], LONG);
    let got = server.got();
    let [got] = &got[..] else { panic!("{got:?}") };
    assert_eq!(got.line, "GET /in/s3cret-value?key=s3cret-value HTTP/1.1");
    assert!(got.headers.contains(&"authorization: Bearer s3cret-value".to_owned()), "{got:?}");
    let answer = answers[0].as_ref().expect("is answered");
    let body = String::from_utf8(answer.body.clone()).expect("is text");
    assert!(body.contains("/in/***?key=***") && body.contains("authorization: Bearer ***"), "{body}");
    assert!(answer.headers.iter().any(|(name, _)| name == "x-echo"), "{answer:?}");
    for bytes in answer.headers.iter().map(|(_, value)| value).chain([&answer.body]) {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("s3cret-value"), "{text}");
    }
    let Err(HttpError::Denied(why)) = &answers[1] else { panic!("{:?}", answers[1]) };
    assert!(why.contains("`other`"), "{why}");
}
