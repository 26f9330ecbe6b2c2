//! Runs consumers natively.

use super::{RunError, TestRecord, batch};
use crate::config::Config;
use crate::consumer::{Consumer, Order, Undone, Unfinished};
use crate::http_consumer::{HttpConsumer, HttpError, Request, Response, Sender};
use crate::transform::Failure;

/// What is not done, by index.
type NotDone = Vec<(u32, Undone)>;

fn undone(answer: Result<Vec<Unfinished>, String>) -> Result<NotDone, RunError> {
    let answer = answer.map_err(|reason| RunError::Failed(Failure::Fatal(reason)))?;
    let undone = |Unfinished { index, reason, again }: Unfinished| match again {
        None => (index, Undone::Never(reason)),
        Some(after_ms) => (index, Undone::Again(after_ms, reason)),
    };
    Ok(answer.into_iter().map(undone).collect())
}

fn config(config: &[(&str, &str)]) -> Config {
    Config::new(config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

/// Configures a new consumer and gives it the records as one batch of the topic `test`, partition 0, from offset 0.
///
/// # Errors
/// It refuses its settings, or wants to stop.
pub fn consume<T: Consumer>(settings: &[(&str, &str)], records: &[TestRecord]) -> Result<NotDone, RunError> {
    let mut plugin = T::default();
    plugin.configure(&config(settings)).map_err(RunError::Configure)?;
    undone(plugin.batch(&batch(records), Order::Free))
}

/// The same for one that sends; `server` answers what it sends.
///
/// # Errors
/// It refuses its settings, or wants to stop.
pub fn consume_http<T: HttpConsumer>(
    settings: &[(&str, &str)],
    records: &[TestRecord],
    order: Order,
    server: impl FnMut(&Request) -> Result<Response, HttpError>,
) -> Result<NotDone, RunError> {
    let mut plugin = T::default();
    plugin.configure(&config(settings)).map_err(RunError::Configure)?;
    undone(plugin.batch(&batch(records), order, &mut Answering(server)))
}

/// A closure that answers.
struct Answering<F>(F);

impl<F: FnMut(&Request) -> Result<Response, HttpError>> Sender for Answering<F> {
    fn send(&mut self, requests: Vec<Request>) -> Vec<Result<Response, HttpError>> {
        requests.iter().map(&mut self.0).collect()
    }
}
