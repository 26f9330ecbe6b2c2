//! The interface `http`. Who sends, and what is granted, is behind [`HttpClient`]; here requests come out of the guest's memory
//! and answers go into it. The thread of the instance waits meanwhile, and the guest's deadline stands still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pelton_streams::http::{HttpClient, HttpError, HttpRequest, HttpResponse, MAX_REQUESTS_PER_SEND};
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower};

use super::HostState;
use super::state::Caller;
use crate::limits::epochs;

/// How long a call may send: what is not under way by then is not sent, so that a plugin that sends for ever comes to an end. What
/// is under way has its timeout besides.
const MAX_AWAY: Duration = Duration::from_secs(600);

/// What sends for an instance, and the time of its call.
pub(crate) struct Sending {
    client: Arc<dyn HttpClient>,
    began: Instant,
    deadline_ms: u32,
    /// How long requests were on their way.
    away: Duration,
}

impl Sending {
    pub(crate) fn new(client: &Arc<dyn HttpClient>) -> Sending {
        Sending { client: Arc::clone(client), began: Instant::now(), deadline_ms: 0, away: Duration::ZERO }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, deadline_ms: u32) {
        (self.began, self.deadline_ms, self.away) = (Instant::now(), deadline_ms, Duration::ZERO);
    }

    /// What is left of the deadline.
    fn left_ms(&self) -> u32 {
        let at_work = self.began.elapsed().saturating_sub(self.away).as_millis();
        self.deadline_ms.saturating_sub(u32::try_from(at_work).unwrap_or(u32::MAX))
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct RequestParam {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    #[component(name = "timeout-ms")]
    timeout_ms: u32,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct ResponseAnswer {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum ErrorAnswer {
    #[component(name = "denied")]
    Denied(String),
    #[component(name = "invalid")]
    Invalid(String),
    #[component(name = "not-sent")]
    NotSent(String),
    #[component(name = "unknown-outcome")]
    UnknownOutcome(String),
    #[component(name = "too-large")]
    TooLarge(TooLargeAnswer),
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct TooLargeAnswer {
    status: u16,
    reason: String,
}

impl From<RequestParam> for HttpRequest {
    fn from(RequestParam { method, url, headers, body, timeout_ms }: RequestParam) -> HttpRequest {
        HttpRequest { method, url, headers, body, timeout_ms }
    }
}

impl From<HttpResponse> for ResponseAnswer {
    fn from(HttpResponse { status, headers, body }: HttpResponse) -> ResponseAnswer {
        ResponseAnswer { status, headers, body }
    }
}

impl From<HttpError> for ErrorAnswer {
    fn from(error: HttpError) -> ErrorAnswer {
        match error {
            HttpError::Denied(why) => ErrorAnswer::Denied(why),
            HttpError::Invalid(why) => ErrorAnswer::Invalid(why),
            HttpError::NotSent(why) => ErrorAnswer::NotSent(why),
            HttpError::UnknownOutcome(why) => ErrorAnswer::UnknownOutcome(why),
            HttpError::TooLarge { status, reason } => {
                ErrorAnswer::TooLarge(TooLargeAnswer { status, reason })
            }
        }
    }
}

type Answers = Vec<Result<ResponseAnswer, ErrorAnswer>>;

pub(super) fn define(linker: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    linker.func_wrap("send", send)
}

fn send(mut caller: Caller<'_>, (requests,): (Vec<RequestParam>,)) -> wasmtime::Result<(Answers,)> {
    let Some(sending) = &mut caller.data_mut().http else {
        wasmtime::bail!("requests are sent in `consume` alone");
    };
    if requests.len() > MAX_REQUESTS_PER_SEND {
        wasmtime::bail!("{} requests at once; at most {MAX_REQUESTS_PER_SEND} are sent", requests.len());
    }
    let left = Instant::now();
    let within = MAX_AWAY.saturating_sub(sending.away);
    let answers = if within > Duration::ZERO {
        sending.client.send(requests.into_iter().map(HttpRequest::from).collect(), within)
    } else {
        let over = HttpError::NotSent(format!("the call has sent for {} s already", MAX_AWAY.as_secs()));
        vec![Err(over); requests.len()]
    };
    sending.away += left.elapsed();
    let left_ms = sending.left_ms();
    caller.set_epoch_deadline(epochs(left_ms));
    let answers = answers.into_iter().map(|answer| match answer {
        Ok(response) => Ok(response.into()),
        Err(error) => Err(error.into()),
    });
    Ok((answers.collect(),))
}
