//! One member of a group.

use std::sync::Arc;

use bytes::Bytes;

use super::types::{JoinRequest, MemberId, Protocol, Waiter};

/// One member, as the coordinator knows it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub id: MemberId,
    /// Set for a static member (KIP-345): it keeps its place over restarts.
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// Its part of the last durable assignment.
    pub assignment: Bytes,
    /// Its JoinGroup that waits for the others.
    pub awaiting_join: Option<Waiter>,
    /// Its SyncGroup that waits for the leader.
    pub awaiting_sync: Option<Waiter>,
    /// It was never answered a JoinGroup, so it may not know its id and cannot send heartbeats.
    pub is_new: bool,
}

impl Member {
    pub(super) fn new(id: MemberId, request: &JoinRequest) -> Member {
        Member {
            id,
            group_instance_id: request.group_instance_id.as_deref().map(Arc::from),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
        }
    }

    pub(super) fn is_static(&self) -> bool {
        self.group_instance_id.is_some()
    }

    /// A parked request proves that the client is there; its session is judged again once that is answered. A new
    /// member is the exception: its time-out bounds how long an abandoned JoinGroup stays.
    pub(super) fn cannot_expire(&self) -> bool {
        (self.awaiting_join.is_some() && !self.is_new) || self.awaiting_sync.is_some()
    }

    /// The metadata under `protocol`; empty when the member does not have it.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|p| p.name == protocol).map(|p| p.metadata.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            id: Arc::from("m"),
            group_instance_id: None,
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 1,
            rebalance_timeout_ms: 1,
            protocols: vec![
                Protocol { name: "range".into(), metadata: Bytes::from_static(b"r") },
                Protocol { name: "sticky".into(), metadata: Bytes::from_static(b"s") },
            ],
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        }
    }

    #[test]
    fn metadata_is_that_of_the_protocol() {
        assert_eq!(member().metadata("sticky"), "s");
        assert_eq!(member().metadata("none"), "");
    }

    #[test]
    fn only_a_known_member_with_a_parked_request_is_safe_from_expiry() {
        let check = |join: bool, sync: bool, is_new: bool, expect: bool| {
            let m = Member {
                awaiting_join: join.then_some(Waiter(1)),
                awaiting_sync: sync.then_some(Waiter(2)),
                is_new,
                ..member()
            };
            assert_eq!(m.cannot_expire(), expect, "join {join} sync {sync} new {is_new}");
        };
        check(false, false, false, false);
        check(true, false, false, true);
        check(true, false, true, false);
        check(false, true, false, true);
    }
}
