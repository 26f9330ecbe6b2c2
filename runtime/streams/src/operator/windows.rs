//! What windows there are, and when they close.

/// Windows that one row may be in: each of them is read and written.
pub const MAX_WINDOWS_PER_ROW: i64 = 1_000;
/// The longest length of time: 35,000 years.
pub const MAX_MS: i64 = 1 << 50;
/// The last timestamp that is a time. With it, sums of a time and a few lengths do not overflow.
pub const MAX_TIMESTAMP: i64 = 1 << 60;

/// Which rows of a key belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowSpec {
    /// One after the other; the first begins in 1970. A size and no advance is a hopping window that advances by its
    /// size.
    Hopping {
        /// How long one is.
        size_ms: i64,
        /// How much later the next one begins.
        advance_ms: i64,
    },
    /// For each row the one that ends with it, and the one that begins behind it if there are rows in it.
    Sliding {
        /// The largest difference of times in one.
        size_ms: i64,
    },
    /// Rows with less between them than a gap.
    Session {
        /// The largest difference of neighbours in one.
        gap_ms: i64,
    },
}

/// When results are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Emit {
    /// With each row that changes one.
    #[default]
    OnUpdate,
    /// Once, when the window closes.
    OnClose,
}

/// What becomes of rows that come too late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Late {
    /// They are dropped, and counted.
    #[default]
    Drop,
    /// They leave by [`LATE`], as they came, and are counted.
    Emit,
}

/// The output for results.
pub const RESULTS: usize = 0;
/// The output for rows that came too late.
pub const LATE: usize = 1;

/// When a window closes, and what happens then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Closing {
    /// How long after its end a window takes rows in.
    pub grace_ms: i64,
    /// When results are sent.
    pub emit: Emit,
    /// What becomes of late rows.
    pub late: Late,
    /// How long after its end a result stays for readers. Less than `grace_ms` is as long as that.
    pub retention_ms: i64,
}

/// Windows that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A length that must be at least `least`.
    #[error("`{what}` is {ms} ms, and must be {least} to {MAX_MS} ms")]
    Length {
        /// Which.
        what: &'static str,
        /// What it is.
        ms: i64,
        /// What it may be.
        least: i64,
    },
    /// Rows between two windows.
    #[error(
        "windows of {size_ms} ms that advance by {advance_ms} ms leave gaps: advance by at most their size"
    )]
    Gaps {
        /// The size.
        size_ms: i64,
        /// The advance.
        advance_ms: i64,
    },
    /// Too many at once.
    #[error("a row would be in {0} windows, and may be in {MAX_WINDOWS_PER_ROW}: advance by more")]
    TooMany(i64),
}

impl WindowSpec {
    /// Whether there can be such windows.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, closing: &Closing) -> Result<(), WindowError> {
        let length = |what, ms: i64, least| {
            (least..=MAX_MS).contains(&ms).then_some(()).ok_or(WindowError::Length { what, ms, least })
        };
        length("grace", closing.grace_ms, 0)?;
        length("retention", closing.retention_ms, 0)?;
        match *self {
            WindowSpec::Hopping { size_ms, advance_ms } => {
                length("size", size_ms, 1)?;
                length("advance", advance_ms, 1)?;
                if advance_ms > size_ms {
                    return Err(WindowError::Gaps { size_ms, advance_ms });
                }
                let windows = (size_ms + advance_ms - 1) / advance_ms;
                (windows <= MAX_WINDOWS_PER_ROW).then_some(()).ok_or(WindowError::TooMany(windows))
            }
            WindowSpec::Sliding { size_ms } => length("size", size_ms, 1),
            WindowSpec::Session { gap_ms } => length("gap", gap_ms, 0),
        }
    }
}

impl Closing {
    /// How long after its end a window is forgotten.
    pub(super) fn kept_ms(&self) -> i64 {
        self.grace_ms.max(self.retention_ms)
    }

    /// Whether it is kept for readers when it is closed.
    pub(super) fn is_kept(&self) -> bool {
        self.retention_ms > self.grace_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_cannot_be() {
        let closing = Closing::default();
        let hopping = |size_ms, advance_ms| WindowSpec::Hopping { size_ms, advance_ms }.check(&closing);
        assert_eq!(hopping(10, 10), Ok(()));
        assert_eq!(hopping(1000, 1), Ok(()));
        assert_eq!(hopping(1001, 1), Err(WindowError::TooMany(1001)));
        assert_eq!(hopping(10, 11), Err(WindowError::Gaps { size_ms: 10, advance_ms: 11 }));
        assert_eq!(hopping(0, 1), Err(WindowError::Length { what: "size", ms: 0, least: 1 }));
        let session = WindowSpec::Session { gap_ms: 0 };
        assert_eq!(session.check(&closing), Ok(()));
        let grace = Closing { grace_ms: -1, ..closing };
        assert_eq!(session.check(&grace), Err(WindowError::Length { what: "grace", ms: -1, least: 0 }));
        assert!(WindowSpec::Sliding { size_ms: MAX_MS + 1 }.check(&closing).is_err());
    }
}
