//! What is left when a producer is closed.

use super::receipt::SendError;

/// How many unsent messages [`Closed`] names; beyond that they are counted.
pub const UNSENT_NAMED_MAX: usize = 1_000;

/// What a producer leaves behind.
#[derive(Debug, Clone, Default)]
#[must_use = "it says what was not sent"]
pub struct Closed {
    /// Messages that had not ended when it was closed, and that were given up for it: at most [`UNSENT_NAMED_MAX`] of them. Each
    /// says whether it could be stored.
    pub unsent: Vec<SendError>,
    /// How many those were in all.
    pub unsent_count: u64,
    /// How many messages failed in its life whose senders did not look.
    pub abandoned: u64,
    /// Messages that are in the spool: they go on when a producer opens the same spool again.
    pub spooled: u64,
    /// Whether the last evidence is stored. If not, an auditor takes what was in flight for open.
    pub evidence_stored: bool,
}

impl Closed {
    /// Whether nothing was left behind.
    pub fn is_clean(&self) -> bool {
        self.unsent_count == 0 && self.abandoned == 0 && self.spooled == 0
    }

    pub(super) fn name(&mut self, error: &SendError) {
        self.unsent_count += 1;
        if self.unsent.len() < UNSENT_NAMED_MAX {
            self.unsent.push(error.clone());
        }
    }
}
