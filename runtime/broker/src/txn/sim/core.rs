//! The broker without its sockets, over a disk that fails on command. Nothing here has a thread of its own: the journal
//! writes when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use pelton_commitlog::storage::SimStorage;
use pelton_commitlog::{Slice, Threads};
use pelton_wire::header::{RequestHeader, ResponseHeader};
use pelton_wire::message::{Message, Request};
use pelton_wire::{Piece, Reader, Writer};
use uuid::Uuid;

use crate::api;
use crate::api::access::Principal;
use crate::api::context::ConnectionContext;
use crate::api::parts::Parts;
use crate::api::reply::Started;
use crate::api::timer::ConnectionTimer;
use crate::blocking::run_blocking;
use crate::broker::{Broker, Deps};
use crate::clock::ManualClock;
use crate::config::Config;
use crate::failure::Failure;
use crate::startup;
use crate::topics::NewTopic;
use crate::txn::origin::RequestOrigin;

/// Where records go: topics and their partitions.
pub(super) const TOPICS: [(&str, i32); 2] = [("a", 2), ("b", 1)];
/// How long a start may try to end what was decided, as long as it takes: every wait of it is answered.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3600);
/// After so many rounds without news nobody in the runtime has anything to do but wait for the disk.
const SETTLED: usize = 24;
/// A start that takes more rounds than this hangs.
const ROUNDS_MAX: usize = 5_000_000;

/// Why a core is of no use any more: the disk is gone.
#[derive(Debug)]
pub(super) struct Cut;

pub(super) struct Core {
    pub(super) broker: Arc<Broker>,
    parts: Parts,
    pub(super) clock: Arc<ManualClock>,
}

fn config() -> Config {
    let pairs = [
        ("data.dir", "/data"),
        ("http.listen", "off"),
        ("pelton.disk.free.min", "0"),
        ("offsets.topic.num.partitions", "2"),
        ("transaction.state.log.num.partitions", "2"),
        ("log.segment.bytes", "2000"),
    ];
    let config = Config::from_pairs(pairs).unwrap();
    // Smaller than an operator may ask for, so that they roll.
    Config {
        offsets_topic_segment_bytes: 4000,
        transaction_state_log_segment_bytes: 4000,
        snapshot_min_bytes: 2000,
        ..config
    }
}

/// Ids in order, so that a run repeats; never one of another run of the same disk.
fn ids(life: u64) -> Arc<dyn Fn() -> Uuid + Send + Sync> {
    let next = AtomicU64::new(0);
    Arc::new(move || {
        Uuid::from_u64_pair(life + 1, 0x8000_0000_0000_0000 | next.fetch_add(1, Ordering::Relaxed))
    })
}

impl Core {
    /// Starts as the broker does, up to the point where it would listen.
    pub(super) async fn start(disk: &SimStorage, clock: &Arc<ManualClock>, life: u64) -> Result<Core, Cut> {
        let deps =
            Deps { clock: clock.clone(), storage: Arc::new(disk.clone()), plugins: None, new_id: ids(life) };
        let (config, failure) = (config(), Failure::default());
        let mut dir = startup::dir_config(&config, &deps, &failure);
        // So small that it wraps and checkpoints all the time.
        dir.threads = Threads::ByHand;
        dir.journal_first_file_bytes = 32 << 10;
        dir.journal_max_bytes = 256 << 10;
        dir.journal_group_max_bytes = 16 << 10;
        dir.checkpoint_bytes = 16 << 10;
        let opened = match startup::open_as(&config, &deps, &failure, dir) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(disk.power_is_off(), "the broker does not start: {error}");
                return Err(Cut);
            }
        };
        let broker = Arc::new(Broker::assemble(config, &deps, opened, failure));
        let parts = broker.parts(broker.config.listen.clone());
        let core = Core { broker, parts, clock: clock.clone() };
        let transactions = core.broker.transactions.clone();
        if let Err(error) = run_blocking(move || transactions.load()).await {
            assert!(disk.power_is_off(), "transactions cannot be read: {error}");
            return Err(Cut);
        }
        let broker = Arc::clone(&core.broker);
        core.drive(disk, async move {
            broker.groups.loaded().await.expect("the groups read");
            broker.transactions.recover(PATIENCE).await;
        })
        .await?;
        Ok(core)
    }

    /// Makes the topics, once in the life of a disk.
    pub(super) async fn create_topics(&self, disk: &SimStorage) -> Result<(), Cut> {
        let broker = Arc::clone(&self.broker);
        self.drive(disk, async move {
            for (name, partitions) in TOPICS {
                let new = NewTopic { name: name.to_owned(), partitions, overrides: Default::default() };
                broker.topics.create(new, 0).await.unwrap();
            }
            broker.groups.ensure_topic().await.unwrap();
            broker.transactions.ensure_topic().await.unwrap();
            // The first block of producer ids, so that all that follows is transactions.
            broker.producer_ids.next(&broker.topics).await.unwrap();
        })
        .await?;
        // Nothing is left to do that could be counted in one run and not in another.
        while self.broker.log_dir.step().map_err(|_| Cut)? {}
        self.broker.log_dir.checkpoint().map_err(|_| Cut)
    }

    /// Lets the journal write until `work` is done, or the power is off.
    pub(super) async fn drive<T: Send + 'static>(
        &self,
        disk: &SimStorage,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Cut> {
        let work = tokio::spawn(work);
        for _ in 0..ROUNDS_MAX {
            self.settle().await;
            if work.is_finished() {
                return Ok(work.await.unwrap());
            }
            if let Err(failure) = self.broker.log_dir.step() {
                assert!(disk.power_is_off(), "the disk failed by itself: {failure}");
                return Err(Cut);
            }
            std::thread::yield_now();
        }
        panic!("it never ends");
    }

    /// Lets everybody do what there is to do, until nobody waits for the disk.
    pub(super) async fn finish(&self, disk: &SimStorage) -> Result<(), Cut> {
        loop {
            self.settle().await;
            match self.broker.log_dir.step() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(failure) => {
                    assert!(disk.power_is_off(), "the disk failed by itself: {failure}");
                    return Err(Cut);
                }
            }
        }
    }

    /// Lets everybody do what can be done without the disk.
    pub(super) async fn settle(&self) {
        for _ in 0..SETTLED {
            tokio::task::yield_now().await;
        }
    }

    /// Sends a request as the connection's task would: what must happen in order has happened when this returns. The answer is
    /// `None` when the broker hangs up.
    pub(super) fn ask<Q: Request>(
        &self,
        version: i16,
        place: RequestOrigin,
        request: &Q,
    ) -> impl Future<Output = Option<Q::Response>> + Send + use<Q> {
        let frame = frame(version, place, request);
        let connection = Arc::new(ConnectionContext {
            peer: ([127, 0, 0, 1], 9).into(),
            number: place.connection,
            principal: Principal::Anonymous,
            timer: ConnectionTimer::default(),
        });
        let limit = frame.len() * 100;
        let mut started = api::start(&self.parts, &connection, frame, limit).map(|call| call.started);
        async move {
            while let Ok(Started::Waits(future)) = started {
                started = future.await;
            }
            let slices = match started {
                Ok(Started::Ready(slices)) => slices,
                Ok(Started::Later(answer) | Started::InOrder(answer)) => answer.await.ok()?,
                Ok(Started::Silent | Started::Waits(_)) | Err(_) => return None,
            };
            Some(response::<Q>(version, slices))
        }
    }
}

fn frame<Q: Request>(version: i16, place: RequestOrigin, request: &Q) -> Bytes {
    let header = RequestHeader {
        api_key: Q::KEY,
        api_version: version,
        correlation_id: place.correlation_id,
        client_id: None,
    };
    let mut writer = Writer::new();
    header.encode(&mut writer).unwrap();
    request.encode(&mut writer, version).unwrap();
    let pieces = writer.finish().unwrap().into_iter().map(|piece| match piece {
        Piece::Bytes(bytes) => bytes,
        Piece::External { .. } => panic!("a request has its records with it"),
    });
    pieces.collect::<Vec<_>>().concat().into()
}

fn response<Q: Request>(version: i16, slices: Vec<Slice>) -> Q::Response {
    let bytes = slices.into_iter().map(|slice| match slice {
        Slice::Memory(bytes) => bytes,
        Slice::File { .. } => panic!("no transaction's request reads a file"),
    });
    let frame = Bytes::from(bytes.collect::<Vec<_>>().concat());
    let mut reader = Reader::new(frame.slice(4..));
    ResponseHeader::decode(&mut reader, Q::KEY, version).unwrap();
    Q::Response::decode(&mut reader, version).unwrap()
}
