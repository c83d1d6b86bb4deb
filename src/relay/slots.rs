//! A slab whose keys go stale: each slot counts its occupants, and a key is good for one of them.

use super::event_loop::{GENERATION_MASK, Key};

/// Things in stable places, found by [`Key`] in constant time.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<Entry<T>>,
    /// Head of the list of free entries.
    free: Option<u32>,
    occupied: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Occupied(T),
    Free { next: Option<u32> },
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slots<T> {
    /// Empty; allocates nothing.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: None,
            occupied: 0,
        }
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.occupied
    }

    /// Nothing is there.
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Finds a place for what `make` makes of its key.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        self.occupied += 1;
        let free = self
            .free
            .and_then(|slot| Some((slot, self.entries.get_mut(slot as usize)?)));
        if let Some((slot, entry)) = free {
            let key = Key {
                slot,
                generation: entry.generation,
            };
            let before = std::mem::replace(&mut entry.state, State::Occupied(make(key)));
            self.free = match before {
                State::Free { next } => next,
                // Not reached: the list holds free entries only.
                State::Occupied(_) => None,
            };
            return key;
        }
        // Descriptors run out long before 2^32 entries.
        let key = Key::fixed(self.entries.len() as u32);
        self.entries.push(Entry {
            generation: 0,
            state: State::Occupied(make(key)),
        });
        key
    }

    /// Finds a place.
    pub fn insert(&mut self, thing: T) -> Key {
        self.insert_with(|_| thing)
    }

    /// The occupant that `key` was given for, if it is still there.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.entries.get(key.slot as usize) {
            Some(Entry {
                generation,
                state: State::Occupied(thing),
            }) if *generation == key.generation => Some(thing),
            Some(_) | None => None,
        }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.slot as usize) {
            Some(Entry {
                generation,
                state: State::Occupied(thing),
            }) if *generation == key.generation => Some(thing),
            Some(_) | None => None,
        }
    }

    /// Takes it out; its key is stale from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        if entry.generation != key.generation || matches!(entry.state, State::Free { .. }) {
            return None;
        }
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        let before = std::mem::replace(&mut entry.state, State::Free { next: self.free });
        self.free = Some(key.slot);
        self.occupied -= 1;
        match before {
            State::Occupied(thing) => Some(thing),
            State::Free { .. } => None,
        }
    }

    /// Every occupant with its key.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(slot, entry)| match &entry.state {
                State::Occupied(thing) => Some((
                    Key {
                        slot: slot as u32,
                        generation: entry.generation,
                    },
                    thing,
                )),
                State::Free { .. } => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_keys_find_nothing() {
        let mut slots = Slots::new();
        let a = slots.insert("a");
        let b = slots.insert("b");
        assert_eq!(slots.remove(a), Some("a"));
        assert_eq!(slots.remove(a), None);
        let c = slots.insert("c");
        assert_eq!(c.slot, a.slot);
        assert_eq!(slots.get(a), None);
        assert_eq!(slots.get(b), Some(&"b"));
        assert_eq!(slots.get_mut(c), Some(&mut "c"));
        assert_eq!(slots.len(), 2);
        assert_eq!(slots.iter().count(), 2);
    }

    #[test]
    fn places_are_used_again() {
        let mut slots = Slots::new();
        for round in 0..3 {
            let keys: Vec<_> = (0..100).map(|n| slots.insert(n + round)).collect();
            assert!(keys.iter().all(|key| key.slot < 100));
            for key in keys {
                slots.remove(key);
            }
        }
        assert!(slots.is_empty());
    }
}
