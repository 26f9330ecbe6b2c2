//! From a request frame to its handler and back. One table lists the served APIs: the handler, the parts of the broker
//! that it gets, and the access that a request needs. Handlers are one file per API and never see bytes.

use bytes::Bytes;
use pelton_wire::header::{RequestHeader, RequestPreamble, refuse_api_versions};
use pelton_wire::message::Request;
use pelton_wire::{ApiKey, DecodeError, ErrorCode, Reader, Writer};

mod acls;
mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_configs;
mod api_versions;
pub(crate) mod context;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
pub(crate) mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_transactions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod end_txn;
pub(crate) mod fetch;
mod find_coordinator;
mod heartbeat;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod partition_reassignments;
pub(crate) mod parts;
pub(crate) mod produce;
pub(crate) mod reply;
pub(crate) mod support;
mod sync_group;
pub(crate) mod timer;
mod txn_offset_commit;
mod update_features;
mod write_txn_markers;

use std::sync::Arc;

use self::context::{ConnectionContext, RequestContext};
use self::parts::Parts;
use self::reply::{Close, Reply, RequestError, Started};
use crate::access::{Need, Operation, Resource};
use pelton_commitlog::Slice;

/// A request whose handler has been called.
pub(crate) struct Call {
    pub(crate) started: Started,
    /// Bytes of memory that the decoded request takes beside its frame.
    pub(crate) decoded: usize,
}

/// One line per API: its handler, the parts of the broker that the handler gets, and the access that a request needs.
macro_rules! serve {
    ($($key:ident => $module:ident::$function:ident($($part:ident),*) needs [$($operation:ident $resource:ident),*];)*) => {
        /// The APIs that this broker serves and advertises.
        pub(crate) const SERVED: &[ApiKey] = &[$(ApiKey::$key,)*];

        /// The access that a request of an API needs.
        pub(crate) fn needs(key: ApiKey) -> &'static [Need] {
            match key {
                $(ApiKey::$key => &[$((Operation::$operation, Resource::$resource)),*],)*
            }
        }

        fn dispatch(parts: &Parts, cx: &RequestContext, reader: Reader) -> Result<Call, RequestError> {
            match cx.api_key {
                $(ApiKey::$key => run(cx, reader, |request| $module::$function($(&parts.$part,)* cx, request)),)*
            }
        }
    };
}

serve! {
    Produce => produce::handle(produce) needs [Write Topic, Write TransactionalId];
    Fetch => fetch::handle(fetch) needs [ClusterAction Cluster, Read Topic];
    ListOffsets => list_offsets::handle(topics) needs [Describe Topic];
    Metadata => metadata::handle(cluster, admin) needs [Describe Topic, Create Topic];
    ApiVersions => api_versions::handle(cluster) needs [];
    OffsetCommit => offset_commit::handle(groups) needs [Read Group, Read Topic];
    OffsetFetch => offset_fetch::handle(groups) needs [Describe Group, Describe Topic];
    FindCoordinator => find_coordinator::handle(coordinators) needs [Describe Group, Describe TransactionalId];
    JoinGroup => join_group::handle(groups) needs [Read Group];
    Heartbeat => heartbeat::handle(groups) needs [Read Group];
    LeaveGroup => leave_group::handle(groups) needs [Read Group];
    SyncGroup => sync_group::handle(groups) needs [Read Group];
    DescribeGroups => describe_groups::handle(admin) needs [Describe Group];
    ListGroups => list_groups::handle(admin) needs [Describe Cluster, Describe Group];
    CreateTopics => create_topics::handle(admin) needs [Create Cluster, Create Topic, DescribeConfigs Topic];
    DeleteTopics => delete_topics::handle(admin) needs [Delete Topic, Describe Topic];
    DeleteRecords => delete_records::handle(admin) needs [Delete Topic];
    InitProducerId => init_producer_id::handle(transactions) needs [Write TransactionalId, IdempotentWrite Cluster];
    OffsetForLeaderEpoch => offset_for_leader_epoch::handle(topics) needs [ClusterAction Cluster, Describe Topic];
    DescribeAcls => acls::describe() needs [Describe Cluster];
    CreateAcls => acls::create() needs [Alter Cluster];
    DeleteAcls => acls::delete() needs [Alter Cluster];
    DescribeConfigs => describe_configs::handle(cluster, admin) needs [DescribeConfigs Cluster, DescribeConfigs Topic];
    AlterConfigs => alter_configs::handle(admin) needs [AlterConfigs Cluster, AlterConfigs Topic];
    DescribeLogDirs => describe_log_dirs::handle(cluster, admin) needs [Describe Cluster];
    CreatePartitions => create_partitions::handle(admin) needs [Alter Topic];
    DeleteGroups => delete_groups::handle(admin) needs [Delete Group];
    ElectLeaders => elect_leaders::handle(admin) needs [Alter Cluster];
    IncrementalAlterConfigs => alter_configs::handle_incremental(admin) needs [AlterConfigs Cluster, AlterConfigs Topic];
    AlterPartitionReassignments => partition_reassignments::alter(admin) needs [Alter Cluster];
    ListPartitionReassignments => partition_reassignments::list() needs [Describe Cluster];
    OffsetDelete => offset_delete::handle(admin) needs [Delete Group, Read Topic];
    DescribeClientQuotas => describe_client_quotas::handle() needs [DescribeConfigs Cluster];
    DescribeUserScramCredentials => describe_user_scram_credentials::handle() needs [Describe Cluster];
    DescribeQuorum => describe_quorum::handle(cluster, topics) needs [Describe Cluster];
    UpdateFeatures => update_features::handle() needs [Alter Cluster];
    DescribeCluster => describe_cluster::handle(cluster) needs [Describe Cluster];
    DescribeProducers => describe_producers::handle(topics) needs [Read Topic];
    ListConfigResources => list_config_resources::handle(admin) needs [DescribeConfigs Cluster];
    DescribeTopicPartitions => describe_topic_partitions::handle(cluster, admin) needs [Describe Topic];
    AddPartitionsToTxn => add_partitions_to_txn::handle(transactions) needs [Write TransactionalId, Write Topic];
    AddOffsetsToTxn => add_offsets_to_txn::handle(transactions) needs [Write TransactionalId, Read Group];
    EndTxn => end_txn::handle(transactions) needs [Write TransactionalId];
    WriteTxnMarkers => write_txn_markers::handle(transactions) needs [ClusterAction Cluster];
    TxnOffsetCommit => txn_offset_commit::handle(transactions) needs [Write TransactionalId, Read Group, Read Topic];
    DescribeTransactions => describe_transactions::handle(transactions) needs [Describe TransactionalId, Describe Topic];
    ListTransactions => list_transactions::handle(transactions) needs [Describe TransactionalId];
}

/// Whether the frame is a Produce request, by its api key.
pub(crate) fn is_produce(frame: &[u8]) -> bool {
    frame.starts_with(&(ApiKey::Produce as i16).to_be_bytes())
}

/// Decodes a request within `decode_limit` bytes of memory and calls its handler. The part of the handler that must run
/// in the order of the connection's requests is done when this returns.
pub(crate) fn start(
    parts: &Parts,
    connection: &Arc<ConnectionContext>,
    frame: Bytes,
    decode_limit: usize,
) -> Result<Call, RequestError> {
    let mut reader = Reader::within(frame.clone(), decode_limit);
    match RequestHeader::decode(&mut reader) {
        Ok(header) => {
            let request_bytes = frame.len();
            // The decoded request alone keeps the frame alive from here on.
            drop(frame);
            parts.metrics.request(header.api_key, request_bytes);
            let RequestHeader { api_key, api_version: version, correlation_id, client_id } = header;
            let connection = Arc::clone(connection);
            let cx =
                RequestContext { connection, api_key, version, correlation_id, client_id, request_bytes };
            if let Some((operation, resource)) = cx.connection.principal.lacks(needs(api_key)) {
                tracing::debug!(peer = %cx.connection.peer, ?operation, ?resource, "access refused");
                return Err(Close("access refused", ErrorCode::CLUSTER_AUTHORIZATION_FAILED).into());
            }
            dispatch(parts, &cx, reader)
        }
        Err(DecodeError::UnsupportedVersion { api: ApiKey::ApiVersions, .. }) => {
            // A client learns the broker's versions by this request, so an unknown version is answered.
            let RequestPreamble { correlation_id, .. } = RequestPreamble::decode(&mut Reader::new(frame))?;
            let mut writer = Writer::framed();
            refuse_api_versions(&mut writer, correlation_id)?;
            let slices = vec![Slice::Memory(writer.into_bytes()?)];
            Ok(Call { started: Started::Ready(slices), decoded: 0 })
        }
        Err(error) => Err(error.into()),
    }
}

fn run<Q: Request>(
    cx: &RequestContext,
    mut reader: Reader,
    handler: impl FnOnce(Q) -> Reply<Q::Response>,
) -> Result<Call, RequestError> {
    let request = Q::decode(&mut reader, cx.version)?;
    let decoded = reader.allocated();
    drop(reader);
    let started = cx.response().start(handler(request))?;
    Ok(Call { started, decoded })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Principal;

    /// Clients send ApiVersions before they authenticate. Every other API touches a resource.
    #[test]
    fn every_api_needs_what_can_be_done() {
        for key in SERVED {
            let needs = needs(*key);
            assert_eq!(needs.is_empty(), *key == ApiKey::ApiVersions, "{}", key.name());
            assert!(needs.iter().all(|need| Principal::Anonymous.may(*need)), "{}", key.name());
        }
    }

    /// As Kafka's documentation has it, "Operations and Resources on Protocols".
    #[test]
    fn needs_are_kafkas() {
        use Resource::{Cluster, Group, Topic, TransactionalId};
        let check = |key: ApiKey, expect: &[Need]| assert_eq!(needs(key), expect, "{}", key.name());
        let fetch = [(Operation::ClusterAction, Cluster), (Operation::Read, Topic)];
        check(ApiKey::Fetch, &fetch);
        check(ApiKey::JoinGroup, &[(Operation::Read, Group)]);
        check(ApiKey::EndTxn, &[(Operation::Write, TransactionalId)]);
        check(ApiKey::WriteTxnMarkers, &[(Operation::ClusterAction, Cluster)]);
        check(ApiKey::DeleteRecords, &[(Operation::Delete, Topic)]);
        check(ApiKey::OffsetDelete, &[(Operation::Delete, Group), (Operation::Read, Topic)]);
        check(ApiKey::CreatePartitions, &[(Operation::Alter, Topic)]);
    }
}
