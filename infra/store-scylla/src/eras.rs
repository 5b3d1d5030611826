//! How long lists are cut into partitions of bounded size: by eras of their log partition.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use schemas::ids::{Offset, Partition, Position};

/// The most owners remembered with the eras they have; about 10 MiB.
const MAX_REMEMBERED: usize = 100_000;

/// 65,536 offsets of a log partition, and so the most rows that a partition of a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Era {
    pub(crate) partition: Partition,
    pub(crate) number: i64,
}

impl Era {
    pub(crate) fn of(position: Position) -> Self {
        let Offset(offset) = position.offset;
        Self {
            partition: position.partition,
            number: offset >> 16,
        }
    }
}

/// Which eras of which owners the store is known to list, so that it is told of each about
/// once and not with every row.
#[derive(Default)]
pub(crate) struct ListedEras(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    owners: HashMap<Era, HashSet<Box<str>>>,
    count: usize,
}

impl ListedEras {
    pub(crate) fn contains(&self, owner: &str, era: Era) -> bool {
        let remembered = self.0.lock();
        let owners = remembered.owners.get(&era);
        owners.is_some_and(|owners| owners.contains(owner))
    }

    /// To be called when the store has it for certain.
    pub(crate) fn insert(&self, owner: &str, era: Era) {
        let mut remembered = self.0.lock();
        if remembered.count >= MAX_REMEMBERED {
            // Most of them are of eras long past. Those that are not are written once more.
            *remembered = Remembered::default();
        }
        let owners = remembered.owners.entry(era).or_default();
        if owners.insert(owner.into()) {
            remembered.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn era(partition: u32, offset: i64) -> Era {
        Era::of(Position {
            partition: Partition(partition),
            offset: Offset(offset),
        })
    }

    #[test]
    fn an_era_is_65536_offsets_of_one_partition() {
        assert_eq!(era(0, 0), era(0, 65_535));
        assert_eq!(era(0, 65_536), era(0, 131_071));
        assert!(era(0, 65_535) < era(0, 65_536));
        assert!(era(0, i64::MAX) < era(1, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let eras = ListedEras::default();
        for number in 0..MAX_REMEMBERED {
            // The same again does not count.
            eras.insert(&number.to_string(), era(0, 0));
            assert!(eras.contains(&number.to_string(), era(0, 0)));
            if number + 1 < MAX_REMEMBERED {
                eras.insert(&number.to_string(), era(0, 0));
            }
        }
        assert!(eras.contains("0", era(0, 0)));
        assert!(!eras.contains("0", era(0, 65_536)) && !eras.contains("0", era(1, 0)));
        eras.insert("one more", era(0, 0));
        assert!(eras.contains("one more", era(0, 0)));
        assert!(!eras.contains("0", era(0, 0)), "forgotten to make room");
        assert_eq!(eras.0.lock().count, 1);
    }
}
