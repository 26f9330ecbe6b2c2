//! A client of the tests that asks about groups.

use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use pelton_wire::header::{RequestHeader, ResponseHeader};
use pelton_wire::message::delete_groups::DeleteGroupsRequest;
use pelton_wire::message::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use pelton_wire::message::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use pelton_wire::message::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use pelton_wire::message::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use pelton_wire::message::{Message, Request};
use pelton_wire::{ErrorCode, Piece, Reader, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Lab;

pub(super) struct Wire(TcpStream);

impl Wire {
    pub(super) async fn connect(lab: &Lab) -> Wire {
        Wire(TcpStream::connect(lab.handle.addr()).await.unwrap())
    }

    async fn call<Q: Request>(&mut self, version: i16, request: &Q) -> Q::Response {
        static NEXT: AtomicI32 = AtomicI32::new(1);
        let correlation_id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut writer = Writer::framed();
        let header = RequestHeader { api_key: Q::KEY, api_version: version, correlation_id, client_id: None };
        header.encode(&mut writer).unwrap();
        request.encode(&mut writer, version).unwrap();
        for piece in writer.finish().unwrap() {
            let Piece::Bytes(bytes) = piece else { panic!("requests have no external records") };
            self.0.write_all(&bytes).await.unwrap();
        }
        let mut frame = vec![0; self.0.read_u32().await.unwrap() as usize];
        self.0.read_exact(&mut frame).await.unwrap();
        let mut reader = Reader::new(Bytes::from(frame));
        ResponseHeader::decode(&mut reader, Q::KEY, version).unwrap();
        Q::Response::decode(&mut reader, version).unwrap()
    }

    /// What OffsetCommit, TxnOffsetCommit, OffsetDelete and DeleteGroups say of a group and the topic `in`.
    pub(super) async fn changes(&mut self, group: &str) -> [ErrorCode; 4] {
        let partitions = vec![OffsetCommitRequestPartition::default()];
        let topics = vec![OffsetCommitRequestTopic { name: "in".into(), partitions, ..Default::default() }];
        let commit = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: -1,
            topics,
            ..Default::default()
        };
        let mut committed = self.call(8, &commit).await.topics[0].partitions[0].error_code;
        while committed == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS {
            tokio::task::yield_now().await;
            committed = self.call(8, &commit).await.topics[0].partitions[0].error_code;
        }
        let partitions = vec![TxnOffsetCommitRequestPartition::default()];
        let topics = vec![TxnOffsetCommitRequestTopic { name: "in".into(), partitions }];
        let within = TxnOffsetCommitRequest {
            transactional_id: "nobody".into(),
            group_id: group.into(),
            producer_id: 7,
            topics,
            ..Default::default()
        };
        let within = self.call(3, &within).await.topics[0].partitions[0].error_code;
        let partitions = vec![OffsetDeleteRequestPartition { partition_index: 0 }];
        let topics = vec![OffsetDeleteRequestTopic { name: "in".into(), partitions }];
        let forgotten = self.call(0, &OffsetDeleteRequest { group_id: group.into(), topics }).await;
        assert_eq!(forgotten.error_code, ErrorCode::NONE);
        let forgotten = forgotten.topics[0].partitions[0].error_code;
        // Forgetting its last offset may have ended the group.
        self.call(8, &commit).await;
        let deleted = self.call(2, &DeleteGroupsRequest { groups_names: vec![group.into()] }).await;
        [committed, within, forgotten, deleted.results[0].error_code]
    }

    /// What JoinGroup says to a new member.
    pub(super) async fn join(&mut self, group: &str) -> ErrorCode {
        let join = JoinGroupRequest {
            group_id: group.into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() }],
            ..Default::default()
        };
        self.call(9, &join).await.error_code
    }
}
