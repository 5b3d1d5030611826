//! A process that is killed while it writes, and what the next process finds.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{BATCH, apply_batch, check};
use store_embedded::{EmbeddedStore, OpenError};

const PARTITIONS: u32 = 3;
const STORE: &str = "STORE_EMBEDDED_TEST_PATH";

/// Not a test by itself: the process that the other tests start and kill. It prints a line for each
/// applied batch.
#[test]
fn child_that_writes_until_killed() {
    let Some(path) = std::env::var_os(STORE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(Path::new(&path)).unwrap();
        let found = check(&store).await.unwrap();
        for batch in 0.. {
            for partition in 0..PARTITIONS {
                let done = found.get(&partition).copied().unwrap_or(0) / BATCH;
                apply_batch(&store, partition, done + batch).await;
                println!("\napplied {partition} {}", (done + batch + 1) * BATCH);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

fn start_child(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills the child, which must still be alive.
fn kill(child: &mut Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        status.signal(),
        Some(9),
        "the child ended by itself: {status}"
    );
}

/// Waits until the child has applied a batch. The thread then reads the child's output to its end,
/// so that the child does not block on a full pipe.
fn applies(child: &mut Child) -> JoinHandle<usize> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().starts_with("applied")),
        "the child runs"
    );
    std::thread::spawn(move || lines.count())
}

#[tokio::test]
async fn a_killed_process_leaves_no_progress_without_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.redb");
    let mut before = BTreeMap::new();
    // Killed at several moments of the half second between two flushes, and at last when the file
    // has some of the rows, however slow the disk.
    for runs in [400, 637, 774, 911, 1_048, 1_185]
        .map(Some)
        .into_iter()
        .chain([None])
    {
        let mut child = start_child(&path);
        let reader = applies(&mut child);
        match runs {
            Some(runs) => std::thread::sleep(Duration::from_millis(runs)),
            None => before = grown(&path, before).await,
        }
        kill(&mut child);
        reader.join().unwrap();
        let store = EmbeddedStore::open(&path).unwrap();
        let found = check(&store).await.unwrap();
        for (partition, before) in before {
            let next = found.get(&partition).copied().unwrap_or(0);
            assert!(
                next >= before,
                "partition {partition}: {next} of {before} survived"
            );
        }
        before = found;
    }
}

/// Waits until the file has more rows than before, and returns how far each partition is.
async fn grown(path: &Path, before: BTreeMap<u32, i64>) -> BTreeMap<u32, i64> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let copy = EmbeddedStore::open_copy(path).unwrap();
        let found = check(&copy).await.unwrap();
        if found.values().sum::<i64>() > before.values().sum() {
            return found;
        }
        assert!(Instant::now() < deadline, "the rows are still in memory");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_quiet_store_is_durable_soon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    apply_batch(&store, 0, 0).await;
    // What a copy has is in the file and survives a crash.
    let in_the_file = grown(&path, BTreeMap::new()).await;
    assert_eq!(in_the_file.get(&0), Some(&BATCH));
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.redb");
    let mut child = start_child(&path);
    let reader = applies(&mut child);
    let refused = EmbeddedStore::open(&path).err();
    kill(&mut child);
    reader.join().unwrap();
    let refused = refused.expect("a second process must not open the store");
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(
        text.contains("in use") && text.contains("read.redb"),
        "{text}"
    );
    // The child's end releases the store.
    EmbeddedStore::open(&path).unwrap();
}

#[tokio::test]
async fn a_copy_of_a_busy_store_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.redb");
    let mut child = start_child(&path);
    let reader = applies(&mut child);
    // On a busy machine it takes minutes; the runner ends a test that hangs.
    let (mut before, mut grown) = (0, 0);
    while grown < 5 {
        std::thread::sleep(Duration::from_millis(700));
        let copy = EmbeddedStore::open_copy(&path).unwrap();
        let all = check(&copy).await.unwrap().values().sum::<i64>();
        assert!(all >= before, "the store shrank while it was copied: {all}");
        grown += u32::from(all > before);
        before = all;
    }
    kill(&mut child);
    reader.join().unwrap();
}
