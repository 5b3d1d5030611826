//! Drives recorded demand through the door: every product strictly in the file's order, the
//! products beside one another.
//!
//! An order is followed by the product's next row as soon as the door has taken it, not when
//! it is decided. A cancellation first learns which of its buyer's orders stand, then is sent.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::CallError;
use super::recorded::{Order, Row, Rows, Skip, Survey};
use super::said::Answer;
use super::sales;
use super::seen::{AttemptSeen, Run, SaleSeen};

/// Rows read ahead of those being sent.
const READ_AHEAD: usize = 1024;

/// What became of a file.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The sales, in the order of their first attempts.
    pub sales: Vec<SaleSeen>,
    /// Cancellations with no order to cancel.
    pub unmatched: u64,
    /// Rows that are neither attempts nor cancellations.
    pub skipped: BTreeMap<Skip, u64>,
}

/// A row on its way to its product.
struct Turn {
    /// The row's number, from 1.
    number: u64,
    cancels: bool,
    order: Order,
    /// Its leave to be under way.
    permit: OwnedSemaphorePermit,
}

/// Puts the sales on and sends the file's rows, at most `connections` of them under way at
/// once: an attempt is under way until it is answered.
pub async fn drive(
    run: &Arc<Run>,
    path: &Path,
    survey: &Survey,
    seed: u64,
    connections: usize,
) -> anyhow::Result<Outcome> {
    let sales: Vec<_> = survey.offers.iter().map(offered).collect();
    let terms = |index: usize| {
        let offer = &survey.offers[index];
        let name = match &*offer.name {
            "" => &*offer.product,
            name => name,
        };
        let price = json!({ "minor": offer.price_pence, "currency": "GBP" });
        json!({ "name": name, "price": price, "stock": offer.stock })
    };
    sales::put_on(run, &sales, terms, connections).await?;

    let mut lanes = JoinSet::new();
    let mut senders = Vec::with_capacity(sales.len());
    for (index, sale) in sales.into_iter().enumerate() {
        // A turn in the channel holds one of the permits, and that bounds the channel.
        let (sender, turns) = mpsc::unbounded_channel();
        senders.push(sender);
        let lane = Lane {
            run: run.clone(),
            seed,
            sale,
            standing: HashMap::new(),
            unmatched: 0,
            answers: JoinSet::new(),
        };
        lanes.spawn(async move { (index, lane.serve(turns).await) });
    }
    let mut outcome = Outcome::default();
    feed(run, path, survey, &senders, connections, &mut outcome).await?;
    drop(senders);

    let mut served = BTreeMap::new();
    while let Some(done) = lanes.join_next().await {
        let (index, lane) = done.context("a product's rows could not be sent")?;
        let (sale, unmatched) = lane?;
        outcome.unmatched += unmatched;
        served.insert(index, sale);
    }
    outcome.sales = served.into_values().collect();
    Ok(outcome)
}

fn offered(offer: &super::recorded::Offer) -> SaleSeen {
    SaleSeen {
        product_id: offer.product.clone(),
        stock: offer.stock,
        ..SaleSeen::default()
    }
}

/// Hands each row to its product, in the file's order.
async fn feed(
    run: &Run,
    path: &Path,
    survey: &Survey,
    lanes: &[mpsc::UnboundedSender<Turn>],
    connections: usize,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(connections));
    let rows = Rows::open(path)?;
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
        };
        let Some(lane) = survey.offer_of.get(&order.product) else {
            outcome.unmatched += 1;
            continue;
        };
        let permit = permits.clone().acquire_owned().await?;
        let turn = Turn {
            number,
            cancels,
            order,
            permit,
        };
        // A lane that has ended has failed, and tells why when it is joined.
        if run.gave_up() || lanes[*lane].send(turn).is_err() {
            break;
        }
    }
    drop(read);
    reader.await.context("reading the file was cut short")
}

/// One product's rows.
struct Lane {
    run: Arc<Run>,
    seed: u64,
    sale: SaleSeen,
    /// Each buyer's attempts of each quantity, by index, the latest last: those not yet known
    /// to be refused or cancelled.
    standing: HashMap<(Arc<str>, u32), Vec<usize>>,
    unmatched: u64,
    answers: JoinSet<(usize, Result<Option<Answer>, CallError>)>,
}

impl Lane {
    async fn serve(
        mut self,
        mut turns: mpsc::UnboundedReceiver<Turn>,
    ) -> Result<(SaleSeen, u64), CallError> {
        while let Some(turn) = turns.recv().await {
            match turn.cancels {
                true => self.cancel(turn.order).await?,
                false => self.attempt(turn.number, turn.order, turn.permit).await?,
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
        let receipt = run.order(&product, &buyer, &key, quantity, since).await?;
        let Some(receipt) = receipt else {
            return Ok(());
        };
        let index = self.sale.attempts.len();
        self.sale.attempts.push(AttemptSeen {
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
            // The answer's own waiter may come late and find the order cancelled already.
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
