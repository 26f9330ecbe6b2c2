//! Against servers on this machine: what is sent, what comes back, and what never leaves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pelton_streams::http::{GrantSpec, HttpClient, HttpError, HttpLimits, HttpRequest, HttpSpec, Network};

use crate::Outbound;

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
    let answers = client.send(vec![get(server.url("/a")), post, get(server.url("/b"))]);
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
        assert!(client.send(vec![get(server.url("/c"))])[0].is_ok());
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), before);
}

#[test]
fn what_is_not_granted_never_leaves() {
    let server = Server::start(|_, stream| ok(stream, ""));
    let port = server.port;
    let check = |grants: &[&str], url: String, words: &str| {
        let (_outbound, client) = client(&spec(grants));
        let answer = client.send(vec![get(url.clone())]).remove(0);
        let Err(HttpError::Denied(why)) = &answer else { panic!("{url} with {grants:?}: {answer:?}") };
        assert!(why.contains(words), "{url}: {why}");
    };
    check(&[], server.url("/"), "does not name the host");
    check(&["127.0.0.1"], server.url("/"), "not its port");
    check(&["127.0.0.2"], server.url("/"), "does not name the host");
    let local = format!("127.0.0.1:{port}");
    check(&[&local], format!("http://localhost:{port}/"), "does not name the host");
    check(&[&local], format!("http://[::ffff:127.0.0.2]:{port}/"), "does not name the host");
    check(&[&local], format!("http://me@127.0.0.1:{port}/"), "a user in it");
    check(&[&local], format!("ftp://127.0.0.1:{port}/"), "http:// or https://");
    check(&[&local], "/path".to_owned(), "http:// or https://");
    // A name that is granted and leads to this machine: its own, where it knows that.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("has a name");
    let named = format!("{}:{port}", host.trim());
    if leads_inside(host.trim()) {
        check(&[&named], format!("http://{named}/"), "no address of the public internet");
    }
    let headers =
        [("host", "x"), ("Content-Length", "1"), ("proxy-authorization", "x"), ("a b", "x"), ("x", "a\nb")];
    for (name, value) in headers {
        let (_outbound, client) = client(&spec(&[&local]));
        let headers = vec![(name.to_owned(), value.as_bytes().to_vec())];
        let answer = client.send(vec![HttpRequest { headers, ..get(server.url("/")) }]).remove(0);
        assert!(matches!(answer, Err(HttpError::Denied(_))), "{name}: {answer:?}");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

/// Whether a name leads to addresses that are not public.
fn leads_inside(host: &str) -> bool {
    let found = (host, 80).to_socket_addrs();
    found.is_ok_and(|mut all| all.all(|at| !pelton_streams::http::address::is_public(at.ip())))
}

#[test]
fn localhost_is_reached_by_its_name() {
    let server = Server::start(|_, stream| ok(stream, "here"));
    let (_outbound, client) = client(&spec(&[&format!("localhost:{}", server.port)]));
    let answer = client.send(vec![get(format!("http://localhost:{}/", server.port))]).remove(0);
    assert_eq!(answer.expect("is answered").body, b"here");
}

#[test]
fn redirects_are_handed_on_or_asked_about_again() {
    let inside = Server::start(|_, stream| ok(stream, "secret things"));
    let target = inside.url("/inside");
    let server = Server::start(move |got, stream| match got.line.split(' ').nth(1) {
        Some("/out") => {
            let _ = write!(stream, "HTTP/1.1 307 X\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n");
        }
        Some("/loop") => {
            let _ = write!(stream, "HTTP/1.1 308 X\r\nlocation: /loop\r\ncontent-length: 0\r\n\r\n");
        }
        Some("/here") => {
            let _ = write!(stream, "HTTP/1.1 307 X\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n");
        }
        _ => ok(stream, "there"),
    });
    let local = format!("127.0.0.1:{}", server.port);
    let following = |redirects, grants: &[&str]| {
        let mut spec = spec(grants);
        spec.limits.redirects = redirects;
        client(&spec)
    };
    let (_outbound, client) = following(0, &[&local]);
    assert_eq!(client.send(vec![get(server.url("/out"))])[0].as_ref().expect("is answered").status, 307);
    let (_outbound, client) = following(2, &[&local]);
    assert_eq!(client.send(vec![get(server.url("/here"))])[0].as_ref().expect("is answered").body, b"there");
    assert_eq!(client.send(vec![get(server.url("/loop"))])[0].as_ref().expect("is answered").status, 308);
    let denied = client.send(vec![get(server.url("/out"))]).remove(0);
    assert!(matches!(denied, Err(HttpError::Denied(_))), "{denied:?}");
    assert_eq!(inside.connections.load(Ordering::SeqCst), 0);
    // Where both are granted, what authorizes stays behind.
    let (_outbound, client) = following(1, &[&local, &format!("127.0.0.1:{}", inside.port)]);
    let headers =
        vec![("Authorization".to_owned(), b"Bearer x".to_vec()), ("x-other".to_owned(), b"y".to_vec())];
    let answer = client.send(vec![HttpRequest { headers, ..get(server.url("/out")) }]).remove(0);
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
    let silent = Server::start(|_, stream| {
        // Until the other side has gone.
        let _ = stream.read(&mut [0]);
    });
    let cut = Server::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    let (silent_at, cut_at) = (format!("127.0.0.1:{}", silent.port), format!("127.0.0.1:{}", cut.port));
    let (_outbound, client) = client(&spec(&[&format!("127.0.0.1:{closed}"), &silent_at, &cut_at]));
    let answers = client.send(vec![
        get(format!("http://127.0.0.1:{closed}/")),
        HttpRequest { timeout_ms: 100, ..get(silent.url("/")) },
        get(cut.url("/")),
    ]);
    assert!(matches!(answers[0], Err(HttpError::NotSent(_))), "{:?}", answers[0]);
    assert!(matches!(answers[1], Err(HttpError::UnknownOutcome(_))), "{:?}", answers[1]);
    assert!(matches!(answers[2], Err(HttpError::UnknownOutcome(_))), "{:?}", answers[2]);
    assert_eq!(silent.got().len(), 1);
}

#[test]
fn a_client_that_is_cancelled_waits_for_nobody() {
    let silent = Server::start(|_, stream| {
        let _ = stream.read(&mut [0]);
    });
    let mut spec = spec(&[&format!("127.0.0.1:{}", silent.port)]);
    (spec.limits.timeout_ms, spec.limits.requests) = (600_000, 1);
    let (_outbound, client) = client(&spec);
    let answers = std::thread::scope(|scope| {
        let sent = scope.spawn(|| client.send(vec![get(silent.url("/")), get(silent.url("/"))]));
        while silent.got().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        client.cancel();
        sent.join().expect("does not panic")
    });
    assert!(matches!(answers[0], Err(HttpError::UnknownOutcome(_))), "{answers:?}");
    assert!(matches!(answers[1], Err(HttpError::NotSent(_))), "{answers:?}");
    assert!(client.send(vec![get(silent.url("/"))])[0].is_err());
    assert_eq!(silent.got().len(), 1, "one at once");
}

#[test]
fn answers_have_a_limit_each_and_together() {
    let server = Server::start(|got, stream| match got.line.split(' ').nth(1) {
        Some("/large") => ok(stream, &"x".repeat(1025)),
        _ => ok(stream, &"x".repeat(1024)),
    });
    let mut spec = spec(&[&format!("127.0.0.1:{}", server.port)]);
    spec.limits.response_bytes = 1024;
    let (_outbound, client) = client(&spec);
    let large = client.send(vec![get(server.url("/large"))]).remove(0);
    assert!(matches!(large, Err(HttpError::TooLarge(_))), "{large:?}");
    let all = client.send(vec![get(server.url("/")); 17]);
    assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 16);
    assert!(all.iter().all(|answer| matches!(answer, Ok(_) | Err(HttpError::TooLarge(_)))));
}

#[test]
fn secrets_are_put_in_on_the_way_and_in_no_text() {
    let server = Server::start(|got, stream| ok(stream, &got.headers.join("\n")));
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("hook"), "s3cret-value\n").expect("writes");
    let mut spec = spec(&[&format!("127.0.0.1:{}", server.port)]);
    spec.secrets.insert("token".to_owned(), "hook".to_owned());
    let outbound = Outbound::new(dir.path().to_owned());
    let client = outbound.client(&spec).expect("can send");
    let with = |value: &str| HttpRequest {
        headers: vec![("authorization".to_owned(), value.as_bytes().to_vec())],
        ..get(server.url("/"))
    };
    let answers = client.send(vec![with("Bearer ${secret:token}"), with("Bearer ${secret:other}")]);
    let echoed = String::from_utf8(answers[0].as_ref().expect("is answered").body.clone()).expect("is text");
    assert!(echoed.contains("authorization: Bearer s3cret-value"), "{echoed}");
    assert!(!client.redact(&echoed).contains("s3cret-value"));
    let Err(HttpError::Denied(why)) = &answers[1] else { panic!("{:?}", answers[1]) };
    assert!(why.contains("`other`"), "{why}");
    assert_eq!(server.got().len(), 1);
}
