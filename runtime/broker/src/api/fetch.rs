//! Fetch: stored batches, at once or when `min.bytes` are there, with or without a session (KIP-227).

mod list;
mod round;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use pelton_wire::ErrorCode;
use pelton_wire::message::{FetchRequest, FetchResponse};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::list::FetchList;
use self::round::Round;
use self::sessions::{NEW_SESSION_EPOCH, NO_SESSION, NO_SESSION_EPOCH, Sessions, Turn};
use super::context::RequestContext;
use super::reply::{Answer, Reply};
use super::timer::ConnectionTimer;
use crate::blocking::run_blocking;
use crate::metrics::Metrics;
use crate::partition::Isolation;
use crate::topics::Topics;

/// First version in which topics have ids instead of names.
const IDS_SINCE: i16 = 13;
/// A request of more partitions than this is checked for duplicates; one of a session always is.
const SUSPICIOUS: usize = 1000;

/// The sessions of consumers, each with its partitions.
pub(crate) type FetchSessions = Sessions<Box<FetchList>>;

pub(crate) struct Fetching {
    pub(crate) topics: Arc<Topics>,
    pub(crate) sessions: Arc<FetchSessions>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: CancellationToken,
    /// Most bytes of records in one response.
    pub(crate) max_bytes: u64,
}

pub(crate) fn handle(
    parts: &Arc<Fetching>,
    cx: &RequestContext,
    request: FetchRequest,
) -> Reply<FetchResponse> {
    let now = Instant::now();
    let goal = Goal {
        min_bytes: u64::try_from(request.min_bytes).unwrap_or(0),
        max_bytes: u64::try_from(request.max_bytes).unwrap_or(0).min(parts.max_bytes),
        deadline: now + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
    };
    match Fetch::begin(parts, cx.version >= IDS_SINCE, request, now) {
        // Records are read only when the response is the next to send: a client that sends many fetches and takes no
        // responses would otherwise hold memory and open files for each.
        Ok(fetch) => {
            let (parts, connection) = (Arc::clone(parts), Arc::clone(&cx.connection));
            cx.later(async move { fetch.run(&parts, &connection.timer, goal).await })
        }
        Err(error_code) => Reply::ready(FetchResponse { error_code, ..Default::default() }),
    }
}

/// The limits of a fetch: deadline, least and most bytes.
#[derive(Clone, Copy)]
struct Goal {
    min_bytes: u64,
    max_bytes: u64,
    deadline: Instant,
}

impl Goal {
    /// Whether the round is answered before the deadline: it has enough bytes, or an error that the client must act on.
    fn is_reached(self, round: &Round) -> bool {
        round.failed || round.bytes >= self.min_bytes || Instant::now() >= self.deadline
    }
}

/// A request whose partitions have been looked up.
enum Fetch {
    /// The request names all of its partitions.
    Full { list: Box<FetchList>, wants_session: bool },
    /// The partitions are in the session.
    Incremental(Turn<Box<FetchList>>),
}

impl Fetch {
    fn begin(parts: &Fetching, by_id: bool, request: FetchRequest, now: Instant) -> Result<Fetch, ErrorCode> {
        let isolation = Isolation::from_wire(request.isolation_level).ok_or(ErrorCode::INVALID_REQUEST)?;
        let (id, epoch) = (request.session_id, request.session_epoch);
        if matches!(epoch, NO_SESSION_EPOCH | NEW_SESSION_EPOCH) {
            // The old session is closed either way.
            parts.sessions.remove(id);
            let wants_session = epoch == NEW_SESSION_EPOCH;
            let partitions = request.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
            let each_once = wants_session || partitions > SUSPICIOUS;
            let list = FetchList::new(&parts.topics, by_id, isolation, request.topics, each_once);
            return Ok(Fetch::Full { list: Box::new(list), wants_session });
        }
        let session = parts.sessions.get(id, now)?;
        let (turn, partitions) = session.take_turn(epoch, |list| {
            if list.by_id() != by_id {
                return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
            }
            list.update(isolation, request.topics, request.forgotten_topics_data);
            // An earlier request of the session that still waits is answered.
            list.ready().wake_all();
            Ok(list.len())
        })?;
        if partitions == 0 {
            // The session has no partitions left and is closed.
            parts.sessions.remove(id);
            let list = FetchList::new(&parts.topics, by_id, isolation, Vec::new(), false);
            return Ok(Fetch::Full { list: Box::new(list), wants_session: false });
        }
        parts.sessions.resized(id, partitions, now)?;
        Ok(Fetch::Incremental(turn))
    }

    /// Waits for enough bytes, the deadline, or the stop of the broker.
    async fn run(self, parts: &Fetching, timer: &ConnectionTimer, goal: Goal) -> Answer<FetchResponse> {
        match self.find(parts, timer, goal).await {
            Ok((fetch, round)) => {
                parts.metrics.fetched(round.bytes);
                fetch.answer(parts, round)
            }
            Err(error_code) => FetchResponse { error_code, ..Default::default() }.into(),
        }
    }

    async fn find(
        mut self,
        parts: &Fetching,
        timer: &ConnectionTimer,
        goal: Goal,
    ) -> Result<(Fetch, Round), ErrorCode> {
        let (is_full, is_empty) = match &mut self {
            Fetch::Full { list, wants_session } => {
                if *wants_session {
                    list.watch();
                }
                (true, list.len() == 0)
            }
            Fetch::Incremental(turn) => {
                turn.with(|list| list.open_news())?;
                (false, false)
            }
        };
        let (mut this, mut round) = self.look(goal, is_full).await?;
        if is_empty || goal.is_reached(&round) {
            return Ok((this, round));
        }
        let ready = this.with(|list| {
            list.unanswered(round, is_full);
            // Watch first, then look again: a change in between is either seen or listed.
            if list.watch() {
                list.open_all();
            }
            Arc::clone(list.ready())
        })?;
        let mut stopping = std::pin::pin!(parts.stopping.cancelled());
        loop {
            (this, round) = this.look(goal, false).await?;
            if !goal.is_reached(&round) {
                let news = async {
                    tokio::select! {
                        () = ready.changed() => true,
                        () = &mut stopping => false,
                    }
                };
                if timer.until(goal.deadline, news).await == Some(true) {
                    this.with(|list| {
                        list.unanswered(round, is_full);
                        list.take_ready();
                    })?;
                    continue;
                }
            }
            // The last look saw only the changes; the answer has all news.
            if !is_full && this.with(|list| list.has_told_the_rest())? {
                return Ok((this, round));
            }
            this.with(|list| {
                list.unanswered(round, is_full);
                if is_full { list.open_all() } else { list.open_news() }
            })?;
            return this.look(goal, is_full).await;
        }
    }

    /// Looks at the open partitions, on a blocking thread if a look may wait for the disk.
    async fn look(mut self, goal: Goal, all: bool) -> Result<(Fetch, Round), ErrorCode> {
        let Goal { max_bytes, .. } = goal;
        if self.with(|list| list.is_in_memory())? {
            let round = self.with(|list| list.look(max_bytes, all))?;
            return Ok((self, round));
        }
        run_blocking(move || {
            let round = self.with(|list| list.look(max_bytes, all))?;
            Ok((self, round))
        })
        .await
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut FetchList) -> T) -> Result<T, ErrorCode> {
        match self {
            Fetch::Full { list, .. } => Ok(work(list)),
            Fetch::Incremental(turn) => turn.with(|list| work(list)),
        }
    }

    /// Makes the response. The session notes that the client has been told.
    fn answer(self, parts: &Fetching, round: Round) -> Answer<FetchResponse> {
        let Round { answers, externals, .. } = round;
        let (session_id, responses) = match self {
            Fetch::Full { mut list, wants_session } => {
                let responses = list.tell(answers);
                let partitions = list.len();
                let create = || parts.sessions.create(partitions, list, Instant::now());
                (wants_session.then(create).flatten(), responses)
            }
            Fetch::Incremental(turn) => match turn.with(|list| list.tell(answers)) {
                Ok(responses) => (Some(turn.session.id), responses),
                Err(error_code) => return FetchResponse { error_code, ..Default::default() }.into(),
            },
        };
        let session_id = session_id.unwrap_or(NO_SESSION);
        externals.answer(FetchResponse { session_id, responses, ..Default::default() })
    }
}
