//! SIGKILL in mid-write: a child appends and says what was acknowledged, until it is killed.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ports::clock::SystemClock;
use rand::RngExt;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use super::subject::{PARTITIONS, Subject, read_to_end, record};
use super::{ADAPTERS, Queue};

/// Kills on one directory.
const ROUNDS: usize = 8;
/// The longest that a child runs before it is killed, from its first acknowledgement on.
const LONGEST_MS: u64 = 300;
/// What the child is told: the adapter, the place, and the round.
const ADAPTER: &str = "CONFORMANCE_ADAPTER";
const PLACE: &str = "CONFORMANCE_PLACE";
const ROUND: &str = "CONFORMANCE_ROUND";

pub(super) async fn acknowledged_outlasts_sigkill(s: &mut Subject) {
    s.close().await;
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let (adapter, place) = (s.adapter.name, s.place.path().to_owned());
        let said = tokio::task::spawn_blocking(move || {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "log_cases::kill::append_until_killed"]);
            child.args(["--ignored", "--nocapture"]);
            child
                .env(ADAPTER, adapter)
                .env(PLACE, place)
                .env(ROUND, round.to_string())
                .env(engines::DIRECTORY_VARIABLE, engines::shared().dir());
            run_and_kill(child)
        });
        let said = said.await.unwrap();
        let before = acknowledged.len();
        acknowledged.extend(said.lines().filter_map(parse));
        assert!(
            acknowledged.len() > before,
            "round {round} acknowledged something: {said}"
        );

        s.reopen(Queue::Usual).await;
        for partition in (0..PARTITIONS).map(Partition) {
            let log = s.log();
            let records = read_to_end(&*log, Topic::StockDecisions, partition, Offset(0)).await;
            let of_partition = acknowledged.iter().filter(|(p, _, _)| *p == partition);
            for (_, offset, value) in of_partition {
                let at = records.binary_search_by_key(offset, |record| record.offset);
                let at = at.unwrap_or_else(|_| panic!("{value} was acknowledged at {offset}"));
                assert_eq!(
                    records[at].value, *value,
                    "partition {partition}, offset {offset}"
                );
            }
        }
        s.close().await;
    }
}

/// Runs the child, kills it at a random moment after it has said something, and returns all
/// that it said.
fn run_and_kill(mut child: Command) -> String {
    let mut child = child
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (started, first) = std::sync::mpsc::channel();
    let listening = std::thread::spawn(move || {
        let (mut said, mut buffer) = (Vec::new(), [0; 1 << 16]);
        loop {
            let read = stdout.read(&mut buffer).unwrap();
            said.extend_from_slice(&buffer[..read]);
            if said.windows(6).any(|bytes| bytes == b"\nacked") {
                // After the first time nobody listens any more.
                let _ = started.send(());
            }
            if read == 0 {
                return said;
            }
        }
    });
    let in_time = first.recv_timeout(Duration::from_secs(30));
    std::thread::sleep(Duration::from_millis(
        rand::rng().random_range(0..LONGEST_MS),
    ));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let said = String::from_utf8(listening.join().unwrap()).unwrap();
    assert!(
        in_time.is_ok(),
        "the child acknowledges something within 30 seconds: {said}"
    );
    assert!(
        status.code().is_none(),
        "the child ran until it was killed: {status}, {said}"
    );
    // The last line may be cut.
    said[..said.rfind('\n').unwrap() + 1].to_owned()
}

fn parse(line: &str) -> Option<(Partition, Offset, String)> {
    let mut words = line.strip_prefix("acked ")?.splitn(3, ' ');
    let partition = Partition(words.next()?.parse().ok()?);
    let offset = Offset(words.next()?.parse().ok()?);
    Some((partition, offset, words.next()?.to_owned()))
}

/// The child: 64 appenders, each of which says what was acknowledged, line by line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child of the SIGKILL case, which ends it; without that one it has nothing to do"]
async fn append_until_killed() {
    let (Ok(adapter), Ok(place)) = (std::env::var(ADAPTER), std::env::var(PLACE)) else {
        return;
    };
    let round = std::env::var(ROUND).unwrap();
    let adapter = ADAPTERS.iter().find(|one| one.name == adapter).unwrap();
    let opened = (adapter.open)(place.as_ref(), Arc::new(SystemClock), Queue::Usual).await;
    let log = opened.log;
    // A parent that fails must not leave it running for good.
    let until = Instant::now() + Duration::from_secs(60);
    let appenders = (0..64).map(|appender: u32| {
        let (log, round) = (log.clone(), round.clone());
        tokio::spawn(async move {
            let partition = Partition(appender % PARTITIONS);
            for n in 0.. {
                if Instant::now() > until {
                    return;
                }
                let value = format!("{round} {appender} {n} {}", "x".repeat(n % 700));
                let call = vec![record("before it"), record(value.clone())];
                let appended = log
                    .append(Topic::StockDecisions, partition, call)
                    .await
                    .unwrap();
                let line = format!("\nacked {partition} {appended} {value}\n");
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        })
    });
    for appender in appenders.collect::<Vec<_>>() {
        appender.await.unwrap();
    }
}
