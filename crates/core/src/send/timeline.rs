use super::Entry;

/// Where an entry stands in its line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Links {
    before: Option<usize>,
    after: Option<usize>,
    /// It stands in the line of those that the engine has beyond their deadline.
    pub(super) overdue: bool,
}

/// Entries in the order of their deadlines, which for most is that in which they came. A list within the entries: one that ends leaves the
/// line at once, wherever it stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timeline {
    first: Option<usize>,
    last: Option<usize>,
    /// The last one that did not go to the end. Those that waited elsewhere come together and in order: the next one belongs close to it.
    inserted: Option<usize>,
}

impl Timeline {
    pub(super) fn push<T>(&mut self, entries: &mut [Option<Entry<T>>], slot: usize) {
        link(entries, slot, |links| (links.before, links.after) = (self.last, None));
        match self.last {
            Some(last) => link(entries, last, |links| links.after = Some(slot)),
            None => self.first = Some(slot),
        }
        self.last = Some(slot);
    }

    /// Puts an entry where its deadline belongs; behind those that have the same.
    pub(super) fn insert<T>(&mut self, entries: &mut [Option<Entry<T>>], slot: usize) {
        let deadline_ms = |slot: usize| entries[slot].as_ref().map(|entry| entry.deadline_ms);
        let neighbour = |slot: usize, which: fn(&Links) -> Option<usize>| {
            entries[slot].as_ref().and_then(|entry| which(&entry.links))
        };
        let ours = deadline_ms(slot);
        if self.last.is_none_or(|last| deadline_ms(last) <= ours) {
            return self.push(entries, slot);
        }
        let mut before = self.inserted.or(self.last);
        while let Some(earlier) = before.filter(|before| deadline_ms(*before) > ours) {
            before = neighbour(earlier, |links| links.before);
        }
        let next = |before: Option<usize>| match before {
            Some(before) => neighbour(before, |links| links.after),
            None => self.first,
        };
        while let Some(later) = next(before).filter(|next| deadline_ms(*next) <= ours) {
            before = Some(later);
        }
        let after = next(before);
        link(entries, slot, |links| (links.before, links.after) = (before, after));
        match before {
            Some(before) => link(entries, before, |links| links.after = Some(slot)),
            None => self.first = Some(slot),
        }
        if let Some(after) = after {
            link(entries, after, |links| links.before = Some(slot));
        }
        self.inserted = Some(slot);
    }

    pub(super) fn remove<T>(&mut self, entries: &mut [Option<Entry<T>>], slot: usize) {
        let Some(Links { before, after, .. }) = entries[slot].as_ref().map(|entry| entry.links) else { return };
        if self.inserted == Some(slot) {
            self.inserted = before;
        }
        match before {
            Some(before) => link(entries, before, |links| links.after = after),
            None => self.first = after,
        }
        match after {
            Some(after) => link(entries, after, |links| links.before = before),
            None => self.last = before,
        }
    }

    /// The deadline of the first.
    pub(super) fn first_ms<T>(&self, entries: &[Option<Entry<T>>]) -> Option<u64> {
        entries[self.first?].as_ref().map(|entry| entry.deadline_ms)
    }

    /// The first, if its deadline has come.
    pub(super) fn first_until<T>(&self, entries: &[Option<Entry<T>>], until_ms: u64) -> Option<usize> {
        self.first.filter(|_| self.first_ms(entries).is_some_and(|deadline_ms| deadline_ms <= until_ms))
    }

    /// All of them, in order.
    pub(super) fn slots<T>(&self, entries: &[Option<Entry<T>>]) -> Vec<usize> {
        let after = |slot: &usize| entries[*slot].as_ref().and_then(|entry| entry.links.after);
        std::iter::successors(self.first, after).collect()
    }
}

fn link<T>(entries: &mut [Option<Entry<T>>], slot: usize, change: impl FnOnce(&mut Links)) {
    if let Some(entry) = entries[slot].as_mut() {
        change(&mut entry.links);
    }
}
