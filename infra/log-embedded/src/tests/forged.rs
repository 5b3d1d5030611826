//! Lengths and counts that no log has: refused before any memory of that size is allocated.

use super::disk::Disk;
use super::{append, open, open_read_only};
use crate::OpenError;
use crate::format::{self, META, Meta};
use crate::segment::FIRST;

/// The file and position that both ways of opening report as damaged.
fn refused_at(disk: &Disk) -> (String, u64) {
    let [one, other] = [open_read_only(disk), open(disk)].map(|opened| match opened {
        Err(OpenError::Damaged { file, position, .. }) => {
            let name = file.file_name().unwrap().to_str().unwrap();
            (name.to_owned(), position)
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused"),
    });
    assert_eq!(one, other);
    one
}

#[tokio::test]
async fn a_batch_that_claims_to_be_longer_than_its_file_is_refused() {
    let disk = Disk::default();
    let log = open(&disk).unwrap();
    for n in 0..4 {
        append(&log, n).await.unwrap();
    }
    let disk = disk.after_kill();
    let first = format::segment_name(1);
    disk.change(&first, |bytes| {
        let (blocks, length) = (100_000_000_u32, u32::MAX - 7);
        let at = FIRST as usize;
        bytes[at + 20..at + 24].copy_from_slice(&blocks.to_le_bytes());
        bytes[at + 24..at + 28].copy_from_slice(&length.to_le_bytes());
    });
    assert_eq!(refused_at(&disk), (first, FIRST));
}

#[tokio::test]
async fn a_number_of_partitions_that_no_log_has_is_refused() {
    for partitions in [0, 1025, u32::MAX] {
        let disk = Disk::default();
        drop(open(&disk).unwrap());
        let disk = disk.after_kill();
        disk.change(META, |bytes| {
            let log_id = 1;
            *bytes = Meta { partitions, log_id }.encode().to_vec();
        });
        assert_eq!(refused_at(&disk), (META.to_owned(), 0), "{partitions}");
    }
}
