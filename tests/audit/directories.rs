//! Audits of data directories: live, stopped, copied, damaged, incomplete.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audit::command::{Args, carry_out};
use command_api::decider::{self, CheckpointPolicy, Decider};
use doorbuster::audit_source::open;
use log_embedded::{EmbeddedLog, Options};
use ports::clock::SystemClock;
use ports::{CheckedClock, Clock, EventLog, NewRecord, ReadStore};
use projector::run::Projector;
use runtime::health::Health;
use runtime::settings::Flags;
use schemas::codec::Codec;
use schemas::command::Command;
use schemas::ids::{Offset, Partition};
use schemas::placement::Placement;
use schemas::topics::Topic;
use store_embedded::EmbeddedStore;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::Shoppers;

const PARTITIONS: u32 = 2;

/// A decider and a projector on a data directory.
pub struct Service {
    pub log: Arc<EmbeddedLog>,
    store: Arc<EmbeddedStore>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Service {
    pub fn start(dir: &Path) -> Self {
        let clock = Arc::new(CheckedClock::new(Arc::new(SystemClock), Duration::MAX));
        // Small, so that there are several segments.
        let options = Options {
            partitions: PARTITIONS,
            segment_bytes: 4 << 20,
            queue_bytes: 1 << 20,
            ..Options::default()
        };
        let log = Arc::new(EmbeddedLog::open(&dir.join("log"), options, clock.clone()).unwrap());
        let store = Arc::new(EmbeddedStore::open(&dir.join("read-models.redb")).unwrap());
        let codec = Arc::new(Codec::embedded());
        let decider = Decider {
            log: log.clone(),
            codec: codec.clone(),
            clock,
            health: Health::default(),
            name: "audited".into(),
            checkpoints: CheckpointPolicy::default(),
        };
        let projector = Projector {
            log: log.clone(),
            store: store.clone(),
            codec,
            health: Health::default(),
        };
        let stop = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(decider::run(decider, stop.clone())),
            tokio::spawn(projector::run(projector, stop.clone())),
        ];
        Self {
            log,
            store,
            stop,
            tasks,
        }
    }

    pub async fn put(&self, command: Command) -> Offset {
        let partition = Placement::new(PARTITIONS).partition_of(&command.product_id);
        let value = Codec::embedded().encode_command(command).into();
        let record = NewRecord {
            value,
            ..NewRecord::default()
        };
        self.log
            .append(Topic::PurchaseAttempts, partition, vec![record])
            .await
            .unwrap()
    }

    /// Waits until every record is decided and projected.
    pub async fn settled(&self) {
        let settled = async {
            loop {
                let progress = self.store.progress().await.unwrap();
                let mut behind = false;
                for partition in (0..PARTITIONS).map(Partition) {
                    let end = self
                        .log
                        .end(Topic::PurchaseAttempts, partition)
                        .await
                        .unwrap();
                    let answered = progress.get(&partition).map_or(-1, |at| at.answered.0);
                    behind |= answered + 1 < end.0;
                }
                if !behind {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), settled)
            .await
            .expect("everything is decided and projected within a minute");
    }

    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.store.close().unwrap();
        self.log.close().unwrap();
    }
}

pub fn args(dir: &Path) -> Args {
    Args {
        flags: Flags::default().with("data_dir", dir.to_str().unwrap()),
        distributed: false,
        json: None,
        partition: None,
        product: None,
        heads: false,
        receipt: None,
    }
}

/// The exit status and the summary.
async fn audited(dir: &Path) -> (u8, serde_json::Value) {
    let out = TempDir::new().unwrap();
    let json = out.path().join("summary.json");
    let args = Args {
        json: Some(json.clone()),
        heads: true,
        ..args(dir)
    };
    let status = carry_out(&args, open).await.unwrap();
    (
        status,
        serde_json::from_slice(&fs::read(json).unwrap()).unwrap(),
    )
}

fn sum(summary: &serde_json::Value, of: &str) -> u64 {
    let partitions = summary["partitions"].as_array().unwrap();
    partitions
        .iter()
        .map(|partition| partition[of].as_u64().unwrap())
        .sum()
}

async fn stopped(seed: u64, commands: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    let service = Service::start(dir.path());
    let mut shoppers = Shoppers::new(seed);
    for _ in 0..commands {
        service.put(shoppers.next(SystemClock.now_ms())).await;
    }
    service.settled().await;
    service.stop().await;
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_of_a_stopped_directory_passes_and_changes_nothing() {
    let dir = stopped(1, 500).await;
    let before = contents(dir.path());
    let (status, summary) = audited(dir.path()).await;
    assert_eq!(
        (status, &summary["violation"]),
        (0, &serde_json::Value::Null),
        "{summary}"
    );
    assert_eq!(summary["read_models"]["state"], "equal");
    // Deadlines that passed meanwhile are records, too.
    assert!(sum(&summary, "records") >= 500);
    assert_eq!(
        sum(&summary, "records"),
        sum(&summary, "decisions") + sum(&summary, "undecided")
    );
    assert_eq!(sum(&summary, "claims"), u64::from(PARTITIONS));
    assert_eq!(contents(dir.path()), before, "an audit changes nothing");
}

/// Read models beside another log, and beside an earlier state of their own.
#[tokio::test(flavor = "multi_thread")]
async fn read_models_of_another_log_are_not_compared() {
    let (one, other) = (stopped(1, 200).await, stopped(2, 300).await);
    let models = "read-models.redb";
    fs::copy(other.path().join(models), one.path().join(models)).unwrap();
    let (status, summary) = audited(one.path()).await;
    let why = summary["read_models"]["why"].as_str().unwrap();
    assert_eq!(status, 3, "{summary}");
    assert!(
        why.contains("are of log") || why.contains("lost its end"),
        "{why}"
    );
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_of_a_live_directory_under_load_passes() {
    let dir = TempDir::new().unwrap();
    let service = Arc::new(Service::start(dir.path()));
    let done = Arc::new(AtomicBool::new(false));
    let (writing, until) = (service.clone(), done.clone());
    let writer = tokio::spawn(async move {
        let mut shoppers = Shoppers::new(2);
        let mut written = 0u64;
        while !until.load(Ordering::Relaxed) {
            writing.put(shoppers.next(SystemClock.now_ms())).await;
            written += 1;
        }
        written
    });
    // The first rows are in the service's memory before they are in the file.
    while audited(dir.path()).await.1["read_models"]["state"] == "empty" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut counts = Vec::new();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (status, summary) = audited(dir.path()).await;
        assert_eq!(status, 0, "{summary}");
        counts.push(sum(&summary, "decisions"));
    }
    done.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    assert!(
        counts.windows(2).all(|two| two[0] < two[1]),
        "{counts:?}: no decision was written between two audits"
    );
    let service = Arc::into_inner(service).expect("the writer has ended");
    service.settled().await;
    service.stop().await;
    let (status, summary) = audited(dir.path()).await;
    assert_eq!(status, 0, "{summary}");
    assert!(sum(&summary, "decisions") >= written);
    assert_eq!(sum(&summary, "not_applied"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_of_a_copy_of_a_live_directory_passes() {
    let dir = TempDir::new().unwrap();
    let service = Service::start(dir.path());
    let mut shoppers = Shoppers::new(3);
    for _ in 0..300 {
        service.put(shoppers.next(SystemClock.now_ms())).await;
    }
    service.settled().await;
    // Longer than the store keeps rows in memory.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let copy = TempDir::new().unwrap();
    fs::copy(
        dir.path().join("read-models.redb"),
        copy.path().join("read-models.redb"),
    )
    .unwrap();
    fs::create_dir(copy.path().join("log")).unwrap();
    for entry in fs::read_dir(dir.path().join("log"))
        .unwrap()
        .map(Result::unwrap)
    {
        fs::copy(
            entry.path(),
            copy.path().join("log").join(entry.file_name()),
        )
        .unwrap();
    }
    let (status, summary) = audited(copy.path()).await;
    assert_eq!(status, 0, "{summary}");
    assert!(sum(&summary, "decisions") >= 300);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_or_damaged_read_models_have_their_own_exit_status() {
    let dir = stopped(4, 100).await;
    let path = dir.path().join("read-models.redb");
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let (status, summary) = audited(dir.path()).await;
    assert_eq!(
        (status, &summary["violation"]),
        (3, &serde_json::Value::Null),
        "{summary}"
    );
    assert_eq!(summary["read_models"]["state"], "not_compared");
    fs::remove_file(&path).unwrap();
    let (status, summary) = audited(dir.path()).await;
    assert_eq!(status, 3, "{summary}");
    let why = summary["read_models"]["why"].as_str().unwrap();
    assert!(why.contains("read-models.redb"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_that_differ_are_a_violation() {
    let dir = stopped(5, 200).await;
    let path = dir.path().join("read-models.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let progress = store.progress().await.unwrap();
    let (partition, at) = progress.iter().find(|(_, at)| at.answered.0 > 5).unwrap();
    let mut sale = store.sales(None, 1).await.unwrap().remove(0);
    sale.version += 1;
    let row = ports::read_store::Row::Sale(sale.clone());
    store.apply(*partition, vec![row], *at).await.unwrap();
    store.close().unwrap();
    drop(store);
    let (status, summary) = audited(dir.path()).await;
    assert_eq!(status, 1, "{summary}");
    assert_eq!(summary["violation"]["product"], sale.product_id.as_str());
    assert_eq!(summary["read_models"]["state"], "differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_for_what_cannot_be_audited_tells_what_to_do() {
    let dir = TempDir::new().unwrap();
    let nowhere = dir.path().join("nowhere");
    let error = carry_out(&args(&nowhere), open)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(
        "nowhere is not a data directory; name the service's data directory with --data-dir"
    ));

    let dir = stopped(6, 20).await;
    let beyond = Args {
        partition: Some(2),
        ..args(dir.path())
    };
    let error = carry_out(&beyond, open).await.unwrap_err().to_string();
    assert_eq!(error, "there is no partition 2; partitions are 0 to 1");
}
