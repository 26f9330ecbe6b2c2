use super::*;
use pelton_sdk::Order;
use pelton_sdk::testing::{RunError, TestRecord, consume_http};

fn status(status: u16) -> Result<Response, HttpError> {
    Ok(Response { status, headers: Vec::new(), body: b"why".to_vec() })
}

const URL: (&str, &str) = ("url", "https://hooks.example.com/x");

#[test]
fn a_record_is_a_request_that_its_server_knows_again() {
    let record = TestRecord {
        headers: vec![
            ("trace".to_owned(), Some(b"t1".to_vec())),
            ("sly".to_owned(), Some(b"${secret:token}".to_vec())),
        ],
        timestamp: 7,
        ..TestRecord::value("{\"a\":1}").with_key("k")
    };
    let mut sent = Vec::new();
    let config = [
        URL,
        ("authorization", "Bearer ${secret:token}"),
        ("headers", "x-one: 1\n\nx-two:2: 3"),
        ("forward", "trace, sly,other"),
        ("timeout_ms", "250"),
    ];
    let undone = consume_http::<Webhook>(&config, &[record], Order::Free, |request| {
        sent.push(request.clone());
        status(204)
    });
    assert_eq!(undone, Ok(vec![]));
    let request = sent.remove(0);
    assert_eq!((&*request.method, &*request.url, request.timeout_ms), ("POST", URL.1, 250));
    assert_eq!(request.body, b"{\"a\":1}");
    let headers =
        request.headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)));
    let expect = [
        "content-type: application/json",
        "authorization: Bearer ${secret:token}",
        "x-one: 1",
        "x-two: 2: 3",
        "idempotency-key: test/0/0",
        "pelton-topic: test",
        "pelton-partition: 0",
        "pelton-offset: 0",
        "pelton-timestamp: 7",
        "trace: t1",
    ];
    assert_eq!(headers.collect::<Vec<_>>(), expect);
}

#[test]
fn statuses_say_what_becomes_of_a_record() {
    let outcome = |answer: Result<Response, HttpError>| {
        let mut answer = Some(answer);
        let records = [TestRecord::value("x")];
        let undone =
            consume_http::<Webhook>(&[URL], &records, Order::Free, |_| answer.take().expect("is sent once"));
        undone.map(|mut undone| undone.pop().map(|(_, undone)| undone))
    };
    let said = |status: u16| format!("https://hooks.example.com answers {status} why");
    assert_eq!(outcome(status(200)), Ok(None));
    for code in [301, 400, 404, 409, 422] {
        assert_eq!(outcome(status(code)), Ok(Some(Undone::Never(said(code)))));
    }
    for code in [408, 429, 500, 503] {
        assert_eq!(outcome(status(code)), Ok(Some(Undone::Again(0, said(code)))));
    }
    let after = |text: &str| {
        let headers = vec![("Retry-After".to_owned(), text.as_bytes().to_vec())];
        outcome(Ok(Response { status: 429, headers, body: Vec::new() }))
    };
    let again = |ms| Ok(Some(Undone::Again(ms, "https://hooks.example.com answers 429".to_owned())));
    assert_eq!((after("2"), after("soon"), after("4000000000")), (again(2_000), again(0), again(86_400_000)));
    let lost = outcome(Err(HttpError::UnknownOutcome("lost".to_owned())));
    assert_eq!(lost, Ok(Some(Undone::again("lost"))));
    let unsent = outcome(Err(HttpError::NotSent("at 10.0.0.1".to_owned())));
    assert_eq!(unsent, Ok(Some(Undone::again("at 10.0.0.1"))));
    let invalid = outcome(Err(HttpError::Invalid("the header `trace`".to_owned())));
    assert_eq!(invalid, Ok(Some(Undone::never("the header `trace`"))), "the others can be sent");
    // What was taken is done, whatever was said about it.
    let large = |status| outcome(Err(HttpError::TooLarge(TooLarge { status, reason: "large".to_owned() })));
    let said = |status: u16| format!("https://hooks.example.com answers {status} and more than is taken");
    assert_eq!(large(200), Ok(None));
    assert_eq!(large(503), Ok(Some(Undone::Again(0, said(503)))));
    assert_eq!(large(400), Ok(Some(Undone::Never(said(400)))));
    let denied = outcome(Err(HttpError::Denied("no".to_owned())));
    assert!(matches!(denied, Err(RunError::Failed(_))), "{denied:?}");
}

#[test]
fn in_order_nothing_is_sent_behind_one_that_is_not_done() {
    let records = [TestRecord::value("a"), TestRecord::value("b"), TestRecord::value("c")];
    let run = |order| {
        let mut sent = Vec::new();
        let undone = consume_http::<Webhook>(&[URL], &records, order, |request| {
            sent.push(String::from_utf8_lossy(&request.body).into_owned());
            status(if request.body == b"b" { 503 } else { 200 })
        });
        let undone: Vec<u32> = undone.expect("it answers").into_iter().map(|(index, _)| index).collect();
        (sent.concat(), undone)
    };
    assert_eq!(run(Order::Whole), ("ab".to_owned(), vec![1, 2]));
    assert_eq!(run(Order::Free), ("abc".to_owned(), vec![1]));
}

#[test]
fn a_record_as_json_has_all_its_bytes() {
    let record = TestRecord {
        value: Some(vec![0xff, 0xfe, 0, 1]),
        headers: vec![("h".to_owned(), Some(b"say \"hi\"\n\x01".to_vec())), ("n".to_owned(), None)],
        timestamp: 5,
        ..TestRecord::default().with_key("k\u{e9}")
    };
    let mut sent = String::new();
    let config = [URL, ("body", "json"), ("content_type", "text/plain")];
    let undone = consume_http::<Webhook>(&config, &[record], Order::Free, |request| {
        sent = String::from_utf8(request.body.clone()).expect("is text");
        assert_eq!(request.headers[0], ("content-type".to_owned(), b"application/json".to_vec()));
        status(200)
    });
    assert_eq!(undone, Ok(vec![]));
    let expect = "{\"topic\":\"test\",\"partition\":0,\"offset\":0,\"timestamp\":5,\"key\":\"k\u{e9}\",\
                  \"value\":{\"base64\":\"//4AAQ==\"},\"headers\":[[\"h\",\"say \\\"hi\\\"\\n\\u0001\"],[\"n\",null]]}";
    assert_eq!(sent, expect);
}

#[test]
fn records_without_a_value_are_sent_or_not() {
    let run = |null: &str| {
        let mut sent = 0;
        let undone =
            consume_http::<Webhook>(&[URL, ("null", null)], &[TestRecord::default()], Order::Free, |_| {
                sent += 1;
                status(200)
            });
        assert_eq!(undone, Ok(vec![]));
        sent
    };
    assert_eq!((run("send"), run("skip")), (1, 0));
}

#[test]
fn settings_are_checked() {
    let refused = |key: &str, value: &str| {
        let config = [URL, (key, value)];
        let config = if key == "url" { &config[1..] } else { &config[..] };
        match consume_http::<Webhook>(config, &[], Order::Free, |_| status(200)) {
            Err(RunError::Configure(why)) => why,
            other => panic!("{key} = {value}: {other:?}"),
        }
    };
    assert!(refused("url", "ftp://x").contains("config.url is `ftp://x`"));
    assert!(refused("url", "https://me@x.example/").contains("`me@x.example` is no host"));
    assert!(refused("url", "https://x.${secret:a}/").contains("is no host"));
    assert!(refused("url", "https://x.example/a b").contains("spaces"));
    assert!(refused("headers", "Host: x").contains("`Host`, which is the server's own"));
    assert!(refused("headers", "a b: x").contains("`a b`, which is no name"));
    assert!(refused("authorization", "Bearer \u{1}").contains("control characters"));
    assert!(refused("forward", "trace,te").contains("`te`"));
    assert!(refused("key_header", "proxy-x").contains("`proxy-x`"));
    assert!(refused("forward", &vec!["x"; 90].join(",")).contains("at most 80"));
    assert!(refused("method", "GET").contains("POST, PUT or PATCH"));
    assert!(refused("body", "xml").contains("`value` or `json`"));
    assert!(refused("headers", "no colon").contains("`no colon`"));
    assert_eq!(refused("done", "200-"), "config.done has `200-`, but must be statuses as \"200-299,409\"");
    assert!(refused("retry", "700").contains("config.retry"));
    assert!(Statuses::parse("done", "200-204, 409").expect("are statuses").has(409));
}
