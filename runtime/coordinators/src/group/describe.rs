//! What DescribeGroups and ListGroups tell of a group.

use bytes::Bytes;

use super::state::{Group, State};
use super::types::{GroupDescription, GroupListing, MemberDescription};

impl Group {
    /// The group with its members. Their metadata is shown once the group is stable: before, the protocol it belongs
    /// to is not settled.
    pub(super) fn describe(&self) -> GroupDescription {
        let settled = if self.state == State::Stable { self.protocol.as_deref() } else { None };
        let members = self
            .members
            .iter()
            .map(|m| MemberDescription {
                member_id: m.id.clone(),
                group_instance_id: m.group_instance_id.as_deref().map(str::to_owned),
                client_id: m.client_id.clone(),
                client_host: m.client_host.clone(),
                metadata: settled.map_or_else(Bytes::new, |protocol| m.metadata(protocol)),
                assignment: m.assignment.clone(),
            })
            .collect();
        GroupDescription {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: settled.unwrap_or_default().to_owned(),
            members,
        }
    }

    /// The group in one line.
    pub(super) fn listing(&self) -> GroupListing {
        GroupListing {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state.name(),
        }
    }
}
