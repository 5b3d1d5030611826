//! Eras, by which long lists are split into partitions of bounded size.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use schemas::ids::{Offset, Partition, Position};

/// The most pairs of owner and era in the cache; about 10 MiB.
const MAX_CACHED: usize = 100_000;

/// 65,536 offsets of a log partition, and so the most rows in a partition of a list.
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

/// A cache of the eras that the store lists for each owner, so that each era is written about once
/// and not with every row.
#[derive(Default)]
pub(crate) struct ListedEras(Mutex<Cache>);

#[derive(Default)]
struct Cache {
    owners: HashMap<Era, HashSet<Box<str>>>,
    count: usize,
}

impl ListedEras {
    pub(crate) fn contains(&self, owner: &str, era: Era) -> bool {
        let cache = self.0.lock();
        let owners = cache.owners.get(&era);
        owners.is_some_and(|owners| owners.contains(owner))
    }

    /// Caches that an era is listed. Call it only once the store has confirmed the write.
    pub(crate) fn insert(&self, owner: &str, era: Era) {
        let mut cache = self.0.lock();
        if cache.count >= MAX_CACHED {
            // Most entries are of past eras. The eras in use are written once more.
            *cache = Cache::default();
        }
        let owners = cache.owners.entry(era).or_default();
        if owners.insert(owner.into()) {
            cache.count += 1;
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
    fn the_cache_is_bounded() {
        let eras = ListedEras::default();
        for number in 0..MAX_CACHED {
            // The same entry again does not count.
            eras.insert(&number.to_string(), era(0, 0));
            assert!(eras.contains(&number.to_string(), era(0, 0)));
            if number + 1 < MAX_CACHED {
                eras.insert(&number.to_string(), era(0, 0));
            }
        }
        assert!(eras.contains("0", era(0, 0)));
        assert!(!eras.contains("0", era(0, 65_536)) && !eras.contains("0", era(1, 0)));
        eras.insert("one more", era(0, 0));
        assert!(eras.contains("one more", era(0, 0)));
        assert!(!eras.contains("0", era(0, 0)), "the cache was cleared");
        assert_eq!(eras.0.lock().count, 1);
    }
}
