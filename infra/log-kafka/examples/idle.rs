//! temporary
use std::time::Duration;
use log_kafka::{KafkaLog, Options, Security};
use ports::EventLog;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let brokers = std::env::args().nth(1).unwrap();
    let log = KafkaLog::open(Options { brokers, topic_prefix: "idle-".into(), partitions: 8, replication: 1, min_insync: 1, queue_records: 100_000, queue_bytes: 64 << 20, session_timeout: Duration::from_secs(6), security: Security::default() }).await?;
    let mut readers = vec![];
    for _ in 0..3 { for t in [Topic::PurchaseAttempts, Topic::StockDecisions] { for p in 0..8 { readers.push(log.read(t, Partition(p), Offset(0)).await?); } } }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu = || std::fs::read_to_string("/proc/self/stat").unwrap().split(' ').skip(13).take(2).map(|x| x.parse::<u64>().unwrap()).sum::<u64>();
    let kpid = std::env::args().nth(2).unwrap();
    let kcpu = || std::fs::read_to_string(format!("/proc/{kpid}/stat")).unwrap().split(' ').skip(13).take(2).map(|x| x.parse::<u64>().unwrap()).sum::<u64>();
    let (a, b) = (cpu(), kcpu());
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("client {} ticks, broker {} ticks in 10 s (100 = 1 core-s); threads {}", cpu() - a, kcpu() - b, std::fs::read_dir("/proc/self/task").unwrap().count());
    Ok(())
}
