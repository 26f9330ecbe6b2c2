//! A consumer that sends: `request` says what is sent for a record, `answer` what an answer means. The server sends it, and only
//! where the pipeline allows it.

use pelton_sdk::{Config, HttpConsumer, HttpError, Record, Request, Response, Undone};

/// Posts each value to a URL.
#[derive(Default)]
struct Plugin {
    url: String,
}

impl HttpConsumer for Plugin {
    /// Called once, with the settings of plugin.toml and pipeline.toml.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.url = config.get("url").unwrap_or_default().to_owned();
        Ok(())
    }

    /// A record is given at least once. Its key is the same each time, so that the other side can do it once.
    fn request(&mut self, record: Record<'_>) -> Result<Option<Request>, Undone> {
        let value = record.value().ok_or_else(|| Undone::never("there is no value"))?;
        let request = Request::new("POST", &self.url, value);
        Ok(Some(request.header("idempotency-key", record.idempotency_key())))
    }

    fn answer(&mut self, _: Record<'_>, answer: Result<Response, HttpError>) -> Result<(), Undone> {
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            // The other side will not take it, however often it is sent.
            Ok(answer) if answer.status < 500 => Err(Undone::never(format!("status {}", answer.status))),
            Ok(answer) => Err(Undone::again(format!("status {}", answer.status))),
            Err(HttpError::TooLarge(answer)) if (200..300).contains(&answer.status) => Ok(()),
            Err(error @ (HttpError::Invalid(_) | HttpError::Denied(_))) => Err(Undone::never(error.reason())),
            Err(error) => Err(Undone::again(error.reason())),
        }
    }
}

pelton_sdk::export_http_consumer!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::Order;
    use pelton_sdk::testing::{TestRecord, consume_http};

    #[test]
    fn what_the_other_side_cannot_take_now_is_sent_again() {
        let records = [TestRecord::value("a"), TestRecord::value("b")];
        let config = [("url", "http://127.0.0.1:9000/")];
        let undone = consume_http::<Plugin>(&config, &records, Order::Free, |request| {
            let status = if request.body == b"a" { 200 } else { 503 };
            Ok(Response { status, headers: Vec::new(), body: Vec::new() })
        });
        assert_eq!(undone.unwrap(), [(1, Undone::again("status 503"))]);
    }
}
