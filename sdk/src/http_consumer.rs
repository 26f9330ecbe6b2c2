use std::cell::RefCell;

use crate::batch::Record;
use crate::bindings::Batch;
use crate::config::Config;
use crate::consumer::{Order, Undone, Unfinished, Unfinishing};

pub use crate::bindings::sending::pelton::plugin::http::{Error as HttpError, Request, Response, TooLarge};

impl Request {
    /// A request with a body, and the time that the pipeline's `http.timeout` says.
    pub fn new(method: &str, url: &str, body: impl Into<Vec<u8>>) -> Request {
        let (method, url) = (method.to_owned(), url.to_owned());
        Request { method, url, headers: Vec::new(), body: body.into(), timeout_ms: 0 }
    }

    /// The same with one more header. `${secret:NAME}` in its value becomes the secret on the way, as it does in the path and the
    /// query of the URL.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Request {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl Response {
    /// The value of the first header of this name, in whatever letters.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &value[..])
    }
}

impl HttpError {
    /// Why there is no answer, for people.
    pub fn reason(&self) -> &str {
        match self {
            HttpError::Denied(why)
            | HttpError::Invalid(why)
            | HttpError::NotSent(why)
            | HttpError::UnknownOutcome(why)
            | HttpError::TooLarge(TooLarge { reason: why, .. }) => why,
        }
    }
}

/// What sends: the server, or a closure in tests.
#[doc(hidden)]
pub trait Sender {
    fn send(&mut self, requests: Vec<Request>) -> Vec<Result<Response, HttpError>>;
}

/// The end of a pipeline that makes a request for each record, to hosts that the pipeline grants.
///
/// Requests of a call are sent at once where the records need not wait for each other, and one after another else. A record is
/// given at least once: again after a failure or a restart. [`Record::idempotency_key`] is the same each time, so that a server
/// that remembers it does each record once.
///
/// ```
/// use pelton_sdk::{HttpConsumer, HttpError, Record, Request, Response, Undone};
///
/// #[derive(Default)]
/// struct Notify;
///
/// impl HttpConsumer for Notify {
///     fn request(&mut self, record: Record<'_>) -> Result<Option<Request>, Undone> {
///         let body = record.value().ok_or_else(|| Undone::never("there is no value"))?;
///         let request = Request::new("POST", "https://hooks.example.com/orders", body);
///         let request = request.header("authorization", "Bearer ${secret:token}");
///         Ok(Some(request.header("idempotency-key", record.idempotency_key())))
///     }
///
///     fn answer(&mut self, _: Record<'_>, answer: Result<Response, HttpError>) -> Result<(), Undone> {
///         match answer {
///             Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
///             Ok(answer) if answer.status < 500 => Err(Undone::never(format!("status {}", answer.status))),
///             Ok(answer) => Err(Undone::again(format!("status {}", answer.status))),
///             // It was taken, and more was said about it than fits.
///             Err(HttpError::TooLarge(answer)) if (200..300).contains(&answer.status) => Ok(()),
///             Err(HttpError::Invalid(why)) => Err(Undone::never(why)),
///             Err(error) => Err(Undone::again(error.reason())),
///         }
///     }
/// }
///
/// pelton_sdk::export_http_consumer!(Notify);
///
/// // The logic is tested natively, against a closure.
/// use pelton_sdk::Order;
/// use pelton_sdk::testing::{TestRecord, consume_http};
/// let records = [TestRecord::value("a"), TestRecord::value("b")];
/// let undone = consume_http::<Notify>(&[], &records, Order::Free, |request| {
///     let status = if request.body == b"a" { 200 } else { 503 };
///     Ok(Response { status, headers: Vec::new(), body: Vec::new() })
/// });
/// assert_eq!(undone.unwrap(), [(1, Undone::again("status 503"))]);
/// ```
pub trait HttpConsumer: Default {
    /// Takes the settings. Called once, before anything else. Nothing can be sent here.
    ///
    /// # Errors
    /// A text for the person who deploys: the deployment is refused with it.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// The request for a record; none: there is nothing to do about it.
    ///
    /// # Errors
    /// Why it is not done.
    fn request(&mut self, record: Record<'_>) -> Result<Option<Request>, Undone>;

    /// What the answer to its request means for a record.
    ///
    /// # Errors
    /// Why it is not done.
    fn answer(&mut self, record: Record<'_>, answer: Result<Response, HttpError>) -> Result<(), Undone>;

    /// Takes a whole batch, and names what is not done of it. Implement it to make other requests than one for each record.
    ///
    /// # Errors
    /// Why the pipeline must stop.
    fn batch(
        &mut self,
        batch: &Batch,
        order: Order,
        sender: &mut dyn Sender,
    ) -> Result<Vec<Unfinished>, String> {
        let mut unfinished = Unfinishing::new(order);
        let (mut asked, mut requests) = (Vec::new(), Vec::new());
        for record in Record::all(batch) {
            if unfinished.waits(record) {
                continue;
            }
            match self.request(record) {
                Ok(Some(request)) => {
                    asked.push(record);
                    requests.push(request);
                }
                done => unfinished.note(record, done.map(drop))?,
            }
            if order == Order::Whole {
                ask(self, (&mut asked, &mut requests), sender, &mut unfinished)?;
            }
        }
        ask(self, (&mut asked, &mut requests), sender, &mut unfinished)?;
        Ok(unfinished.all)
    }
}

/// Sends requests, and notes what is not done.
fn ask<T: HttpConsumer>(
    plugin: &mut T,
    (records, requests): (&mut Vec<Record<'_>>, &mut Vec<Request>),
    sender: &mut dyn Sender,
    unfinished: &mut Unfinishing,
) -> Result<(), String> {
    if requests.is_empty() {
        return Ok(());
    }
    let answers = sender.send(std::mem::take(requests));
    for (record, answer) in records.drain(..).zip(answers) {
        let done = plugin.answer(record, answer);
        unfinished.note(record, done)?;
    }
    Ok(())
}

/// The one instance of a plugin in a component.
#[doc(hidden)]
#[derive(Default)]
pub struct ExportedHttpConsumer<T>(RefCell<T>);

impl<T: HttpConsumer> ExportedHttpConsumer<T> {
    pub fn configure(&self, config: Vec<(String, String)>) -> Result<(), String> {
        crate::log::install_panic_hook();
        self.0.borrow_mut().configure(&Config::new(config))
    }

    pub fn consume(
        &self,
        batch: &Batch,
        order: Order,
        sender: &mut dyn Sender,
    ) -> Result<Vec<Unfinished>, String> {
        self.0.borrow_mut().batch(batch, order, sender)
    }
}

/// The server.
#[cfg(target_arch = "wasm32")]
impl Sender for crate::stores::Server {
    fn send(&mut self, requests: Vec<Request>) -> Vec<Result<Response, HttpError>> {
        crate::bindings::sending::pelton::plugin::http::send(&requests)
    }
}

/// Makes an [`HttpConsumer`] the plugin that this crate is. Does nothing outside of `wasm32`, so that the crate can be used and
/// tested natively.
#[macro_export]
macro_rules! export_http_consumer {
    ($plugin:ty) => {
        $crate::export_any_consumer!($plugin, ExportedHttpConsumer, sending, $crate::Server);
    };
}
