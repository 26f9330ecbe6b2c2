//! Which of a producer's requests came last. Pure.
//!
//! A network can hold a request back and deliver it after the client has given up its connection, opened another, sent
//! the request again and gone on. With the older protocol nothing in such a copy tells it from a request for the next
//! transaction, but where it comes from does.
//!
//! Most clients ask a coordinator over one connection at a time and number their requests there, so a copy comes on an
//! older connection, or has a number that was passed. A client that spreads its requests over several connections looks
//! like one that has gone on: it is told to ask again (CONCURRENT_TRANSACTIONS), and a client that does so on the same
//! connection has had that answer there, so it is no copy. A client has one request of a kind under way on a
//! connection, and sends it again there only when it was answered.

use pelton_commitlog::mutant::Mutant;

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestOrigin {
    /// The number of the connection; a later connection of this broker's life has a higher one.
    pub connection: u64,
    /// The number that the client gave the request. On one connection each is higher than the one before, until they
    /// start anew: at 0 or at the lowest, as clients differ.
    pub correlation_id: i32,
}

impl RequestOrigin {
    /// How far back on its connection a correlation id counts as passed. Further away it is after numbers started anew.
    const PASSED_MAX: u32 = 1 << 30;

    /// On the same connection, and not after the other.
    fn is_repeated(self, newest: RequestOrigin) -> bool {
        let back = newest.correlation_id.wrapping_sub(self.correlation_id).cast_unsigned();
        self.connection == newest.connection && back < RequestOrigin::PASSED_MAX
    }

    /// On the same connection, after the other.
    fn follows(self, before: RequestOrigin) -> bool {
        self.connection == before.connection && !self.is_repeated(before)
    }
}

/// The kind of a request. Clients send some of them over different connections (librdkafka has one for the
/// transaction coordinator and another for the group's, aiokafka another for InitProducerId).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    InitProducerId,
    AddPartitions,
    AddOffsets,
    EndTxn { commit: bool },
    TxnOffsetCommit,
}

/// The last request of each coordinator that was accepted. Not in the log: connections do not outlive the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastSeen {
    init: Option<RequestOrigin>,
    transaction: Window,
    offsets: Window,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleRequest {
    /// A copy: its number was passed on its connection.
    Repeated,
    /// A copy, or a request of a client that uses several connections: that will ask again.
    Elsewhere,
}

/// The request that was accepted last over any connection, and those that were refused since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window {
    last: Option<RequestOrigin>,
    /// The youngest connection that anything was accepted on.
    youngest: u64,
    refused: Vec<(RequestOrigin, RequestKind)>,
}

impl Window {
    /// Refused requests that are remembered. A client would have to use more connections than this to find no end.
    const REFUSED_MAX: usize = 16;

    fn see(&mut self, from: RequestOrigin, kind: RequestKind) -> Result<(), StaleRequest> {
        let Some(last) = self.last else {
            self.accept(from);
            return Ok(());
        };
        if from.is_repeated(last) {
            return Err(StaleRequest::Repeated);
        }
        let answered_there =
            |(refused, of): &(RequestOrigin, RequestKind)| *of == kind && from.follows(*refused);
        let is_next = from.connection == last.connection || from.connection > self.youngest;
        if is_next || self.refused.iter().any(answered_there) {
            self.accept(from);
            return Ok(());
        }
        if self.refused.len() == Window::REFUSED_MAX {
            return Err(StaleRequest::Repeated);
        }
        self.refused.push((from, kind));
        Err(StaleRequest::Elsewhere)
    }

    fn accept(&mut self, from: RequestOrigin) {
        self.youngest = self.youngest.max(from.connection);
        self.last = Some(from);
        // What is under way on other connections has been gone on from.
        self.refused.clear();
    }
}

impl LastSeen {
    /// Takes note of a request, unless it is stale. Only for requests of the current producer, so that no other moves
    /// what was seen. `from` is `None` for the broker's own.
    pub fn see(&mut self, kind: RequestKind, from: Option<RequestOrigin>) -> Result<(), StaleRequest> {
        let Some(from) = from else { return Ok(()) };
        let seen = match kind {
            // The new producer may have been connected for longer than the one it fences.
            RequestKind::InitProducerId => match self.init {
                Some(last) if from.is_repeated(last) => Err(StaleRequest::Repeated),
                _ => {
                    self.init = Some(from);
                    Ok(())
                }
            },
            RequestKind::AddPartitions | RequestKind::AddOffsets | RequestKind::EndTxn { .. } => {
                self.transaction.see(from, kind)
            }
            RequestKind::TxnOffsetCommit => self.offsets.see(from, kind),
        };
        if Mutant::CopyAccepted.is_on() { Ok(()) } else { seen }
    }

    /// The producer has a new epoch: what its predecessors sent is refused for that, and it may use any connection.
    pub fn start_anew(&mut self) {
        *self = LastSeen { init: self.init, ..LastSeen::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RequestKind::{AddOffsets, AddPartitions, EndTxn, InitProducerId, TxnOffsetCommit};
    use StaleRequest::{Elsewhere, Repeated};

    const COMMIT: RequestKind = EndTxn { commit: true };

    fn at(connection: u64, correlation_id: i32) -> Option<RequestOrigin> {
        Some(RequestOrigin { connection, correlation_id })
    }

    #[test]
    fn a_copy_is_on_an_older_connection_or_has_a_passed_number() {
        let check = |requests: &[(u64, i32)], copy: (u64, i32), expect: Result<(), StaleRequest>| {
            let mut seen = LastSeen::default();
            for (connection, id) in requests {
                assert_eq!(seen.see(COMMIT, at(*connection, *id)), Ok(()), "{requests:?}");
            }
            let found = seen.see(COMMIT, at(copy.0, copy.1));
            assert_eq!(found, expect, "{requests:?} {copy:?}");
        };
        check(&[], (7, 0), Ok(()));
        check(&[(7, 5)], (7, 6), Ok(()));
        check(&[(7, 5)], (7, 5), Err(Repeated));
        check(&[(7, 5)], (7, 4), Err(Repeated));
        check(&[(7, 5)], (6, 9), Err(Elsewhere));
        check(&[(7, 5)], (8, 1), Ok(()));
        check(&[(7, 5), (8, 1)], (7, 6), Err(Elsewhere));
        // Java and librdkafka go on at the lowest number, others at 0.
        check(&[(7, i32::MAX)], (7, i32::MIN), Ok(()));
        check(&[(7, i32::MAX - 8)], (7, i32::MIN), Ok(()));
        check(&[(7, i32::MAX)], (7, 0), Ok(()));
        check(&[(7, i32::MAX), (7, 0)], (7, 1), Ok(()));
        check(&[(7, i32::MAX), (7, i32::MIN)], (7, i32::MAX), Err(Repeated));
        check(&[(7, -1)], (7, 0), Ok(()));
        check(&[(7, 1)], (7, -1), Err(Repeated));
    }

    #[test]
    fn who_asks_again_on_the_connection_where_it_was_told_to_is_no_copy() {
        let mut seen = LastSeen::default();
        assert_eq!(seen.see(AddPartitions, at(5, 1)), Ok(()));
        assert_eq!(seen.see(AddOffsets, at(9, 1)), Ok(()), "a younger connection");
        for round in 1..=3 {
            let (first, second) = (10 * round, 10 * round + 1);
            for connection in [5, 9] {
                assert_eq!(seen.see(COMMIT, at(connection, first)), Err(Elsewhere), "{round} {connection}");
                let copy = seen.see(COMMIT, at(connection, first));
                assert_eq!(copy, Err(Elsewhere), "a copy of what was refused");
                let other = seen.see(EndTxn { commit: false }, at(connection, second));
                assert_eq!(other, Err(Elsewhere), "another request that was under way there");
                assert_eq!(seen.see(COMMIT, at(connection, second)), Ok(()), "{round} {connection}");
            }
        }
        // What was refused before another was accepted proves nothing.
        assert_eq!(seen.see(COMMIT, at(5, 50)), Err(Elsewhere));
        assert_eq!(seen.see(COMMIT, at(10, 1)), Ok(()));
        assert_eq!(seen.see(COMMIT, at(5, 51)), Err(Elsewhere));
    }

    #[test]
    fn refused_requests_are_bounded() {
        let mut seen = LastSeen::default();
        assert_eq!(seen.see(COMMIT, at(1000, 1)), Ok(()));
        let told = (0..100).map(|connection| seen.see(COMMIT, at(connection, 1)).unwrap_err());
        assert_eq!(told.filter(|stale| *stale == Elsewhere).count(), Window::REFUSED_MAX);
        assert_eq!(seen.see(COMMIT, at(0, 2)), Ok(()));
    }

    #[test]
    fn each_coordinator_has_its_own_connection() {
        let mut seen = LastSeen::default();
        for (kind, connection) in [(InitProducerId, 9), (TxnOffsetCommit, 5), (AddPartitions, 3)] {
            assert_eq!(seen.see(kind, at(connection, 1)), Ok(()));
            assert_eq!(seen.see(kind, None), Ok(()), "the broker's own");
        }
        assert_eq!(seen.see(COMMIT, at(3, 2)), Ok(()));
        assert_eq!(seen.see(TxnOffsetCommit, at(3, 3)), Err(Elsewhere));
        // Another process takes over, connected before this one was.
        assert_eq!(seen.see(InitProducerId, at(1, 1)), Ok(()));
        assert_eq!(seen.see(InitProducerId, at(1, 1)), Err(Repeated), "but not twice by one request");
        seen.start_anew();
        assert_eq!(seen.see(COMMIT, at(1, 2)), Ok(()));
        assert_eq!(seen.see(TxnOffsetCommit, at(1, 3)), Ok(()));
        assert_eq!(seen.see(InitProducerId, at(1, 1)), Err(Repeated));
    }
}
