//! Things that are found by ids which are never used twice, without hashing: looked up several times for each message.

use std::marker::PhantomData;

/// Names something in an arena. Whoever comes late with one of something that is gone finds nothing, whatever lies there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    /// Counts up, so that ids are in the order in which they were given.
    serial: u64,
    slot: u32,
}

/// What a slot without anything in it answers to: no serial number is 0.
const EMPTY: u64 = 0;

/// Things by id. Slots that became free are used again, the last one first, while the processor still has it at hand.
#[derive(Debug)]
pub(super) struct Arena<K, V> {
    slots: Vec<(u64, Option<V>)>,
    free: Vec<u32>,
    last_serial: u64,
    ids: PhantomData<K>,
}

impl<K, V> Default for Arena<K, V> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), last_serial: EMPTY, ids: PhantomData }
    }
}

impl<K: From<Id> + Into<Id> + Copy, V> Arena<K, V> {
    pub fn insert(&mut self, value: V) -> K {
        self.last_serial += 1;
        let serial = self.last_serial;
        if let Some(slot) = self.free.pop()
            && let Some(free) = self.slots.get_mut(slot as usize)
        {
            *free = (serial, Some(value));
            return Id { serial, slot }.into();
        }
        // Fewer than 2^32: each takes dozens of bytes of memory, which limits in settings bound.
        let slot = self.slots.len() as u32;
        self.slots.push((serial, Some(value)));
        Id { serial, slot }.into()
    }

    pub fn get(&self, id: &K) -> Option<&V> {
        let Id { serial, slot } = (*id).into();
        self.slots.get(slot as usize).filter(|(in_it, _)| *in_it == serial)?.1.as_ref()
    }

    pub fn get_mut(&mut self, id: &K) -> Option<&mut V> {
        let Id { serial, slot } = (*id).into();
        self.slots.get_mut(slot as usize).filter(|(in_it, _)| *in_it == serial)?.1.as_mut()
    }

    pub fn contains_key(&self, id: &K) -> bool {
        self.get(id).is_some()
    }

    pub fn remove(&mut self, id: &K) -> Option<V> {
        let Id { serial, slot } = (*id).into();
        let found = self.slots.get_mut(slot as usize).filter(|(in_it, _)| *in_it == serial)?;
        found.0 = EMPTY;
        self.free.push(slot);
        found.1.take()
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.slots.iter().enumerate().filter_map(|(slot, (serial, value))| {
            Some((Id { serial: *serial, slot: slot as u32 }.into(), value.as_ref()?))
        })
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, (serial, value))| {
            Some((Id { serial: *serial, slot: slot as u32 }.into(), value.as_mut()?))
        })
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(id, _)| id)
    }

    pub fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        let gone: Vec<K> = self.iter().filter(|(_, value)| !keep(value)).map(|(id, _)| id).collect();
        gone.iter().for_each(|id| drop(self.remove(id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_something_that_is_gone_finds_nothing_of_what_came_after_it() {
        let mut arena: Arena<Id, &str> = Arena::default();
        let (one, two) = (arena.insert("one"), arena.insert("two"));
        assert_eq!((arena.remove(&one), arena.remove(&one)), (Some("one"), None));
        let three = arena.insert("three");
        assert_eq!(three.slot, one.slot, "the slot is used again");
        assert!(arena.get(&one).is_none() && arena.get_mut(&one).is_none() && arena.remove(&one).is_none());
        assert_eq!((arena.get(&two), arena.get(&three), arena.len()), (Some(&"two"), Some(&"three"), 2));
        assert!(one < two && two < three, "ids are in the order in which they were given");
        arena.retain(|value| *value != "two");
        assert_eq!(arena.iter().collect::<Vec<_>>(), [(three, &"three")]);
    }
}
