//! Deciding: read log 1, decide, append to log 2, and read it back before trusting it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use domain::Turn;
use futures::future::{BoxFuture, OptionFuture};
use ports::{AppendError, Group, LogRecord, NewRecord, ReadError};
use runtime::health::{Component, REPORT_EVERY};
use runtime::metrics::{DECIDER_LAG, DECISION_SECONDS, DECISIONS};
use schemas::command::{Command, CommandBody};
use schemas::decision::{Decision, DecisionRecord, Event};
use schemas::fence::{Head, Verdict};
use schemas::ids::{Offset, ProductId};
use schemas::topics::Topic;
use tokio_util::sync::CancellationToken;

use super::checkpoint;
use super::claim::Held;
use super::{Decider, DeciderError};

/// So many attempts are looked ahead at before the first of them is decided: about as many as the
/// processor fetches side by side.
const LOOK_AHEAD: usize = 16;
/// The most decisions waiting to be appended; at that, log 1 is not read on.
const MAX_PENDING: usize = 4_000;
/// The most bytes of decisions appended at once.
const MAX_APPEND_BYTES: usize = 1_000_000;
/// The most decisions appended but not read back; at that, log 1 is not read on.
const MAX_UNCONFIRMED: i64 = 50_000;

/// Decides on a partition until `stop`, or until it is someone else's.
pub(crate) async fn decide(
    decider: &Decider,
    held: Held,
    component: &Component,
    stop: &CancellationToken,
) -> Result<(), DeciderError> {
    let next = held.fence.answered.next();
    let mut commands = decider
        .log
        .read(Topic::PurchaseAttempts, held.partition, next)
        .await?;
    let mut work = Work::new(decider, held);
    let mut report = tokio::time::interval(REPORT_EVERY);
    loop {
        work.append_pending();
        work.begin_checkpoint_if_due();
        let until_deadline = work.until_deadline().filter(|_| work.asking.is_none());
        tokio::select! {
            // What ends the work or is due comes before new work, which may never run out.
            biased;
            () = stop.cancelled() => break,
            records = work.held.decisions.next() => work.read_back(&records?)?,
            Some(appended) = OptionFuture::from(work.appending.as_mut()) => {
                work.appending = None;
                appended?;
            }
            Some(()) = OptionFuture::from(work.asking.as_mut()) => work.asking = None,
            Some(completed) = OptionFuture::from(work.checkpointing.as_mut()) => {
                work.checkpointing = None;
                work.end_checkpoint(completed);
            }
            _ = report.tick(), if work.measuring.is_none() => work.measure(),
            Some(end) = OptionFuture::from(work.measuring.as_mut()) => {
                work.measuring = None;
                work.report(component, end);
            }
            Some(()) = OptionFuture::from(until_deadline.map(tokio::time::sleep)) => {
                work.let_time_pass();
            }
            records = commands.next(), if work.may_read() => work.decide(&records?)?,
        }
    }
    work.finish().await
}

/// How decisions came out.
#[derive(Default)]
struct Outcomes {
    accepted: u64,
    refused: u64,
    other: u64,
}

impl Outcomes {
    fn count(&mut self, decision: &Decision) {
        match decision.events.last() {
            Some(Event::OrderAccepted(_)) => self.accepted += 1,
            Some(Event::AttemptRefused(_)) => self.refused += 1,
            _ => self.other += 1,
        }
    }

    fn report(&self, partition: &str) {
        for (outcome, count) in [
            ("accepted", self.accepted),
            ("refused", self.refused),
            ("other", self.other),
        ] {
            if count > 0 {
                let labels = [
                    ("partition", partition.to_owned()),
                    ("outcome", outcome.to_owned()),
                ];
                metrics::counter!(DECISIONS, &labels).increment(count);
            }
        }
    }
}

struct Work<'a> {
    decider: &'a Decider,
    held: Held,
    label: [(&'static str, String); 1],
    /// The last offset of log 1 decided on, whether appended yet or not.
    decided: Offset,
    /// Decisions not yet given to the log.
    pending: VecDeque<NewRecord>,
    /// Decisions not yet read back, in the order in which log 2 should have them: their bytes,
    /// shared with the record that is appended, and what they say of themselves.
    unconfirmed: VecDeque<(Bytes, Head)>,
    appending: Option<BoxFuture<'static, Result<Offset, AppendError>>>,
    asking: Option<BoxFuture<'static, ()>>,
    checkpointing: Option<BoxFuture<'static, Result<Offset, AppendError>>>,
    /// Asking where log 1 ends.
    measuring: Option<BoxFuture<'static, Result<Offset, ReadError>>>,
    /// The place in log 2 after what was read back.
    read_back: Offset,
}

impl<'a> Work<'a> {
    fn new(decider: &'a Decider, held: Held) -> Self {
        let label = [("partition", held.partition.to_string())];
        let (decided, read_back) = (held.fence.answered, held.claim.next());
        let (pending, unconfirmed) = (VecDeque::new(), VecDeque::new());
        let (appending, asking, checkpointing, measuring) = (None, None, None, None);
        Self {
            decider,
            held,
            label,
            decided,
            pending,
            unconfirmed,
            appending,
            asking,
            checkpointing,
            measuring,
            read_back,
        }
    }

    /// Decides on what log 1 brought. What is decided is told to nobody before it is read back.
    fn decide(&mut self, records: &[LogRecord]) -> Result<(), DeciderError> {
        let mut outcomes = Outcomes::default();
        for records in records.chunks(LOOK_AHEAD) {
            let commands = self.decode(records)?;
            self.held.products.look_ahead(&commands);
            for (record, command) in records.iter().zip(&commands) {
                self.answer(record, command, &mut outcomes)?;
            }
        }
        self.held.since_checkpoint += records.len() as u64;
        outcomes.report(&self.label[0].1);
        if let Some(oldest) = records.first() {
            let delay_ms = (self.decider.clock.now_ms() - oldest.appended_at_ms).max(0);
            metrics::histogram!(DECISION_SECONDS, &self.label).record(delay_ms as f64 / 1000.0);
        }
        Ok(())
    }

    fn decode(&self, records: &[LogRecord]) -> Result<Vec<Command>, DeciderError> {
        let decode = |record: &LogRecord| {
            let command = self.decider.codec.decode_command(&record.value);
            command.map_err(|error| DeciderError::Decode {
                topic: Topic::PurchaseAttempts,
                offset: record.offset,
                error,
            })
        };
        records.iter().map(decode).collect()
    }

    fn answer(
        &mut self,
        record: &LogRecord,
        command: &Command,
        outcomes: &mut Outcomes,
    ) -> Result<(), DeciderError> {
        let turn = Turn {
            claim: self.held.claim,
            offset: record.offset,
            follows: self.decided,
            appended_at_ms: record.appended_at_ms,
        };
        let answered = self.held.products.answer(command, turn);
        let decision = answered.map_err(|violation| DeciderError::Violation {
            topic: Topic::PurchaseAttempts,
            offset: record.offset,
            violation,
        })?;
        outcomes.count(&decision);
        let product = &command.product_id;
        let previous = self.held.products.chain(product);
        let head = Head::from(&decision);
        let (value, chain) = self.decider.codec.encode_chained(decision, previous);
        self.held.products.set_chain(product, chain);
        let value = Bytes::from(value);
        self.unconfirmed.push_back((value.clone(), head));
        self.pending.push_back(NewRecord {
            key: record.key.clone(),
            value,
            headers: record.headers.clone(),
        });
        self.decided = record.offset;
        Ok(())
    }

    fn may_read(&self) -> bool {
        let unconfirmed = self.decided.0 - self.held.fence.answered.0;
        !self.checkpoint_is_due()
            && self.pending.len() < MAX_PENDING
            && unconfirmed < MAX_UNCONFIRMED
    }

    /// Gives the log what is decided, one append at a time: what comes meanwhile goes together,
    /// and nothing is on its way behind a failure.
    fn append_pending(&mut self) {
        if self.appending.is_some() || self.pending.is_empty() {
            return;
        }
        let mut bytes = 0;
        let fits = self.pending.iter().take_while(|record| {
            bytes += record.value.len();
            bytes <= MAX_APPEND_BYTES
        });
        let count = fits.count().max(1);
        let records = self.pending.drain(..count).collect();
        let (log, partition) = (self.decider.log.clone(), self.held.partition);
        self.appending = Some(Box::pin(async move {
            log.append(Topic::StockDecisions, partition, records).await
        }));
    }

    /// Holds what log 2 has against what was decided here. The next decision of ours is known
    /// by its bytes; only what is something else is decoded.
    fn read_back(&mut self, records: &[LogRecord]) -> Result<(), DeciderError> {
        for record in records {
            let offset = record.offset;
            let ours = self
                .unconfirmed
                .pop_front_if(|(value, _)| *value == record.value);
            match ours {
                Some((_, head)) => {
                    if self.held.fence.pass_decision(head) == Verdict::Dropped {
                        return Err(DeciderError::Dropped(offset));
                    }
                }
                None => self.read_other(record)?,
            }
            self.read_back = offset.next();
        }
        Ok(())
    }

    /// Takes a record of log 2 that is not the next one written here.
    fn read_other(&mut self, record: &LogRecord) -> Result<(), DeciderError> {
        let offset = record.offset;
        let decoded = self.decider.decision(record)?;
        match (self.held.fence.pass(offset, &decoded), decoded) {
            (Verdict::Claimed, _) => Err(DeciderError::Superseded(offset)),
            (Verdict::Dropped, DecisionRecord::Decision(decision))
                if decision.claim == self.held.claim =>
            {
                Err(DeciderError::Dropped(offset))
            }
            _ => Ok(()),
        }
    }

    fn checkpoint_is_due(&self) -> bool {
        let (since, remembered) = (self.held.since_checkpoint, self.held.products.remembered());
        self.checkpointing.is_none() && self.decider.checkpoints.is_due(since, remembered)
    }

    /// Begins a checkpoint once all that was decided has been read back. Until then nothing new
    /// is decided, which takes as long as one append.
    fn begin_checkpoint_if_due(&mut self) {
        if !self.checkpoint_is_due() || self.held.fence.answered != self.decided {
            return;
        }
        let writing = checkpoint::begin(self.decider, &self.held, self.read_back);
        self.checkpointing = Some(Box::pin(writing.write()));
        self.held.since_checkpoint = 0;
    }

    fn end_checkpoint(&mut self, completed: Result<Offset, AppendError>) {
        match completed {
            Ok(offset) => self.held.checkpoint = offset,
            Err(error) => checkpoint::report_failure(self.held.partition, &error),
        }
    }

    /// How long until the first deadline, if there is one.
    fn until_deadline(&self) -> Option<Duration> {
        let deadline = self.held.products.deadlines.first()?;
        let wait_ms = (deadline - self.decider.clock.now_ms()).max(0);
        Some(Duration::from_millis(wait_ms as u64))
    }

    /// Asks log 1 to let time pass for the products whose deadline has come.
    fn let_time_pass(&mut self) {
        let due = self
            .held
            .products
            .deadlines
            .take_due(self.decider.clock.now_ms());
        if due.is_empty() {
            return;
        }
        let records = due
            .into_iter()
            .map(|product| self.time_advanced(product))
            .collect();
        let (log, partition) = (self.decider.log.clone(), self.held.partition);
        self.asking = Some(Box::pin(async move {
            // When that fails the deadline is still due, and it is asked again.
            if let Err(error) = log
                .append(Topic::PurchaseAttempts, partition, records)
                .await
            {
                tracing::debug!(%partition, %error, "could not let time pass; trying again");
            }
        }));
    }

    fn time_advanced(&self, product_id: ProductId) -> NewRecord {
        let key = Bytes::copy_from_slice(product_id.as_str().as_bytes());
        let command = Command {
            product_id,
            body: CommandBody::TimeAdvanced,
        };
        let value = self.decider.codec.encode_command(command).into();
        NewRecord {
            key,
            value,
            headers: vec![],
        }
    }

    /// Asks how long log 1 is. Deciding does not wait for the answer, nor depend on it.
    fn measure(&mut self) {
        let (log, partition) = (self.decider.log.clone(), self.held.partition);
        self.measuring = Some(Box::pin(async move {
            log.end(Topic::PurchaseAttempts, partition).await
        }));
    }

    /// Tells health and metrics how far behind the partition is.
    fn report(&self, component: &Component, end: Result<Offset, ReadError>) {
        match end {
            Ok(end) => {
                let next = self.held.fence.answered.next();
                let lag = (end.0 - next.0).max(0) as u64;
                metrics::gauge!(DECIDER_LAG, &self.label).set(lag as f64);
                component.working(lag);
            }
            Err(error) => component.failing(error.to_string()),
        }
        self.note_progress();
    }

    fn note_progress(&self) {
        let next = self.held.fence.answered.next();
        self.decider
            .log
            .note_progress(Group::Deciders, self.held.partition, next);
    }

    /// Appends what was decided, so that the next decider need not decide it again.
    async fn finish(mut self) -> Result<(), DeciderError> {
        while self.appending.is_some() || !self.pending.is_empty() {
            self.append_pending();
            if let Some(appending) = self.appending.take() {
                appending.await?;
            }
        }
        self.note_progress();
        Ok(())
    }
}
