//! The answered attempts of a round, in a set made for millions of ids.

use std::fmt;

use schemas::ids::AttemptId;

/// Attempts that were answered, 21 to 43 bytes each.
///
/// A large set consists of many tables, chosen by an id's first bits. Each grows on its own and
/// fits into the processor's cache, so that no attempt waits until millions have moved to their
/// new slots, and a set filled in the order of another one, as from a checkpoint, is filled table
/// by table.
#[derive(Clone, Default)]
pub(crate) struct AttemptSet {
    /// None, one, or [`TABLES`].
    tables: Vec<Table>,
    len: usize,
    /// Whether the id whose bits are all zero is in the set; no table can hold it.
    has_zero: bool,
}

/// The tables of a large set.
const TABLES: usize = 256;

/// The most ids in a single table, after which the set is split: as many as fill 65,536 slots.
const MAX_ALONE: usize = 49_152;

impl AttemptSet {
    pub(crate) fn contains(&self, id: &AttemptId) -> bool {
        match u128::from_be_bytes(*id.as_bytes()) {
            0 => self.has_zero,
            number => {
                let table = self.tables.get(self.table_of(number));
                table.is_some_and(|table| table.contains(number))
            }
        }
    }

    /// Reads the slot where an id is looked up first, so that the processor fetches it. The value
    /// does not tell whether the id is in the set.
    pub(crate) fn prefetch(&self, id: &AttemptId) -> u128 {
        let number = u128::from_be_bytes(*id.as_bytes());
        let table = self.tables.get(self.table_of(number));
        let slot = table.and_then(|table| table.slots.get(table.first_slot_of(number)));
        slot.copied().unwrap_or(0)
    }

    /// Inserts an id.
    pub(crate) fn insert(&mut self, id: AttemptId) {
        let number = u128::from_be_bytes(*id.as_bytes());
        if number == 0 {
            self.len += usize::from(!self.has_zero);
            self.has_zero = true;
            return;
        }
        match self.tables.len() {
            0 => self.tables.push(Table::default()),
            1 if self.len >= MAX_ALONE => self.split(),
            _ => {}
        }
        let table = self.table_of(number);
        self.len += usize::from(self.tables[table].insert(number));
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = AttemptId> {
        let zero = self.has_zero.then_some(0);
        let numbers = zero
            .into_iter()
            .chain(self.tables.iter().flat_map(Table::iter));
        numbers.map(|number| AttemptId::from_bytes(number.to_be_bytes()))
    }

    /// The table of an id, by other bits than those that lead to its slot.
    fn table_of(&self, number: u128) -> usize {
        match self.tables.len() {
            TABLES => (number >> (u128::BITS - TABLES.ilog2())) as usize,
            _ => 0,
        }
    }

    /// Splits the one table into many.
    fn split(&mut self) {
        let one_of_many = Table {
            rotation: ROTATION_OF_MANY,
            ..Table::default()
        };
        let alone = std::mem::replace(&mut self.tables, vec![one_of_many; TABLES]);
        for number in alone.iter().flat_map(Table::iter) {
            let table = self.table_of(number);
            self.tables[table].insert(number);
        }
    }
}

/// An open-addressing hash table of ids with linear probing and no removal.
///
/// A refused attempt is looked up and inserted at the same slot, so it costs one cache miss. In
/// the standard library's table it costs two, of which the second is a write that the next read of
/// the product waits for.
///
/// An id's first slot is given by its bits mixed with the numbers of slots and of tables. Without
/// the mixing, ids that come in the order of another table, as from a checkpoint, would crowd in a
/// few places of a table that is still small, and finding a free slot would take longer and
/// longer.
#[derive(Clone, Default)]
struct Table {
    /// Ids as numbers, 0 where there is none. None, or a power of two of them.
    slots: Vec<u128>,
    /// How many slots are taken.
    taken: usize,
    /// By how many bits the mixing constant is rotated, in addition to those by the number of
    /// slots.
    rotation: u32,
}

/// The rotation of a table among many; a single table has none. It exceeds what the number of
/// slots adds, so that no two kinds of table are mixed alike.
const ROTATION_OF_MANY: u32 = u64::BITS / 2;

/// 2^64 divided by the golden ratio.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// The fewest slots of a table that has any.
const MIN_SLOTS: usize = 16;

impl Table {
    fn contains(&self, number: u128) -> bool {
        !self.slots.is_empty() && self.slots[self.slot_of(number)] == number
    }

    /// Whether the table grows before the next insert: at most three in four slots are taken, so
    /// that a free one is near.
    fn is_full(&self) -> bool {
        self.taken >= self.slots.len() / 4 * 3
    }

    /// Inserts a number, which is not 0; returns whether it is new.
    fn insert(&mut self, number: u128) -> bool {
        if self.is_full() {
            self.grow();
        }
        let slot = self.slot_of(number);
        let is_new = self.slots[slot] == 0;
        self.taken += usize::from(is_new);
        self.slots[slot] = number;
        is_new
    }

    fn iter(&self) -> impl Iterator<Item = u128> {
        self.slots.iter().copied().filter(|number| *number != 0)
    }

    /// The slot where a number is looked up first. It is out of range while there are no slots.
    fn first_slot_of(&self, number: u128) -> usize {
        let last = self.slots.len().wrapping_sub(1);
        let rotation = self.slots.len().checked_ilog2().unwrap_or(0) + self.rotation;
        let mixed = u128::from(number as u64 ^ MIX.rotate_left(rotation));
        let mixed = mixed * u128::from(MIX);
        ((mixed >> 64) as u64 ^ mixed as u64) as usize & last
    }

    /// The slot of a number, or the free slot where it would be.
    fn slot_of(&self, number: u128) -> usize {
        let last = self.slots.len() - 1;
        let mut slot = self.first_slot_of(number);
        while self.slots[slot] != 0 && self.slots[slot] != number {
            slot = (slot + 1) & last;
        }
        slot
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(MIN_SLOTS);
        let before = std::mem::replace(&mut self.slots, vec![0; slots]);
        for number in before.into_iter().filter(|number| *number != 0) {
            let slot = self.slot_of(number);
            self.slots[slot] = number;
        }
    }
}

impl Extend<AttemptId> for AttemptSet {
    fn extend<I: IntoIterator<Item = AttemptId>>(&mut self, ids: I) {
        ids.into_iter().for_each(|id| self.insert(id));
    }
}

impl PartialEq for AttemptSet {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|id| other.contains(&id))
    }
}

impl fmt::Debug for AttemptSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Ids that often share their first bits, and are often the same.
    fn crowded() -> impl Strategy<Value = AttemptId> {
        let first = prop_oneof![Just(0u8), Just(0xff), any::<u8>()];
        (first, 0..4u8).prop_map(|(first, last)| {
            let mut bytes = [first; 16];
            bytes[15] ^= last;
            AttemptId::from_bytes(bytes)
        })
    }

    proptest! {
        #[test]
        fn a_set_has_what_was_inserted_and_nothing_else(
            ids in vec(crowded(), 0..600),
            others in vec(crowded(), 0..50),
        ) {
            let (mut set, mut model) = (AttemptSet::default(), HashSet::new());
            for id in &ids {
                prop_assert_eq!(set.contains(id), model.contains(id));
                set.insert(*id);
                model.insert(*id);
                prop_assert_eq!(set.len(), model.len());
            }
            for id in ids.iter().chain(&others) {
                prop_assert_eq!(set.contains(id), model.contains(id));
            }
            prop_assert_eq!(set.iter().collect::<HashSet<_>>(), model.clone());
            prop_assert_eq!(set.iter().count(), model.len());
            let mut backwards = AttemptSet::default();
            backwards.extend(ids.iter().rev().copied());
            prop_assert_eq!(&backwards, &set);
            if let Some(other) = others.iter().find(|id| !model.contains(*id)) {
                backwards.insert(*other);
                prop_assert!(backwards != set);
            }
        }
    }

    #[test]
    fn ids_in_the_order_of_another_set_do_not_crowd() {
        // In one table and in many; as many as a table holds before it grows, and fewer.
        for ids in [49_152, 40_000, 25_000, 1_500_000, 1_000_000] {
            no_crowd_of(ids);
        }
    }

    #[test]
    fn most_ids_are_in_the_slot_where_they_are_looked_up_first() {
        let mut set = AttemptSet::default();
        let ids: Vec<_> = (0..2 * MAX_ALONE).map(|_| AttemptId::generate()).collect();
        let (few, rest) = ids.split_at(MAX_ALONE / 2);
        for (some, expected) in [(few, 1), (rest, TABLES)] {
            set.extend(some.iter().copied());
            assert_eq!(set.tables.len(), expected);
            let first = some
                .iter()
                .filter(|id| set.prefetch(id) == u128::from_be_bytes(*id.as_bytes()));
            assert!(first.count() > some.len() / 2, "of {}", some.len());
        }
    }

    fn no_crowd_of(ids: usize) {
        let mut whole = AttemptSet::default();
        let product = "p".parse().unwrap();
        let buyer = "b".parse().unwrap();
        let id = |n: usize| AttemptId::from_key(&product, &buyer, &n.to_string(), 1);
        whole.extend((0..ids).map(id));
        let expected = if ids > MAX_ALONE { TABLES } else { 1 };
        assert_eq!((whole.len(), whole.tables.len()), (ids, expected));
        let mut part = AttemptSet::default();
        for (count, id) in whole.iter().enumerate() {
            let number = u128::from_be_bytes(*id.as_bytes());
            part.insert(id);
            // Checked now and then; just before a table grows it is fullest.
            let table = &part.tables[part.table_of(number)];
            if table.is_full() || count % 10_000 == 0 {
                let runs = table.slots.split(|number| *number == 0);
                let longest = runs.map(<[u128]>::len).max().unwrap_or(0);
                assert!(longest < 500, "{longest} in a row of {}", table.taken);
            }
        }
        assert_eq!(part, whole);
        let tables = part.tables.iter().map(|table| table.taken);
        let (least, most) = (tables.clone().min().unwrap(), tables.max().unwrap());
        assert!(most < 2 * least, "tables have {least} to {most} ids");
    }
}
