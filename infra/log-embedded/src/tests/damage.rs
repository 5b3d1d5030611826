//! Flipped bytes, truncated and missing files, other versions: refused with file and position, or cut
//! where no acknowledged record is lost, and never read in part.

use std::collections::BTreeMap;
use std::sync::Arc;

use ports::clock::SystemClock;
use ports::{EventLog, ReadError};
use schemas::ids::Partition;
use schemas::topics::Topic;

use super::disk::Disk;
use super::{OPTIONS, append, contents, contents_of, open, open_read_only, unchecked};
use crate::files::Files;
use crate::format::{self, CLEAN, META, Meta};
use crate::segment::{FIRST, SegmentReader};
use crate::{EmbeddedLog, OpenError, Options};

const RECORDS: usize = 30;

/// A log of several segments with a batch for each record: as a kill leaves it, and as closing leaves
/// it.
async fn two_logs() -> [(Disk, bool); 2] {
    let disk = Disk::default();
    let log = open(&disk).unwrap();
    for n in 0..RECORDS {
        append(&log, n).await.unwrap();
    }
    log.close().unwrap();
    // Closing only adds the mark.
    let killed = disk.after_kill();
    killed.lose(CLEAN);
    [(killed, false), (disk, true)]
}

/// Start and end of each segment's batches.
fn batches(disk: &Disk) -> BTreeMap<String, Vec<(usize, usize)>> {
    let meta = Meta::parse(&disk.contents()[META]).unwrap_or_else(|_| panic!("a meta file"));
    let mut names = disk.list().unwrap();
    names.retain(|name| format::segment_number(name).is_some());
    let batches = |name: &String| {
        let number = format::segment_number(name).unwrap();
        let mut reader = SegmentReader::open(disk, meta, number, 4096).unwrap();
        let (mut position, mut batches) = (FIRST, Vec::new());
        while let Ok(Some(batch)) = reader.batch_at(position) {
            let start = position;
            position += u64::from(batch.bytes);
            batches.push((start as usize, position as usize));
        }
        batches
    };
    names
        .iter()
        .map(|name| (name.clone(), batches(name)))
        .collect()
}

/// The last segment that holds a batch.
fn last_used(batches: &BTreeMap<String, Vec<(usize, usize)>>) -> String {
    batches
        .iter()
        .rfind(|(_, batches)| !batches.is_empty())
        .unwrap()
        .0
        .clone()
}

/// Asserts that the log is refused, with the file and a position in it, and stays unchanged.
fn assert_refused(disk: &Disk, name: &str, positions: std::ops::RangeInclusive<usize>) {
    let before = disk.contents();
    for opened in [open(disk), open_read_only(disk)] {
        let Err(error) = opened else {
            panic!("{name} at {positions:?} is not refused")
        };
        let OpenError::Damaged { file, position, .. } = &error else {
            panic!("{name} at {positions:?}: {error}")
        };
        assert_eq!(file.file_name().unwrap(), name, "{error}");
        assert!(
            positions.contains(&(*position as usize)),
            "{positions:?}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(name) && text.contains(&position.to_string()),
            "{text}"
        );
    }
    assert_eq!(disk.contents(), before, "a refused log stays unchanged");
}

/// Asserts that the log opens with exactly this many records, and continues from there, also past the
/// end of a segment.
async fn assert_holds(disk: &Disk, records: usize) {
    const MORE: usize = 9;
    let read_only = open_read_only(disk).unwrap();
    assert_eq!(contents(&read_only).await.unwrap(), contents_of(records));
    let log = open(disk).unwrap();
    assert_eq!(contents(&log).await.unwrap(), contents_of(records));
    for n in records..records + MORE {
        append(&log, n).await.unwrap();
    }
    let later = open_read_only(&disk.after_kill()).unwrap();
    assert_eq!(contents(&later).await.unwrap(), contents_of(records + MORE));
}

#[tokio::test]
async fn every_flipped_byte_is_refused_or_in_the_incomplete_last_batch() {
    for (whole, closed) in two_logs().await {
        let batches = batches(&whole);
        let last = last_used(&batches);
        assert!(batches.len() >= 5, "the log has several segments");
        for (name, bytes) in whole.contents() {
            for at in 0..bytes.len() {
                let disk = whole.after_kill();
                disk.change(&name, |bytes| bytes[at] ^= 1 << (at % 8));
                let Some(batches) = batches.get(&name) else {
                    assert_refused(&disk, &name, 0..=0);
                    continue;
                };
                let end = batches.last().map_or(FIRST as usize, |(_, end)| *end);
                let batch = batches
                    .iter()
                    .position(|(start, end)| (*start..*end).contains(&at));
                match batch {
                    None if at < FIRST as usize => assert_refused(&disk, &name, 0..=0),
                    // Nothing has been written there yet.
                    None if name >= last => assert_holds(&disk, RECORDS).await,
                    None => assert_refused(&disk, &name, end..=end),
                    // A kill may leave the last batch incomplete.
                    Some(batch) if !closed && name == last && batch + 1 == batches.len() => {
                        assert_holds(&disk, RECORDS - 1).await;
                    }
                    Some(batch) => {
                        let (start, _) = batches[batch];
                        assert_refused(&disk, &name, start..=start);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn every_byte_flipped_after_opening_is_found_by_reading() {
    let [_, (whole, _)] = two_logs().await;
    for (name, batches) in batches(&whole) {
        for at in batches.iter().flat_map(|(start, end)| *start..*end) {
            let log = open_read_only(&whole).unwrap();
            whole.change(&name, |bytes| bytes[at] ^= 1 << (at % 8));
            match contents(&log).await {
                Err(ReadError::Damaged(what)) => assert!(what.contains(&name), "{what}"),
                // Padding is not read.
                Ok(read) if batches.iter().any(|(_, end)| (end - 7..*end).contains(&at)) => {
                    assert_eq!(read, contents_of(RECORDS));
                }
                other => panic!("byte {at} of {name}: {other:?}"),
            }
            whole.change(&name, |bytes| bytes[at] ^= 1 << (at % 8));
        }
    }
}

#[tokio::test]
async fn a_file_truncated_at_any_length_keeps_all_complete_batches_or_is_refused() {
    for (whole, closed) in two_logs().await {
        let all = batches(&whole);
        let last = last_used(&all);
        for (name, bytes) in whole.contents() {
            for length in 0..bytes.len() {
                let disk = whole.after_kill();
                disk.change(&name, |bytes| bytes.truncate(length));
                let Some(batches) = all.get(&name) else {
                    assert_refused(&disk, &name, 0..=0);
                    continue;
                };
                let kept = batches.iter().filter(|(_, end)| *end <= length).count();
                let end = if kept == 0 {
                    FIRST as usize
                } else {
                    batches[kept - 1].1
                };
                if length < FIRST as usize {
                    assert_refused(&disk, &name, 0..=0);
                } else if kept == batches.len() {
                    assert_holds(&disk, RECORDS).await;
                } else if name == last && !closed {
                    assert_holds(&disk, RECORDS - (batches.len() - kept)).await;
                } else if name == last && kept == 0 {
                    // Only the mark shows the loss, so the error names the end of what is left.
                    let (before, batches) = all.range(..name.clone()).next_back().unwrap();
                    let end = batches.last().unwrap().1;
                    assert_refused(&disk, before, end..=end);
                } else {
                    assert_refused(&disk, &name, end..=end);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_missing_file_is_refused() {
    for (whole, closed) in two_logs().await {
        // The loss of the segment that was created last in advance cannot be detected.
        let (ahead, _) = batches(&whole).pop_last().unwrap();
        let last = last_used(&batches(&whole));
        assert!(ahead > last);
        for name in whole.contents().into_keys() {
            let disk = whole.after_kill();
            disk.lose(&name);
            match name.as_str() {
                CLEAN => assert_holds(&disk, RECORDS).await,
                META => {
                    let refused = open(&disk).err().unwrap().to_string();
                    assert!(refused.contains("meta is damaged"), "{refused}");
                    assert!(matches!(
                        open_read_only(&disk),
                        Err(OpenError::NoLog { .. })
                    ));
                }
                name if name == ahead => assert_holds(&disk, RECORDS).await,
                name => {
                    assert_refused(&disk, name, 0..=0);
                    if closed && name <= last.as_str() {
                        // Even with all later segments gone, the mark shows the loss.
                        disk.list().unwrap().iter().for_each(|other| {
                            if format::segment_number(other).is_some() && other.as_str() > name {
                                disk.lose(other);
                            }
                        });
                        assert!(
                            open(&disk).is_err(),
                            "{name} and all later segments are missing"
                        );
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn the_segment_in_use_always_has_a_successor() {
    let disk = Disk::default();
    let log = open(&disk).unwrap();
    for n in 0..RECORDS {
        append(&log, n).await.unwrap();
        let batches = batches(&disk.after_kill());
        let used = last_used(&batches);
        let (last, _) = batches.last_key_value().unwrap();
        let is_first = format::segment_number(&used) == Some(1);
        assert!(
            is_first || *last > used,
            "record {n} is in {used}, the last segment"
        );
    }
}

#[tokio::test]
async fn a_future_version_is_refused_and_stays_unchanged() {
    let [_, (whole, _)] = two_logs().await;
    for name in whole.contents().into_keys() {
        let disk = whole.after_kill();
        disk.change(&name, |bytes| {
            bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
            let checksum = format::crc(&bytes[..28]);
            bytes[28..32].copy_from_slice(&checksum.to_le_bytes());
        });
        let before = disk.contents();
        for opened in [open(&disk), open_read_only(&disk)] {
            let Err(OpenError::Version {
                file,
                found: 2,
                known: 1,
            }) = opened
            else {
                panic!("{name} of a future version is not refused as such")
            };
            assert_eq!(file.file_name().unwrap(), name.as_str());
        }
        assert_eq!(disk.contents(), before);
    }
}

#[tokio::test]
async fn segments_of_another_log_or_number_are_refused() {
    let [(one, _), _] = two_logs().await;
    let [(other, _), _] = two_logs().await;
    let (ones, others) = (one.contents(), other.contents());
    let [second, third] = [2, 3].map(format::segment_name);
    for stranger in [&others[&second], &ones[&third]] {
        let disk = one.after_kill();
        disk.change(&second, |bytes| bytes.clone_from(stranger));
        assert_refused(&disk, &second, 0..=0);
    }
}

#[tokio::test]
async fn an_earlier_state_of_a_segment_is_refused() {
    let disk = Disk::default();
    let log = open(&disk).unwrap();
    append(&log, 0).await.unwrap();
    let earlier = disk.contents()[&format::segment_name(1)].clone();
    for n in 1..RECORDS {
        append(&log, n).await.unwrap();
    }
    let disk = disk.after_kill();
    disk.change(&format::segment_name(1), |bytes| *bytes = earlier);
    let end = batches(&disk)[&format::segment_name(1)][0].1;
    assert_refused(&disk, &format::segment_name(1), end..=end);
}

#[tokio::test]
async fn a_segment_of_a_diverged_copy_is_refused() {
    let start = Disk::default();
    drop(open(&start).unwrap());
    let [one, other] = [false, true].map(|other| (start.after_kill(), other));
    for (disk, other) in [&one, &other] {
        let log = open(disk).unwrap();
        for n in 0..RECORDS {
            let mut record = super::record(n);
            if *other {
                // Of the same length, so that only the chain of checksums differs.
                record.key = record.key.to_ascii_uppercase().into();
            }
            let (topic, partition) = super::target(n);
            log.append(topic, partition, vec![record]).await.unwrap();
        }
        log.close().unwrap();
    }
    let name = format::segment_name(2);
    let stranger = other.0.contents()[&name].clone();
    one.0.change(&name, |bytes| *bytes = stranger);
    assert_refused(&one.0, &name, FIRST as usize..=FIRST as usize);
}

#[tokio::test]
async fn a_directory_has_one_process_and_a_fixed_number_of_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let clock = unchecked(Arc::new(SystemClock));
    let open = |options| EmbeddedLog::open(dir.path(), options, clock.clone());
    let log = open(OPTIONS).unwrap();
    append(&log, 0).await.unwrap();
    let Err(OpenError::InUse { dir: named }) = open(OPTIONS) else {
        panic!("opened twice")
    };
    assert_eq!(named, dir.path());
    let beside = EmbeddedLog::open_read_only(dir.path()).unwrap();
    assert_eq!(contents(&beside).await.unwrap(), contents_of(1));
    let refused = beside
        .append(Topic::StockDecisions, Partition(0), vec![super::record(1)])
        .await;
    assert!(matches!(refused, Err(ports::AppendError::Stopped(_))));
    drop(log);

    let other = Options {
        partitions: 3,
        ..OPTIONS
    };
    let Err(OpenError::Partitions {
        found: 2,
        requested: 3,
        ..
    }) = open(other)
    else {
        panic!("opened with another number of partitions")
    };
    assert_eq!(
        contents(&open(OPTIONS).unwrap()).await.unwrap(),
        contents_of(1)
    );

    let small = Options {
        segment_bytes: 800,
        ..OPTIONS
    };
    assert!(matches!(open(small), Err(OpenError::Options(_))));
    let nothing = EmbeddedLog::open_read_only(&dir.path().join("nothing"));
    assert!(matches!(nothing, Err(OpenError::NoLog { .. })));
}
