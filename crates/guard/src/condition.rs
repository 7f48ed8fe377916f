//! Writes that say themselves whether they were done: for effects that need no guard, or have none.

use std::future::Future;

use thiserror::Error;

/// What a conditional write found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It changed what was to be changed.
    Applied,
    /// It changed nothing, since it, or something later, was applied before. Acknowledge the message.
    AlreadyApplied,
    /// It changed nothing, since something earlier is still missing. Try again later, or park the key.
    NotYet,
    /// It changed nothing and never will: somebody else did something that excludes it. A person, or the business, must decide.
    Conflict,
}

/// A conditional write could not be judged.
#[derive(Debug, Error)]
pub enum ConditionError<E: std::error::Error + 'static> {
    /// The store's own error.
    #[error(transparent)]
    Store(#[from] E),
    /// More than one row was changed: the statement does not name its row by a unique key. Roll back.
    #[error("a conditional write changed {0} rows: its WHERE must name one row by a unique key")]
    ManyRows(u64),
}

/// A write under a version number (optimistic lock): `UPDATE .. SET .., version = version + 1 WHERE id = ? AND version = ?`.
///
/// A statement that changed no row says nothing by itself: the message may be a copy, may be early, or somebody else may have been
/// quicker. These are told apart by the version that is there now, which is read only then.
///
/// # Failure window
///
/// None by itself: the write is one statement. It remembers the newest version only, so what came before it is told from what
/// came from somebody else by nothing but its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    expected: u64,
    carried: bool,
}

impl Version {
    /// The message carries the version that it makes (from 1): the row must be at the one before. Later versions include this
    /// one, as in state transfer and event sourcing.
    pub fn carried(makes: u64) -> Self {
        Self { expected: makes.saturating_sub(1), carried: true }
    }

    /// The handler has read this version and writes on the condition that it is still there. Whether a higher one came from
    /// a copy of this message or from somebody else cannot be known, so it is a [`Verdict::Conflict`]: read again, decide again,
    /// or use an [`crate::Inbox`].
    pub fn read(version: u64) -> Self {
        Self { expected: version, carried: false }
    }

    /// The version for the statement's `WHERE`. What it sets is one more.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// What the write did, given how many rows it changed and the version that is there now (`None`: no such row).
    pub fn judge<E: std::error::Error>(&self, changed: u64, now: Option<u64>) -> Result<Verdict, ConditionError<E>> {
        match (changed, now) {
            (1, _) => Ok(Verdict::Applied),
            (2.., _) => Err(ConditionError::ManyRows(changed)),
            (0, Some(now)) if self.carried && now > self.expected => Ok(Verdict::AlreadyApplied),
            (0, Some(now)) if now < self.expected => Ok(Verdict::NotYet),
            (0, None) if self.carried => Ok(Verdict::NotYet),
            (0, _) => Ok(Verdict::Conflict),
        }
    }

    /// Runs the write, and if it changed no row, the look at what is there.
    ///
    /// Both belong into one transaction. Under `READ COMMITTED` another may change the row between the two; then the verdict
    /// is about the later state, which is still right.
    pub async fn apply<W, L, E>(&self, write: W, look: impl FnOnce() -> L) -> Result<Verdict, ConditionError<E>>
    where
        W: Future<Output = Result<u64, E>>,
        L: Future<Output = Result<Option<u64>, E>>,
        E: std::error::Error + 'static,
    {
        match write.await? {
            0 => self.judge(0, look().await?),
            changed => self.judge(changed, None),
        }
    }
}

/// A write that moves a row from one state to another: `UPDATE .. SET state = 'paid' WHERE id = ? AND state = 'new'`, or from one
/// balance to another: `SET balance = 70 WHERE id = ? AND balance = 100`.
///
/// # Failure window
///
/// None by itself. It recognises its own copy by the state alone, so it is right only where a state is not come back to: `new`,
/// `paid`, `shipped` is such a way; a balance that goes 100, 70, 100 is not, and there a late copy of the first step is applied
/// **again**. For those carry a version, or use an [`crate::Inbox`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<T> {
    before: T,
    after: T,
    way: Vec<T>,
}

impl<T: PartialEq + Clone> Condition<T> {
    /// From one state to another.
    pub fn from_to(before: T, after: T) -> Self {
        Self { way: vec![before.clone(), after.clone()], before, after }
    }

    /// All the states that a row goes through, in order. What is before `before` is [`Verdict::NotYet`], what is after `after` has
    /// been through it and is [`Verdict::AlreadyApplied`], and only what is not on the way at all is a conflict.
    pub fn along(mut self, way: impl IntoIterator<Item = T>) -> Self {
        self.way = way.into_iter().collect();
        self
    }

    /// The state for the statement's `WHERE`.
    pub fn before(&self) -> &T {
        &self.before
    }

    /// The state that it sets.
    pub fn after(&self) -> &T {
        &self.after
    }

    /// What the write did, given how many rows it changed and the state that is there now (`None`: no such row).
    pub fn judge<E: std::error::Error>(&self, changed: u64, now: Option<&T>) -> Result<Verdict, ConditionError<E>> {
        let place = |of: &T| self.way.iter().position(|state| state == of);
        match (changed, now) {
            (1, _) => Ok(Verdict::Applied),
            (2.., _) => Err(ConditionError::ManyRows(changed)),
            (0, None) => Ok(Verdict::NotYet),
            (0, Some(now)) if *now == self.after => Ok(Verdict::AlreadyApplied),
            (0, Some(now)) => Ok(match (place(now), place(&self.before), place(&self.after)) {
                (Some(now), _, Some(after)) if now > after => Verdict::AlreadyApplied,
                // At the state before: another was quicker with the write and was rolled back, or has come back to it.
                (Some(now), Some(before), _) if now <= before => Verdict::NotYet,
                _ => Verdict::Conflict,
            }),
        }
    }

    /// Runs the write, and if it changed no row, the look at what is there.
    pub async fn apply<W, L, E>(&self, write: W, look: impl FnOnce() -> L) -> Result<Verdict, ConditionError<E>>
    where
        W: Future<Output = Result<u64, E>>,
        L: Future<Output = Result<Option<T>, E>>,
        E: std::error::Error + 'static,
    {
        match write.await? {
            0 => self.judge(0, look().await?.as_ref()),
            changed => self.judge(changed, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: Version, changed: u64, now: Option<u64>) -> Verdict {
        version.judge::<std::io::Error>(changed, now).unwrap()
    }

    #[test]
    fn a_carried_version_tells_copies_from_early_ones() {
        let third = Version::carried(3);
        assert_eq!(third.expected(), 2);
        assert_eq!(version(third, 1, None), Verdict::Applied);
        assert_eq!(version(third, 0, Some(3)), Verdict::AlreadyApplied);
        assert_eq!(version(third, 0, Some(9)), Verdict::AlreadyApplied);
        assert_eq!(version(third, 0, Some(1)), Verdict::NotYet);
        assert_eq!(version(third, 0, None), Verdict::NotYet);
    }

    #[test]
    fn a_version_that_was_read_and_has_moved_is_a_conflict() {
        assert_eq!(version(Version::read(2), 0, Some(3)), Verdict::Conflict);
        assert_eq!(version(Version::read(2), 0, None), Verdict::Conflict);
        assert_eq!(version(Version::read(2), 1, None), Verdict::Applied);
    }

    #[test]
    fn a_state_on_the_way_is_told_from_one_that_is_not() {
        let pay = Condition::from_to("new", "paid").along(["draft", "new", "paid", "shipped"]);
        let judge = |now: Option<&&'static str>| pay.judge::<std::io::Error>(0, now).unwrap();
        assert_eq!(judge(Some(&"paid")), Verdict::AlreadyApplied);
        assert_eq!(judge(Some(&"shipped")), Verdict::AlreadyApplied);
        assert_eq!(judge(Some(&"draft")), Verdict::NotYet);
        assert_eq!(judge(Some(&"cancelled")), Verdict::Conflict);
        assert_eq!(judge(None), Verdict::NotYet);
    }

    #[test]
    fn a_balance_that_somebody_else_moved_is_a_conflict() {
        let spend = Condition::from_to(100, 70);
        assert_eq!(spend.judge::<std::io::Error>(0, Some(&70)).unwrap(), Verdict::AlreadyApplied);
        assert_eq!(spend.judge::<std::io::Error>(0, Some(&40)).unwrap(), Verdict::Conflict);
    }

    #[test]
    fn more_than_one_row_is_an_error_and_not_success() {
        assert!(matches!(Version::read(1).judge::<std::io::Error>(2, None), Err(ConditionError::ManyRows(2))));
        assert!(matches!(Condition::from_to(1, 2).judge::<std::io::Error>(7, None), Err(ConditionError::ManyRows(7))));
    }
}
