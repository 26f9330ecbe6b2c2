//! Commits offsets, with the transaction that holds their outputs.

use pelton_commitlog::mutant::Mutant;
use pelton_streams::manifest::Guarantee;
use tokio::sync::oneshot;

use super::outputs::Staging;
use super::placing::Placing;
use super::{BrokerIo, embedded, unavailable};
use crate::group::error::GroupError;
use crate::group::service::Groups;
use crate::group::types::{CommitRequest, MemberIdentity, NO_GENERATION, OffsetToCommit, TopicPartition};
use crate::same_journal::SameJournal;
use pelton_pipelines::io::{Committer, Input, IoError, Ticket};

impl Committer for BrokerIo {
    fn begin(&mut self) -> Result<(), IoError> {
        let producer = match self.guarantee {
            Guarantee::AtLeastOnce => {
                // An earlier revision may have been exactly-once and have left a transaction open.
                let abandoned = self.runtime.block_on(self.transactions.abandon(&self.transactional_id));
                abandoned.map_err(|error| embedded(error.into()))?;
                None
            }
            Guarantee::ExactlyOnce => {
                let taken = async {
                    self.groups
                        .ensure_topic()
                        .await
                        .map_err(|error| IoError::Unavailable(error.to_string()))?;
                    self.transactions.init_embedded(&self.transactional_id).await.map_err(embedded)
                };
                Some(self.runtime.block_on(taken)?)
            }
        };
        self.staging = Staging::new(producer).keeping_origins(self.placing.is_some());
        self.placing = self.placing.take().map(|_| Placing::default());
        Ok(())
    }

    fn commit(&mut self, offsets: &[(Input, i64)]) -> Result<Ticket, IoError> {
        if let Some(producer) = self.staging.producer().filter(|_| self.open) {
            self.note_places(producer, offsets)?;
        }
        let commit = |&(input, offset): &(Input, i64)| {
            let (topic, partition) = self.input(input)?;
            // A crash before it is durable counts anew.
            partition.routed(offset);
            let at = TopicPartition { topic: topic.name.as_str().into(), partition: input.partition };
            // An offset means nothing in a topic that is created later under the same name.
            Ok(OffsetToCommit { at, offset, leader_epoch: -1, metadata: topic.id.to_string() })
        };
        let offsets = offsets.iter().map(commit).collect::<Result<Vec<_>, IoError>>()?;
        let request = commit_of(offsets);
        let (sender, ticket) = oneshot::channel();
        let id = self.transactional_id.as_str();
        if let Some(producer) = self.staging.producer().filter(|_| std::mem::take(&mut self.open)) {
            let ended = self.transactions.commit_with_offsets(id, producer, &self.group, request);
            let ending = self.runtime.block_on(ended).map_err(embedded)?;
            self.runtime.spawn(async move {
                // The driver may have ended and dropped its ticket.
                let _ = sender.send(ending.settled().await.map_err(|error| embedded(error.into())));
            });
            return Ok(ticket);
        }
        if request.offsets.is_empty() {
            // The receiver is the ticket returned below.
            let _ = sender.send(Ok(()));
            return Ok(ticket);
        }
        let group = self.group.clone();
        if let Some(producer) = self.staging.producer() {
            let (transactions, id) = (self.transactions.clone(), id.to_owned());
            self.runtime.spawn(async move {
                let done = transactions.commit_offsets_alone(&id, producer, &group, request).await;
                // The driver may have ended and dropped its ticket.
                let _ = sender.send(done.map_err(embedded));
            });
            return Ok(ticket);
        }
        let commit = commit_behind(self.groups.clone(), group, request, self.topics.same_journal());
        self.runtime.spawn(async move {
            // The driver may have ended and dropped its ticket.
            let _ = sender.send(commit.await.map_err(|error| unavailable(&error)));
        });
        Ok(ticket)
    }

    fn abandon(&mut self) -> Result<(), IoError> {
        if Mutant::AbandonKeepsOpen.is_on() {
            return Ok(());
        }
        let id = &self.transactional_id;
        let abandoned = self.runtime.block_on(self.transactions.abandon(id));
        abandoned.map_err(|error| IoError::Unavailable(format!("abort the open transaction: {error}")))
    }
}

/// A commit of a driver, which is no member of its group.
pub(in crate::pipelines) fn commit_of(offsets: Vec<OffsetToCommit>) -> CommitRequest {
    CommitRequest {
        who: MemberIdentity {
            member_id: String::new(),
            group_instance_id: None,
            generation_id: NO_GENERATION,
        },
        retention_ms: None,
        knows_group_id_not_found: true,
        transaction: None,
        offsets,
    }
}

/// Commits offsets without a transaction, behind the outputs that were appended and may not be durable yet: the journal makes
/// those durable first.
async fn commit_behind(
    groups: Groups,
    group: String,
    offsets: CommitRequest,
    _: SameJournal,
) -> Result<(), GroupError> {
    groups.commit(&group, offsets).await?.into_iter().collect()
}
