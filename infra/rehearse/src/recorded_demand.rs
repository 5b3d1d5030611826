//! Sends recorded demand to the API: the rows of each product strictly in the file's order, the
//! products concurrently.
//!
//! The next row of a product is sent as soon as the API has acknowledged the order before it, not
//! when that order is decided. Before a cancellation is sent, the answers show which of its
//! buyer's orders still stand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api_types::Answer;
use crate::client::{CallError, OrderRequest};
use crate::observations::{AttemptObservation, Run, SaleObservation};
use crate::order_file::text::OrderFile;
use crate::order_file::{Offer, Order, Row, Rows, Skip, Survey};
use crate::sales;

/// How many rows are read ahead of those being sent.
const READ_AHEAD: usize = 1024;

/// What became of the rows of a file.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The sales, in the order of their first attempts.
    pub sales: Vec<SaleObservation>,
    /// Cancellations with no order to cancel.
    pub unmatched: u64,
    /// Rows that are neither attempts nor cancellations.
    pub skipped: BTreeMap<Skip, u64>,
}

/// A row on its way to its product.
struct QueuedRow {
    /// The row's number, from 1.
    number: u64,
    cancels: bool,
    order: Order,
    /// Its permission to be in flight.
    permit: OwnedSemaphorePermit,
}

/// Creates the sales and sends the file's rows, at most `connections` of them in flight at once.
/// An attempt is in flight until it is answered.
pub async fn drive(
    run: &Arc<Run>,
    file: &OrderFile,
    survey: &Survey,
    seed: u64,
    connections: usize,
) -> anyhow::Result<Outcome> {
    let sales: Vec<_> = survey.offers.iter().map(new_sale).collect();
    let terms = |index: usize| {
        let offer = &survey.offers[index];
        let name = match &*offer.name {
            "" => &*offer.product,
            name => name,
        };
        let price = json!({ "minor": offer.price_pence, "currency": "GBP" });
        json!({ "name": name, "price": price, "stock": offer.stock })
    };
    sales::create_all(run, &sales, terms, connections).await?;

    let mut lanes = JoinSet::new();
    let mut senders = Vec::with_capacity(sales.len());
    for (index, sale) in sales.into_iter().enumerate() {
        // Each row in the channel holds one of the permits, which bounds the channel.
        let (sender, rows) = mpsc::unbounded_channel();
        senders.push(sender);
        let lane = Lane {
            run: run.clone(),
            seed,
            sale,
            standing: HashMap::new(),
            unmatched: 0,
            answers: JoinSet::new(),
        };
        lanes.spawn(async move { (index, lane.send(rows).await) });
    }
    let mut outcome = Outcome::default();
    feed(run, file, survey, &senders, connections, &mut outcome).await?;
    drop(senders);

    let mut served = BTreeMap::new();
    while let Some(done) = lanes.join_next().await {
        let (index, lane) = done.context("the task of a product ended without a result")?;
        let (sale, unmatched) = lane?;
        outcome.unmatched += unmatched;
        served.insert(index, sale);
    }
    outcome.sales = served.into_values().collect();
    Ok(outcome)
}

fn new_sale(offer: &Offer) -> SaleObservation {
    SaleObservation {
        product_id: offer.product.clone(),
        stock: offer.stock,
        ..SaleObservation::default()
    }
}

/// Passes each row to its product, in the file's order.
async fn feed(
    run: &Run,
    file: &OrderFile,
    survey: &Survey,
    lanes: &[mpsc::UnboundedSender<QueuedRow>],
    connections: usize,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(connections));
    let rows = Rows::open(file)?;
    let (sender, mut read) = mpsc::channel(READ_AHEAD);
    let reader = tokio::task::spawn_blocking(move || {
        for row in rows {
            if sender.blocking_send(row).is_err() {
                break;
            }
        }
    });
    let mut number = 0;
    while let Some(row) = read.recv().await {
        number += 1;
        run.progress.inc(1);
        let (cancels, order) = match row? {
            Row::Attempt(order) => (false, order),
            Row::Cancel(order) => (true, order),
            Row::Skipped(why) => {
                *outcome.skipped.entry(why).or_default() += 1;
                continue;
            }
            Row::Unreadable { line, .. } => {
                bail!("the file has changed since it was read first, at line {line}")
            }
        };
        let Some(lane) = survey.offer_of.get(&order.product) else {
            outcome.unmatched += 1;
            continue;
        };
        let permit = permits.clone().acquire_owned().await?;
        let row = QueuedRow {
            number,
            cancels,
            order,
            permit,
        };
        // A lane that has ended has failed, and returns why when it is joined.
        if run.gave_up() || lanes[*lane].send(row).is_err() {
            break;
        }
    }
    drop(read);
    reader
        .await
        .context("the task that reads the file ended without a result")
}

/// One product's rows.
struct Lane {
    run: Arc<Run>,
    seed: u64,
    sale: SaleObservation,
    /// The attempts of each buyer and quantity that are not known to be refused or cancelled, by
    /// index, the latest last.
    standing: HashMap<(Arc<str>, u32), Vec<usize>>,
    unmatched: u64,
    answers: JoinSet<(usize, Result<Option<Answer>, CallError>)>,
}

impl Lane {
    async fn send(
        mut self,
        mut rows: mpsc::UnboundedReceiver<QueuedRow>,
    ) -> Result<(SaleObservation, u64), CallError> {
        while let Some(row) = rows.recv().await {
            match row.cancels {
                true => self.cancel(row.order).await?,
                false => self.attempt(row.number, row.order, row.permit).await?,
            }
            while let Some(Ok(answer)) = self.answers.try_join_next() {
                self.keep(answer)?;
            }
        }
        while let Some(Ok(answer)) = self.answers.join_next().await {
            self.keep(answer)?;
        }
        Ok((self.sale, self.unmatched))
    }

    async fn attempt(
        &mut self,
        number: u64,
        order: Order,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), CallError> {
        let run = self.run.clone();
        let since = Instant::now();
        let key = format!("rehearsal-{}-row-{number}", self.seed);
        let Order {
            product,
            buyer,
            quantity,
            ..
        } = order;
        let request = OrderRequest {
            product: &product,
            buyer: &buyer,
            key: &key,
            quantity,
        };
        let Some(receipt) = run.order(request, since).await? else {
            return Ok(());
        };
        let index = self.sale.attempts.len();
        self.sale.attempts.push(AttemptObservation {
            buyer: buyer.clone(),
            quantity,
            receipt,
            repeated: None,
            answer: None,
            cancel: None,
            at_end: None,
        });
        self.standing
            .entry((buyer, quantity))
            .or_default()
            .push(index);
        self.answers.spawn(async move {
            let answer = run.answer(receipt.attempt_id, since).await;
            drop(permit);
            (index, answer)
        });
        Ok(())
    }

    async fn cancel(&mut self, order: Order) -> Result<(), CallError> {
        let Order {
            product,
            buyer,
            quantity,
            ..
        } = order;
        let mut standing = self
            .standing
            .remove(&(buyer.clone(), quantity))
            .unwrap_or_default();
        while let Some(index) = standing.pop() {
            let attempt = &mut self.sale.attempts[index];
            let attempt_id = attempt.receipt.attempt_id;
            let Some(answer) = self.run.client.answer(attempt_id).await? else {
                continue;
            };
            let accepted = answer.status.is_accepted();
            // The task that waits for the answer may read it only after the cancellation.
            attempt.answer.get_or_insert(answer);
            if accepted {
                attempt.cancel = self.run.cancel(&product, &buyer, attempt_id).await?;
                self.standing.insert((buyer, quantity), standing);
                return Ok(());
            }
        }
        self.unmatched += 1;
        Ok(())
    }

    fn keep(
        &mut self,
        (index, answer): (usize, Result<Option<Answer>, CallError>),
    ) -> Result<(), CallError> {
        if let Some(answer) = answer? {
            self.sale.attempts[index].answer.get_or_insert(answer);
        }
        Ok(())
    }
}
