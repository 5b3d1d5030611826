//! A process that is killed while it writes, and what the next one finds.

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{BATCH, apply_batch, check};
use store_embedded::{EmbeddedStore, OpenError};

const PARTITIONS: u32 = 3;
const STORE: &str = "STORE_EMBEDDED_TEST_PATH";

/// Not a test by itself: the process that the other tests start and kill. It prints each
/// batch that was applied.
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

/// Kills the child, which must have been alive until then.
fn kill(child: &mut Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        status.signal(),
        Some(9),
        "the child ended by itself: {status}"
    );
}

/// Reads what the child applies for so long since its first batch, then kills it. Returns, for each partition,
/// what was applied a while before the end.
fn kill_after(mut child: Child, runs: Duration, durable_within: Duration) -> [i64; 3] {
    let mut start = None;
    let mut durable = [0; PARTITIONS as usize];
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let ["applied", partition, next] = words[..] else {
            continue;
        };
        let ran = start.get_or_insert_with(Instant::now).elapsed();
        if ran + durable_within < runs {
            durable[partition.parse::<usize>().unwrap()] = next.parse().unwrap();
        }
        if ran >= runs {
            break;
        }
    }
    kill(&mut child);
    durable
}

#[tokio::test]
async fn a_killed_process_leaves_no_progress_without_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.redb");
    // Killed at several moments of the half second between two writings, and at last after
    // long enough that even a slow disk must have some of it.
    let durable_within = Duration::from_millis(7_000);
    let mut before = 0;
    for runs in [400, 637, 774, 911, 1_048, 1_185, 9_000].map(Duration::from_millis) {
        let durable = kill_after(start_child(&path), runs, durable_within);
        let store = EmbeddedStore::open(&path).unwrap();
        let found = check(&store).await.unwrap();
        for (partition, durable) in durable.into_iter().enumerate() {
            let next = found.get(&(partition as u32)).copied().unwrap_or(0);
            assert!(
                next >= durable,
                "partition {partition}: {next} of {durable} survived"
            );
        }
        let all = found.values().sum::<i64>();
        assert!(all >= before, "{all} are left of {before}");
        assert!(
            runs < durable_within || all > before,
            "the last child must get further"
        );
        before = all;
    }
}

#[tokio::test]
async fn a_quiet_store_is_durable_soon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    apply_batch(&store, 0, 0).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // What a copy has is in the file, and would be there after a crash.
        let copy = EmbeddedStore::open_copy(&path).unwrap();
        if check(&copy).await.unwrap().get(&0) == Some(&BATCH) {
            break;
        }
        assert!(Instant::now() < deadline, "the rows are still in memory");
    }
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.redb");
    let mut child = start_child(&path);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().starts_with("applied")),
        "the child runs"
    );
    let refused = EmbeddedStore::open(&path).err();
    kill(&mut child);
    let refused = refused.expect("a second process must not open the store");
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(
        text.contains("in use") && text.contains("read.redb"),
        "{text}"
    );
    // Its end frees the store.
    EmbeddedStore::open(&path).unwrap();
}

#[tokio::test]
async fn a_copy_of_a_busy_store_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.redb");
    let mut child = start_child(&path);
    let lines = child.stdout.take().unwrap();
    // Reading on, so that the child does not wait for a full pipe.
    let reader = std::thread::spawn(move || BufReader::new(lines).lines().count());
    std::thread::sleep(Duration::from_secs(1));
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut before, mut grown) = (0, 0);
    while grown < 5 {
        assert!(Instant::now() < deadline, "it grew {grown} times only");
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
