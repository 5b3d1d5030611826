//! Failing writes and syncs, kills and power cuts, at every call in turn.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use ports::AppendError;
use schemas::ids::Offset;
use tokio::time::sleep;

use super::disk::{Disk, Fault};
use super::{Contents, append, contents, contents_of, open, record, target};
use crate::EmbeddedLog;
use crate::format::UNFINISHED;

/// Rounds of appends, and appends at once in each.
const ROUNDS: usize = 12;
const AT_ONCE: usize = 3;

/// The pause before an append is tried again.
const PAUSE: Duration = Duration::from_millis(1);

/// The acknowledged records of a run, by number.
type Acknowledged = Vec<(usize, Offset)>;

/// Appends a record. While no segment can be prepared, tries again, unless that is so for good.
async fn append_with_room(
    log: &EmbeddedLog,
    n: usize,
    fault: Fault,
) -> Result<Offset, AppendError> {
    loop {
        match append(log, n).await {
            Err(AppendError::Full) if fault != Fault::PowerOff => sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// Appends until a call fails, and then some more records, which must all be refused.
async fn run(log: EmbeddedLog, fault: Fault) -> Acknowledged {
    let log = Arc::new(log);
    let mut acknowledged = Vec::new();
    let mut stopped = false;
    for round in 0..ROUNDS {
        let of_round = (0..AT_ONCE).map(|n| {
            let log = log.clone();
            let n = round * AT_ONCE + n;
            tokio::spawn(async move { (n, append_with_room(&log, n, fault).await) })
        });
        let mut answers = Vec::new();
        for answer in of_round.collect::<Vec<_>>() {
            answers.push(answer.await.unwrap());
        }
        // After the answers of a failed group the log is stopped. One that is only full is not.
        let has_failed = |answer: &Result<_, _>| {
            matches!(
                answer,
                Err(AppendError::Stopped(_) | AppendError::Unknown(_))
            )
        };
        let stops = answers.iter().any(|(_, answer)| has_failed(answer));
        for (n, answer) in answers {
            match answer {
                Ok(offset) if !stopped => acknowledged.push((n, offset)),
                Ok(_) => panic!("record {n} is acknowledged after a failure"),
                Err(AppendError::Stopped(_)) => {}
                Err(AppendError::Full) => assert_eq!(fault, Fault::PowerOff),
                Err(AppendError::Unknown(_)) => assert!(!stopped, "the log was stopped before"),
                Err(error) => panic!("{error}"),
            }
        }
        stopped |= stops;
    }
    // Closing may fail by itself, at the mark; after a failure it must report that one.
    let closed = log.close();
    assert!(!stopped || closed.is_err(), "closing reports the failure");
    acknowledged
}

async fn assert_all_there(disk: &Disk, acknowledged: &Acknowledged) -> Contents {
    let log = open(disk).unwrap();
    let contents = contents(&log).await.unwrap();
    for (n, offset) in acknowledged {
        let value = contents
            .get(&target(*n))
            .and_then(|values| values.get(offset.0 as usize));
        assert_eq!(value, Some(&record(*n).value), "record {n} at {offset}");
    }
    let added = append(&log, 1000).await.unwrap();
    let before = contents.get(&target(1000)).map_or(0, Vec::len);
    assert_eq!(added.0, before as i64, "the log continues at its end");
    contents
}

/// Numbers that look random, the same in each run.
fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    }
}

/// Runs with a fault at each call in turn, in the first opening of a log or in a later one.
async fn at_every_call(fault: Fault, check: impl AsyncFn(usize, &Disk, &Acknowledged)) {
    let with_records = Disk::default();
    let log = open(&with_records).unwrap();
    for n in 0..5 {
        append(&log, 4 * n + 1000).await.unwrap();
    }
    drop(log);
    let (mut in_opening, mut in_running) = (0, 0);
    for start in [Disk::default(), with_records.after_kill()] {
        for call in 0.. {
            let disk = start.after_kill();
            disk.fail_at(call, fault);
            let acknowledged = match open(&disk) {
                Ok(log) => run(log, fault).await,
                Err(_) => Vec::new(),
            };
            check(call, &disk, &acknowledged).await;
            match acknowledged.len() {
                0 => in_opening += 1,
                _ => in_running += 1,
            }
            if disk.calls() <= call {
                assert_eq!(
                    acknowledged.len(),
                    ROUNDS * AT_ONCE,
                    "without a fault everything is acknowledged"
                );
                break;
            }
        }
    }
    assert!(
        in_opening > 10 && in_running > 40,
        "{in_opening} and {in_running} faults took effect"
    );
}

#[tokio::test]
async fn acknowledged_records_survive_any_failing_call() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        at_every_call(Fault::Once(kind), async |_, disk, acknowledged| {
            let restarted = disk.after_kill();
            let read = assert_all_there(&restarted, acknowledged).await;
            // Records that were read once stay, though the failed sync had left them in the page
            // cache only.
            let after_cut = restarted.after_power_cut(|| false);
            let log = open(&after_cut).unwrap();
            let read_again = contents(&log).await.unwrap();
            for (target, values) in read {
                assert_eq!(read_again[&target][..values.len()], values);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_segment_that_cannot_be_prepared_is_tried_again_and_the_log_continues() {
    // No space, and no free file descriptor.
    for error in [ErrorKind::StorageFull, ErrorKind::Other] {
        let disk = Disk::default();
        let log = open(&disk).unwrap();
        let mut next = 0;
        for _ in 0..3 {
            disk.exhaust(Some(error));
            let refused = loop {
                match append(&log, next).await {
                    Ok(_) => next += 1,
                    Err(refused) => break refused,
                }
            };
            // Nothing was appended, and the same call may succeed later.
            assert_eq!(refused, AppendError::Full, "record {next}");
            let failure = log.status().preparing_failure.expect("the log says why");
            assert!(failure.contains("cannot be created"), "{failure}");
            // The thread may have begun another attempt, whose file it removes as well.
            while disk
                .contents()
                .keys()
                .any(|name| name.ends_with(UNFINISHED))
            {
                sleep(PAUSE).await;
            }

            disk.exhaust(None);
            while append(&log, next).await == Err(AppendError::Full) {
                sleep(PAUSE).await;
            }
            next += 1;
            while log.status().preparing_failure.is_some() {
                sleep(PAUSE).await;
            }
        }
        assert_eq!(contents(&log).await.unwrap(), contents_of(next));
        log.close().unwrap();
        let log = open(&disk.after_power_cut(|| false)).unwrap();
        assert_eq!(contents(&log).await.unwrap(), contents_of(next));
    }
}

#[tokio::test]
async fn the_status_shows_a_sync_that_hangs_and_a_log_that_has_stopped() {
    let disk = Disk::default();
    let log = Arc::new(open(&disk).unwrap());
    append(&log, 0).await.unwrap();
    while log.status().waiting_records > 0 {
        sleep(PAUSE).await;
    }
    assert_eq!(log.status().stopped, None);

    disk.hang(true);
    let batches = log.written().batches;
    let appending = {
        let log = log.clone();
        tokio::spawn(async move { append(&log, 1).await })
    };
    while log.status().waiting_records != 1 {
        sleep(PAUSE).await;
    }
    // The caller gives up, but the record is still on its way to the disk.
    appending.abort();
    let _ = appending.await;
    assert_eq!(log.status().waiting_records, 1);
    assert_eq!(log.written().batches, batches, "nothing moves");
    disk.hang(false);
    while log.status().waiting_records > 0 {
        sleep(PAUSE).await;
    }
    assert_eq!(log.written().batches, batches + 1);

    disk.fail_at(disk.calls(), Fault::PowerOff);
    append(&log, 2).await.unwrap_err();
    let stopped = log.status().stopped.expect("the log has stopped");
    assert!(stopped.contains("the power is off"), "{stopped}");
    assert_eq!(log.status().waiting_records, 0);
}

#[tokio::test]
async fn a_log_without_space_for_a_segment_closes_in_order() {
    let disk = Disk::default();
    let log = open(&disk).unwrap();
    disk.exhaust(Some(ErrorKind::Other));
    let mut next = 0;
    while append(&log, next).await.is_ok() {
        next += 1;
    }
    // The mark of a closed log is a file, too, so it is missing.
    let closed = log.close().unwrap_err();
    assert!(closed.contains("all records are durable"), "{closed}");
    let log = open(&disk.after_kill()).unwrap();
    assert_eq!(contents(&log).await.unwrap(), contents_of(next));
}

#[tokio::test]
async fn acknowledged_records_survive_a_power_cut_at_any_call() {
    at_every_call(Fault::PowerOff, async |call, disk, acknowledged| {
        assert_all_there(&disk.after_power_cut(|| false), acknowledged).await;
        assert_all_there(&disk.after_power_cut(|| true), acknowledged).await;
        for seed in 0..8 {
            let mut number = numbers((call * 8 + seed) as u64);
            let cut = disk.after_power_cut(|| number().is_multiple_of(2));
            assert_all_there(&cut, acknowledged).await;
        }
    })
    .await;
}
