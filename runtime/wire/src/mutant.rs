//! Seeded bugs, to show that the tests find such bugs. The product has none of this: without the feature `mutants`
//! [`Mutant::is_on`] is a constant false, and what it guards is not compiled into anything.
//!
//! With the feature, the environment variable `PELTON_MUTANT` names the one that is on; without the variable none is. The
//! first time that the running code comes by it, `mutant <name> met` goes to standard error. What each of them
//! breaks, and which test finds it, is in `tests/mutants.tsv`; `tests/mutants.py` runs them.

/// The exit code for a name that no mutant has: no test fails with it, so that a typing error is not taken for a find.
#[cfg(feature = "mutants")]
const NO_SUCH_MUTANT: i32 = 64;

macro_rules! mutants {
    ($($variant:ident = $name:literal,)+) => {
        /// A seeded bug. `tests/mutants.tsv` says what it breaks.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the table has them")]
        pub enum Mutant { $($variant,)+ }

        #[cfg(any(feature = "mutants", test))]
        impl Mutant {
            const ALL: &[(Mutant, &str)] = &[$((Mutant::$variant, $name),)+];
        }
    };
}

mutants! {
    // The transaction coordinator.
    EndBeforeSync = "end-before-sync",
    RepeatedEndBeforeSync = "repeated-end-before-sync",
    InitBeforeSync = "init-before-sync",
    DecisionNotWritten = "decision-not-written",
    DecisionForgotten = "decision-forgotten",
    MarkerLeftOut = "marker-left-out",
    CoordinatorFencing = "coordinator-fencing",
    InitKeepsOpen = "init-keeps-open",
    TimeOutKeepsEpoch = "time-out-keeps-epoch",
    TimeOutNever = "time-out-never",
    OpenExpires = "open-expires",
    PartitionsUnchecked = "partitions-unchecked",
    LateEndAccepted = "late-end-accepted",
    FormerAsksAgain = "former-asks-again",
    OlderTakenForNewer = "older-taken-for-newer",
    CopyAccepted = "copy-accepted",
    // A partition.
    ProduceBeforeSync = "produce-before-sync",
    DuplicateBeforeOriginal = "duplicate-before-original",
    MarkersUnsynced = "markers-unsynced",
    WatermarkBeforeSync = "watermark-before-sync",
    StableIgnoresOpen = "stable-ignores-open",
    StableAtAppend = "stable-at-append",
    StableBelowStart = "stable-below-start",
    EarlyPassesMarker = "early-passes-marker",
    StableIsWatermark = "stable-is-watermark",
    PartitionFencing = "partition-fencing",
    MarkerFencing = "marker-fencing",
    SequencesUnchecked = "sequences-unchecked",
    DuplicateAppended = "duplicate-appended",
    DuplicateOfEnded = "duplicate-of-ended",
    AbortedNotIndexed = "aborted-not-indexed",
    AbortedNotRebuilt = "aborted-not-rebuilt",
    AbortedNotTold = "aborted-not-told",
    AbortedNameUnsynced = "aborted-name-unsynced",
    // The journal and recovery.
    TornGroupAccepted = "torn-group-accepted",
    OldEpochJoined = "old-epoch-joined",
    TailKept = "tail-kept",
    NewerSnapshotTrusted = "newer-snapshot-trusted",
    CheckpointBeforeSegments = "checkpoint-before-segments",
    FilesBeforeLogStart = "files-before-log-start",
    TransactionKept = "transaction-kept",
    RoomNotTaken = "room-not-taken",
    // The cleaner.
    CleansUnsettled = "cleans-unsettled",
    CleansPastStable = "cleans-past-stable",
    CleanedUnsynced = "cleaned-unsynced",
    SwapUncommitted = "swap-uncommitted",
    CleanedToBeforeSwap = "cleaned-to-before-swap",
    AbortedKeysCount = "aborted-keys-count",
    TombstonesAtOnce = "tombstones-at-once",
    IndexOfAnotherClean = "index-of-another-clean",
    // The group coordinator.
    OffsetsBeforeSync = "offsets-before-sync",
    OffsetsAtOnce = "offsets-at-once",
    OffsetsOnAbort = "offsets-on-abort",
    OlderOffsetWins = "older-offset-wins",
    PendingCountsAtReplay = "pending-counts-at-replay",
    GenerationUnchecked = "generation-unchecked",
    SnapshotForgetsPending = "snapshot-forgets-pending",
    SnapshotOvertakes = "snapshot-overtakes",
    // Pipelines.
    OffsetsBeforeOutputs = "offsets-before-outputs",
    OffsetsBesideTransaction = "offsets-beside-transaction",
    HalfStepCommitted = "half-step-committed",
    FailedAppendPassed = "failed-append-passed",
    FailedCommitPassed = "failed-commit-passed",
    AbortedInputRead = "aborted-input-read",
    OpenInputRead = "open-input-read",
    TakeOverKeepsOpen = "take-over-keeps-open",
    AbandonKeepsOpen = "abandon-keeps-open",
    // State.
    OpenTakenOver = "open-taken-over",
    ChangelogNotWritten = "changelog-not-written",
    RestoreSkipped = "restore-skipped",
    RestoreEndsEarly = "restore-ends-early",
    HalfRestoreFresh = "half-restore-fresh",
    AbsenceIgnored = "absence-ignored",
    OtherChangelogTrusted = "other-changelog-trusted",
    DamagedKept = "damaged-kept",
    GoneUnkept = "gone-unkept",
    RedriveLeftOpen = "redrive-left-open",
    RedrivePositionApart = "redrive-position-apart",
    // What may be deployed.
    AllowListSkipped = "allow-list-skipped",
    RollbackUnchecked = "rollback-unchecked",
    MovedKeysAccepted = "moved-keys-accepted",
    UndoForgotten = "undo-forgotten",
    FailedCallKept = "failed-call-kept",
    PlacedBeyond = "placed-beyond",
    // A server-side partitioner.
    OffsetsApart = "offsets-apart",
    PendingPassed = "pending-passed",
    UndecidedPassed = "undecided-passed",
    RoutedByPartition = "routed-by-partition",
    PlacesBehind = "places-behind",
    NewerTakenOver = "newer-taken-over",
    PositionNotMoved = "position-not-moved",
    DamageNotTold = "damage-not-told",
    // Operators.
    StreamTimeForgotten = "stream-time-forgotten",
    WindowClosesLate = "window-closes-late",
    FinalTwice = "final-twice",
    SessionsApart = "sessions-apart",
    RepeatForgotten = "repeat-forgotten",
    MatchedEmittedAlone = "matched-emitted-alone",
    NothingSubtracted = "nothing-subtracted",
    SubtractLeftOut = "subtract-left-out",
    TimersForgotten = "timers-forgotten",
    OlderVersionForwarded = "older-version-forwarded",
    MembersKept = "members-kept",
    UngroupedStands = "ungrouped-stands",
    StaleAnswerTaken = "stale-answer-taken",
    // Tables.
    TombstonePassed = "tombstone-passed",
    MarksNotWritten = "marks-not-written",
    MarkAhead = "mark-ahead",
    OtherTopicTrusted = "other-topic-trusted",
    LongAwayTrusted = "long-away-trusted",
    LiveTooEarly = "live-too-early",
    LaterStoreWins = "later-store-wins",
    FollowSkipsOne = "follow-skips-one",
    BudgetIgnored = "budget-ignored",
    LateFollowed = "late-followed",
    CopyTooEarly = "copy-too-early",
    CopyCacheKept = "copy-cache-kept",
    SlowRestoreTrusted = "slow-restore-trusted",
    // Lanes.
    SlowReaderWaitedFor = "slow-reader-waited-for",
    LanesOverlap = "lanes-overlap",
    LanesLeftOpen = "lanes-left-open",
    // Plugins that act on the outside.
    AheadCommitted = "ahead-committed",
    KeysPassEachOther = "keys-pass-each-other",
    AddressesUnchecked = "addresses-unchecked",
}

impl Mutant {
    /// Whether the code is to have this bug.
    #[cfg(not(feature = "mutants"))]
    #[must_use]
    #[inline]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether the code is to have this bug.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn is_on(self) -> bool {
        use std::sync::atomic::{AtomicBool, Ordering};

        static MET: AtomicBool = AtomicBool::new(false);
        let on = chosen().is_some_and(|(mutant, _)| mutant == self);
        if on && !MET.swap(true, Ordering::Relaxed) {
            say(&format!("mutant {} met", chosen().map_or("", |(_, name)| name)));
        }
        on
    }
}

#[cfg(feature = "mutants")]
fn chosen() -> Option<(Mutant, &'static str)> {
    use std::sync::OnceLock;

    static CHOSEN: OnceLock<Option<(Mutant, &'static str)>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let wanted = std::env::var("PELTON_MUTANT").ok()?;
        let found = Mutant::ALL.iter().find(|(_, name)| *name == wanted);
        if found.is_none() {
            say(&format!("PELTON_MUTANT: there is no mutant `{wanted}`"));
            std::process::exit(NO_SUCH_MUTANT);
        }
        found.copied()
    })
}

/// To standard error itself: a test's output is kept from it.
#[cfg(feature = "mutants")]
fn say(line: &str) {
    use std::io::Write;

    // Who cannot be told does without.
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_mutant_once_and_no_other() {
        let table = include_str!("../../../tests/mutants.tsv");
        let rows = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let listed: Vec<&str> = rows.map(|row| row.split('\t').next().unwrap_or_default()).collect();
        let seeded: Vec<&str> = Mutant::ALL.iter().map(|(_, name)| *name).collect();
        assert_eq!(listed, seeded);
    }

    #[test]
    fn without_the_feature_none_is_on() {
        let on = Mutant::ALL.iter().filter(|(mutant, _)| mutant.is_on()).count();
        assert!(on == 0 || cfg!(feature = "mutants"), "{on}");
    }
}
