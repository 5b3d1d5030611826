//! Requests to the command API: orders and cancellations as they are, and those of the seller with
//! the admin token added.
//!
//! An accepted command is in the log once, at the position of the answer and its receipt, and
//! matches the answer. A correction of the time is there once for each product. A refused one leaves nothing in the log, and is the client's mistake. The
//! headers that are kept stay within the log's bounds.

use std::cell::RefCell;
use std::sync::Arc;

use axum::http::{HeaderValue, Method, StatusCode, header};
use command_api::http::{CommandApi, KnownProducts, KnownRounds, RecentOrders};
use command_api::log_watch::LogState;
use kit::{ManualClock, MemoryLog, MemoryStore};
use ports::LogRecord;
use ports::read_store::Row;
use schemas::codec::Codec;
use schemas::command::CommandBody;
use schemas::ids::{Offset, Partition, ProductId};
use schemas::placement::Placement;
use schemas::topics::Topic;
use serde_json::Value;
use sha2::{Digest, Sha256};
use web::problem::Code;
use web::receipt::ReceiptKey;

use crate::http::{ADMIN_TOKEN, NOW, Process, request, settings};
use crate::questions::open_sale;

const PARTITIONS: u32 = 4;
/// After this many commands a new log is started, so that it does not grow without bound.
const MAX_APPENDED: usize = 500;

/// A command API over a log and a store in memory, which knows one product, the sneaker.
struct WriteSide {
    process: Process,
    log: Arc<MemoryLog>,
}

thread_local! {
    static WRITE_SIDE: RefCell<WriteSide> = RefCell::new(WriteSide::new());
}

fn sneaker() -> ProductId {
    "sneaker".parse().expect("it is an id")
}

pub(crate) fn orders(input: &[u8]) {
    run(input, false);
}

pub(crate) fn admin(input: &[u8]) {
    run(input, true);
}

fn run(input: &[u8], as_admin: bool) {
    let Some(mut request) = request(input) else {
        return;
    };
    if as_admin {
        let token = HeaderValue::try_from(format!("Bearer {ADMIN_TOKEN}"));
        let token = token.expect("the token is visible ASCII");
        request.headers_mut().insert(header::AUTHORIZATION, token);
    }
    let is_head = *request.method() == Method::HEAD;
    WRITE_SIDE.with_borrow_mut(|side| {
        let before = side.ends();
        let answer = side.process.send(request);
        let after = side.ends();
        match (answer.status, answer.header("location")) {
            // Of all changes only the correction of all products has no position of its own.
            (StatusCode::ACCEPTED, "") => side.check_corrected(&before, &after, &answer.json()),
            (StatusCode::ACCEPTED, location) => {
                side.check_taken(&before, &after, &answer.json(), location);
            }
            _ => assert_eq!(before, after, "a refused request has left something"),
        }
        let refused = answer.status.is_client_error() && !is_head;
        if refused {
            let code = answer.check_problem();
            assert_ne!(code, Code::RequestTimeout, "nothing here takes time");
        }
        // The only GET of the command API is its own description.
        assert!(
            refused || is_head || answer.status.is_success(),
            "{}: the client is to blame, or nobody",
            answer.status
        );
        if after.iter().sum::<usize>() > MAX_APPENDED {
            *side = WriteSide::new();
        }
    });
}

impl WriteSide {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::still_at(NOW));
        let log = Arc::new(MemoryLog::new(PARTITIONS, clock.clone()));
        let store = MemoryStore::default();
        store.put(Row::Sale(open_sale(sneaker().as_str())));
        let commands = CommandApi {
            log: log.clone(),
            store: Arc::new(store),
            codec: Arc::new(Codec::embedded()),
            placement: Placement::new(PARTITIONS),
            receipts: ReceiptKey::new(&[7; 32]),
            clock,
            known: KnownProducts::default(),
            log_state: LogState::default(),
            rounds: KnownRounds::default(),
            recent: RecentOrders::default(),
        };
        let process = Process::new(async || doorbuster::routes::commands(commands, &settings()));
        Self { process, log }
    }

    fn records(&self, partition: u32) -> Vec<LogRecord> {
        let partition = Partition(partition);
        self.log.records(Topic::PurchaseAttempts, partition)
    }

    /// How many records each partition of `purchase-attempts` has.
    fn ends(&self) -> Vec<usize> {
        (0..PARTITIONS).map(|p| self.records(p).len()).collect()
    }

    /// The time of the one product is corrected by one record.
    fn check_corrected(&self, before: &[usize], after: &[usize], answer: &Value) {
        assert_eq!(answer["products"], 1, "{answer}");
        let partition = Placement::new(PARTITIONS).partition_of(&sneaker());
        let mut expected = before.to_vec();
        expected[partition.0 as usize] += 1;
        assert_eq!(after, expected, "one record, where the product lives");
        let records = self.records(partition.0);
        let record = records.last().expect("a record was appended");
        assert_eq!(record.key, sneaker().as_str());
        let command = Codec::embedded().decode_command(&record.value);
        let command = command.expect("what was appended can be read");
        assert_eq!(command.product_id, sneaker());
        assert_eq!(command.body, CommandBody::CorrectClock);
    }

    fn check_taken(&self, before: &[usize], after: &[usize], answer: &Value, location: &str) {
        let partition = answer["position"]["partition"]
            .as_u64()
            .expect("a partition") as usize;
        let mut expected = before.to_vec();
        expected[partition] += 1;
        assert_eq!(after, expected, "one record, where the answer says");
        let records = self.records(partition as u32);
        let record = records.last().expect("a record was appended");
        assert_eq!(answer["position"]["offset"], record.offset.0);

        let command = Codec::embedded().decode_command(&record.value);
        let command = command.expect("what was appended can be read");
        assert_eq!(answer["product_id"], command.product_id.as_str());
        assert_eq!(record.key, command.product_id.as_str());
        let by_position = format!("/api/commands/{partition}-{}", record.offset);
        let attempt = match command.body {
            CommandBody::PlaceAttempt(place) => {
                let by_id = format!("/api/attempts/{}", place.attempt_id);
                assert!(location.starts_with(&by_id), "{location}");
                place.attempt_id
            }
            CommandBody::CancelOrder(cancel) => {
                assert_eq!(location, by_position);
                cancel.attempt_id
            }
            _ => return assert_eq!(location, by_position),
        };
        assert_eq!(answer["attempt_id"], attempt.to_string());
        let receipt = answer["receipt"].as_str().expect("a receipt");
        let claims = ReceiptKey::new(&[7; 32])
            .verify(receipt)
            .expect("it is ours");
        assert_eq!(claims.sub, attempt.to_string());
        assert_eq!(
            (claims.partition as usize, Offset(claims.offset)),
            (partition, record.offset)
        );
        let digest = Sha256::digest(&record.value);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(claims.value_sha256, digest);
    }
}
