//! Which of a producer's requests came last. Pure.
//!
//! A network can hold a request back and deliver it after the client has given up its connection, opened another, sent the
//! request again and gone on. With the older protocol nothing in such a copy tells it from a request for the next
//! transaction, but where it comes from does: a client asks a coordinator over one connection at a time, and numbers its
//! requests there.

use pelton_commitlog::mutant::Mutant;

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the connection; a later connection of this broker's life has a higher one.
    pub(crate) connection: u64,
    /// The number that the client gave the request. On one connection each is higher than the one before, until they start
    /// anew: at 0 or at the lowest, as clients differ.
    pub(crate) correlation_id: i32,
}

impl Place {
    /// How far back on its connection a correlation id counts as passed. Further away it is after numbers started anew.
    const PASSED_MAX: u32 = 1 << 30;

    fn is_passed(self, newest: Place) -> bool {
        self.connection < newest.connection || self.is_repeated(newest)
    }

    fn is_repeated(self, newest: Place) -> bool {
        let back = newest.correlation_id.wrapping_sub(self.correlation_id).cast_unsigned();
        self.connection == newest.connection && back < Place::PASSED_MAX
    }
}

/// What a request of a producer is about. Clients send the kinds over different connections (librdkafka has one for the
/// transaction coordinator and another for the group's, aiokafka another for InitProducerId), but all of a kind over one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Concern {
    /// InitProducerId.
    Producer,
    /// AddPartitionsToTxn, AddOffsetsToTxn, EndTxn.
    Transaction,
    /// TxnOffsetCommit.
    Offsets,
}

/// The newest place that each kind of request was accepted from. Not in the log: connections do not outlive the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    producer: Option<Place>,
    transaction: Option<Place>,
    offsets: Option<Place>,
}

/// The request is a copy of one that has been passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed;

impl Heard {
    /// Takes note of a request, unless others have passed it. Only for requests of the current producer, so that nobody else
    /// moves its place. `from` is `None` for the broker's own.
    pub(crate) fn hear(&mut self, concern: Concern, from: Option<Place>) -> Result<(), Passed> {
        let Some(from) = from else { return Ok(()) };
        let (newest, passed): (_, fn(Place, Place) -> bool) = match concern {
            // Who takes over may have been connected for longer than who is there.
            Concern::Producer => (&mut self.producer, Place::is_repeated),
            Concern::Transaction => (&mut self.transaction, Place::is_passed),
            Concern::Offsets => (&mut self.offsets, Place::is_passed),
        };
        if newest.is_some_and(|newest| passed(from, newest)) && !Mutant::CopyAccepted.is_on() {
            return Err(Passed);
        }
        *newest = Some(from);
        Ok(())
    }

    /// The producer has a new epoch: what its predecessors sent is refused for that, and it may use any connection.
    pub(crate) fn start_anew(&mut self) {
        *self = Heard { producer: self.producer, ..Heard::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(connection: u64, correlation_id: i32) -> Option<Place> {
        Some(Place { connection, correlation_id })
    }

    #[test]
    fn a_copy_is_on_an_older_connection_or_has_a_passed_number() {
        let check = |requests: &[(u64, i32)], copy: (u64, i32), expect: bool| {
            let mut heard = Heard::default();
            for (connection, id) in requests {
                assert_eq!(heard.hear(Concern::Transaction, at(*connection, *id)), Ok(()), "{requests:?}");
            }
            let found = heard.hear(Concern::Transaction, at(copy.0, copy.1));
            assert_eq!(found.is_ok(), expect, "{requests:?} {copy:?}");
        };
        check(&[], (7, 0), true);
        check(&[(7, 5)], (7, 6), true);
        check(&[(7, 5)], (7, 5), false);
        check(&[(7, 5)], (7, 4), false);
        check(&[(7, 5)], (6, 9), false);
        check(&[(7, 5)], (8, 1), true);
        check(&[(7, 5), (8, 1)], (7, 6), false);
        // Java and librdkafka go on at the lowest number, others at 0.
        check(&[(7, i32::MAX)], (7, i32::MIN), true);
        check(&[(7, i32::MAX - 8)], (7, i32::MIN), true);
        check(&[(7, i32::MAX)], (7, 0), true);
        check(&[(7, i32::MAX), (7, 0)], (7, 1), true);
        check(&[(7, i32::MAX), (7, i32::MIN)], (7, i32::MAX), false);
        check(&[(7, -1)], (7, 0), true);
        check(&[(7, 1)], (7, -1), false);
    }

    #[test]
    fn each_concern_has_its_own_connection() {
        let mut heard = Heard::default();
        for (concern, connection) in
            [(Concern::Producer, 9), (Concern::Offsets, 5), (Concern::Transaction, 3)]
        {
            assert_eq!(heard.hear(concern, at(connection, 1)), Ok(()));
            assert_eq!(heard.hear(concern, None), Ok(()), "the broker's own");
        }
        assert_eq!(heard.hear(Concern::Transaction, at(3, 2)), Ok(()));
        assert_eq!(heard.hear(Concern::Offsets, at(3, 3)), Err(Passed));
        // Another process takes over, connected before this one was.
        assert_eq!(heard.hear(Concern::Producer, at(1, 1)), Ok(()));
        assert_eq!(heard.hear(Concern::Producer, at(1, 1)), Err(Passed), "but not twice by one request");
        heard.start_anew();
        assert_eq!(heard.hear(Concern::Transaction, at(1, 2)), Ok(()));
        assert_eq!(heard.hear(Concern::Offsets, at(1, 3)), Ok(()));
        assert_eq!(heard.hear(Concern::Producer, at(1, 1)), Err(Passed));
    }
}
