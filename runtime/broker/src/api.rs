//! From a frame to a handler and back. One table says which APIs are served and by which function; handlers are one file
//! per API and never see bytes.

use bytes::Bytes;
use pelton_wire::header::{RequestHeader, RequestPreamble, ResponseHeader, refuse_api_versions};
use pelton_wire::message::{Message, Request};
use pelton_wire::{ApiKey, DecodeError, EncodeError, ErrorCode, Reader, Writer};

use crate::net::send::Piece;
use crate::reply::{Answer, Close, Later, Reply, RequestContext};
use crate::txn::order::Place;

pub(crate) mod acls;
pub(crate) mod add_offsets_to_txn;
pub(crate) mod add_partitions_to_txn;
pub(crate) mod alter_configs;
pub(crate) mod api_versions;
mod broker_settings;
mod configs;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_client_quotas;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod describe_producers;
pub(crate) mod describe_quorum;
pub(crate) mod describe_topic_partitions;
pub(crate) mod describe_transactions;
pub(crate) mod describe_user_scram_credentials;
pub(crate) mod elect_leaders;
pub(crate) mod end_txn;
pub(crate) mod error_map;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_config_resources;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_transactions;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
mod once;
pub(crate) mod operations;
pub(crate) mod partition_reassignments;
mod pipeline_group;
pub(crate) mod produce;
pub(crate) mod produce_check;
pub(crate) mod sync_group;
pub(crate) mod txn_offset_commit;
pub(crate) mod update_features;
pub(crate) mod write_txn_markers;

/// A request that cannot be answered within the protocol. The connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the request cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("the response cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("{0}: {1}")]
    Refused(&'static str, ErrorCode),
}

impl From<Close> for RequestError {
    fn from(Close(why, code): Close) -> RequestError {
        RequestError::Refused(why, code)
    }
}

/// A request whose handler has been called.
pub(crate) struct Call {
    pub(crate) started: Started,
    /// Bytes of memory that the request was decoded to, beside its frame.
    pub(crate) decoded: usize,
}

/// What became of a request after its first phase.
pub(crate) enum Started {
    /// The response, whole.
    Ready(Vec<Piece>),
    /// The response will come; the next request may start.
    Later(Later<Result<Vec<Piece>, RequestError>>),
    /// The response will come; the next request may not start before.
    InOrder(Later<Result<Vec<Piece>, RequestError>>),
    /// What must happen in order has to wait for something; the next request may not start before.
    Waits(Later<Result<Started, RequestError>>),
    /// There is no response.
    Silent,
}

/// The APIs with the functions that serve them.
macro_rules! serve {
    ($($key:ident => $handler:path,)*) => {
        /// The APIs that this broker serves and advertises.
        pub(crate) const SERVED: &[ApiKey] = &[$(ApiKey::$key,)*];

        fn dispatch(header: RequestHeader, cx: &RequestContext, reader: Reader) -> Result<Call, RequestError> {
            match header.api_key {
                $(ApiKey::$key => run(&header, cx, reader, $handler),)*
            }
        }
    };
}

serve! {
    Produce => produce::handle,
    Fetch => fetch::handle,
    ListOffsets => list_offsets::handle,
    Metadata => metadata::handle,
    ApiVersions => api_versions::handle,
    OffsetCommit => offset_commit::handle,
    OffsetFetch => offset_fetch::handle,
    FindCoordinator => find_coordinator::handle,
    JoinGroup => join_group::handle,
    Heartbeat => heartbeat::handle,
    LeaveGroup => leave_group::handle,
    SyncGroup => sync_group::handle,
    DescribeGroups => describe_groups::handle,
    ListGroups => list_groups::handle,
    CreateTopics => create_topics::handle,
    DeleteTopics => delete_topics::handle,
    DeleteRecords => delete_records::handle,
    InitProducerId => init_producer_id::handle,
    OffsetForLeaderEpoch => offset_for_leader_epoch::handle,
    DescribeAcls => acls::describe,
    CreateAcls => acls::create,
    DeleteAcls => acls::delete,
    DescribeConfigs => describe_configs::handle,
    AlterConfigs => alter_configs::handle,
    DescribeLogDirs => describe_log_dirs::handle,
    CreatePartitions => create_partitions::handle,
    DeleteGroups => delete_groups::handle,
    ElectLeaders => elect_leaders::handle,
    IncrementalAlterConfigs => alter_configs::handle_incremental,
    AlterPartitionReassignments => partition_reassignments::alter,
    ListPartitionReassignments => partition_reassignments::list,
    OffsetDelete => offset_delete::handle,
    DescribeClientQuotas => describe_client_quotas::handle,
    DescribeUserScramCredentials => describe_user_scram_credentials::handle,
    DescribeQuorum => describe_quorum::handle,
    UpdateFeatures => update_features::handle,
    DescribeCluster => describe_cluster::handle,
    DescribeProducers => describe_producers::handle,
    ListConfigResources => list_config_resources::handle,
    DescribeTopicPartitions => describe_topic_partitions::handle,
    AddPartitionsToTxn => add_partitions_to_txn::handle,
    AddOffsetsToTxn => add_offsets_to_txn::handle,
    EndTxn => end_txn::handle,
    WriteTxnMarkers => write_txn_markers::handle,
    TxnOffsetCommit => txn_offset_commit::handle,
    DescribeTransactions => describe_transactions::handle,
    ListTransactions => list_transactions::handle,
}

/// Whether a frame is a request that appends, by the key at its front.
pub(crate) fn is_produce(frame: &[u8]) -> bool {
    frame.starts_with(&(ApiKey::Produce as i16).to_be_bytes())
}

/// Decodes a request, within `decode_limit` bytes of memory, and calls its handler. What must happen in the order of the
/// connection's requests has happened when this returns.
pub(crate) fn start(frame: Bytes, decode_limit: usize, cx: RequestContext) -> Result<Call, RequestError> {
    let mut reader = Reader::within(frame.clone(), decode_limit);
    match RequestHeader::decode(&mut reader) {
        Ok(header) => {
            let request_bytes = frame.len();
            // From here on what the request keeps of the frame is all that is left of it.
            drop(frame);
            cx.broker.metrics.request(header.api_key, request_bytes);
            let (version, client_id) = (header.api_version, header.client_id.clone());
            let place = Place { correlation_id: header.correlation_id, ..cx.place };
            let cx = RequestContext { version, client_id, request_bytes, place, ..cx };
            dispatch(header, &cx, reader)
        }
        Err(DecodeError::UnsupportedVersion { api: ApiKey::ApiVersions, .. }) => {
            // The client cannot know what we speak before it has asked.
            let preamble = RequestPreamble::decode(&mut Reader::new(frame))?;
            let mut writer = Writer::framed();
            refuse_api_versions(&mut writer, preamble.correlation_id)?;
            let pieces = vec![Piece::Bytes(writer.into_bytes()?)];
            Ok(Call { started: Started::Ready(pieces), decoded: 0 })
        }
        Err(error) => Err(error.into()),
    }
}

fn run<Q: Request>(
    header: &RequestHeader,
    cx: &RequestContext,
    mut reader: Reader,
    handler: fn(&RequestContext, Q) -> Reply<Q::Response>,
) -> Result<Call, RequestError>
where
    Q::Response: 'static,
{
    let request = Q::decode(&mut reader, header.api_version)?;
    let decoded = reader.allocated();
    drop(reader);
    let started = started::<Q>(handler(cx, request), header.api_version, header.correlation_id)?;
    Ok(Call { started, decoded })
}

fn started<Q: Request>(
    reply: Reply<Q::Response>,
    version: i16,
    correlation_id: i32,
) -> Result<Started, RequestError>
where
    Q::Response: 'static,
{
    let finish = move |answer| encode(answer, Q::KEY, version, correlation_id);
    Ok(match reply {
        Reply::Ready(answer) => Started::Ready(finish(answer)?),
        Reply::Later(future) => Started::Later(Box::pin(async move { Ok(finish(future.await)?) })),
        Reply::LaterOrClose(future) => Started::Later(Box::pin(async move { Ok(finish(future.await?)?) })),
        Reply::InOrder(future) => Started::InOrder(Box::pin(async move { Ok(finish(future.await)?) })),
        Reply::Waits(future) => {
            Started::Waits(Box::pin(async move { started::<Q>(future.await, version, correlation_id) }))
        }
        Reply::Silent => Started::Silent,
        Reply::Close(close) => return Err(close.into()),
    })
}

/// The frame of a response, its records still where they are.
fn encode<R: Message>(
    answer: Answer<R>,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
) -> Result<Vec<Piece>, EncodeError> {
    let mut writer = Writer::framed();
    ResponseHeader { correlation_id }.encode(&mut writer, key, version);
    answer.response.encode(&mut writer, version)?;
    let mut externals = answer.externals;
    let mut pieces = Vec::new();
    for piece in writer.finish()? {
        match piece {
            pelton_wire::Piece::Bytes(bytes) => pieces.push(Piece::Bytes(bytes)),
            pelton_wire::Piece::External { id, .. } => {
                let parts = externals.get_mut(id as usize).map(std::mem::take);
                pieces.extend(parts.expect("`Externals::add` gave this id and kept the pieces under it"));
            }
        }
    }
    Ok(pieces)
}
