//! Rows that were found and wait for their claim.

use std::collections::{HashSet, VecDeque};

use super::Row;

#[derive(Debug)]
pub(super) struct Waiting<T> {
    rows: VecDeque<Row<T>>,
    positions: HashSet<i64>,
    bytes: usize,
    weigh: fn(&T) -> usize,
}

impl<T> Waiting<T> {
    pub(super) fn new(weigh: fn(&T) -> usize) -> Self {
        Self { rows: VecDeque::new(), positions: HashSet::new(), bytes: 0, weigh }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn weigh(&self, row: &Row<T>) -> usize {
        (self.weigh)(&row.item)
    }

    pub(super) fn contains(&self, position: i64) -> bool {
        self.positions.contains(&position)
    }

    /// Behind all that are there.
    pub(super) fn push(&mut self, row: Row<T>) {
        self.bytes += self.weigh(&row);
        self.positions.insert(row.position);
        self.rows.push_back(row);
    }

    /// The first of them; to be given to [`Waiting::keep`] or [`Waiting::leave`].
    pub(super) fn pop(&mut self) -> Option<Row<T>> {
        self.rows.pop_front()
    }

    /// It waits no more.
    pub(super) fn leave(&mut self, row: &Row<T>) {
        self.positions.remove(&row.position);
        self.bytes -= self.weigh(row);
    }

    /// These were popped, and go on waiting before all others.
    pub(super) fn keep(&mut self, mut rows: VecDeque<Row<T>>) {
        rows.append(&mut self.rows);
        self.rows = rows;
    }

    pub(super) fn remove(&mut self, left: impl Fn(&Row<T>) -> bool) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.retain(|row| {
            let left = left(row);
            if left {
                self.leave(row);
            }
            !left
        });
        self.rows = rows;
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.positions.clear();
        self.bytes = 0;
    }
}
