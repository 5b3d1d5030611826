//! SIGKILL during a write: a child process appends and prints what was acknowledged, until it is
//! killed.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ports::clock::SystemClock;
use rand::RngExt;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use super::subject::{PARTITIONS, Subject, read_to_end, record};
use super::{EMBEDDED, KAFKA, Queue};

/// How often a child is killed on one log.
const ROUNDS: usize = 8;
/// The longest time from a child's first acknowledgement to its kill.
const LONGEST_MS: u64 = 300;
/// The variables that pass adapter, directory and round to the child.
const ADAPTER: &str = "CONFORMANCE_ADAPTER";
const DIR: &str = "CONFORMANCE_DIR";
const ROUND: &str = "CONFORMANCE_ROUND";

pub(super) async fn acknowledged_survives_sigkill(s: &mut Subject) {
    if !s.adapter.outlives_process {
        return;
    }
    s.close().await;
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let (adapter, dir) = (s.adapter.name, s.dir.path().to_owned());
        let output = tokio::task::spawn_blocking(move || {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "log_cases::kill::append_until_killed"]);
            child.args(["--ignored", "--nocapture"]);
            child
                .env(ADAPTER, adapter)
                .env(DIR, dir)
                .env(ROUND, round.to_string())
                .env(engines::DIRECTORY_VARIABLE, engines::shared().dir());
            run_and_kill(child)
        });
        let output = output.await.unwrap();
        let before = acknowledged.len();
        acknowledged.extend(output.lines().filter_map(parse));
        assert!(
            acknowledged.len() > before,
            "round {round} acknowledged something: {output}"
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

/// Runs the child, kills it at a random moment after its first acknowledgement, and returns its
/// output.
fn run_and_kill(mut child: Command) -> String {
    let mut child = child
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (started, first) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let (mut output, mut buffer) = (Vec::new(), [0; 1 << 16]);
        loop {
            let read = stdout.read(&mut buffer).unwrap();
            output.extend_from_slice(&buffer[..read]);
            if output.windows(6).any(|bytes| bytes == b"\nacked") {
                // Only the first signal is received.
                let _ = started.send(());
            }
            if read == 0 {
                return output;
            }
        }
    });
    let in_time = first.recv_timeout(Duration::from_secs(30));
    std::thread::sleep(Duration::from_millis(
        rand::rng().random_range(0..LONGEST_MS),
    ));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let output = String::from_utf8(reading.join().unwrap()).unwrap();
    assert!(
        in_time.is_ok(),
        "the child acknowledges something within 30 seconds: {output}"
    );
    assert!(
        status.code().is_none(),
        "the child ran until it was killed: {status}, {output}"
    );
    // The last line may be incomplete.
    output[..output.rfind('\n').unwrap() + 1].to_owned()
}

fn parse(line: &str) -> Option<(Partition, Offset, String)> {
    let mut words = line.strip_prefix("acked ")?.splitn(3, ' ');
    let partition = Partition(words.next()?.parse().ok()?);
    let offset = Offset(words.next()?.parse().ok()?);
    Some((partition, offset, words.next()?.to_owned()))
}

/// The child: 64 appenders that print a line for each acknowledged append.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run as a child process by the SIGKILL case, which kills it"]
async fn append_until_killed() {
    let (Ok(adapter), Ok(dir)) = (std::env::var(ADAPTER), std::env::var(DIR)) else {
        return;
    };
    let round = std::env::var(ROUND).unwrap();
    let mut adapters = [&EMBEDDED, &KAFKA].into_iter();
    let adapter = adapters.find(|one| one.name == adapter).unwrap();
    let opened = (adapter.open)(dir.as_ref(), Arc::new(SystemClock), Queue::Usual).await;
    let log = opened.log;
    // So that it does not run forever if its parent fails.
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
