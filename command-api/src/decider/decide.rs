//! Deciding: commands of `purchase-attempts` in, decisions for `stock-decisions` out.

use bytes::Bytes;
use domain::DecisionContext;
use ports::{LogRecord, NewRecord};
use runtime::health::Component;
use runtime::metrics::{CHECKPOINTS, DECISION_SECONDS, RECORDS_SKIPPED};
use schemas::codec::DecodeError;
use schemas::command::{Command, CommandBody};
use schemas::fence::DecisionLink;
use schemas::ids::ProductId;
use tokio_util::sync::CancellationToken;

use super::outcomes::Outcomes;
use super::products::Products;
use super::{Decider, TOPICS};
use crate::partition::PartitionError;
use crate::partition::owned_partition::{CoreStatus, OwnedPartition, Step};
use crate::partition::recovery::Recovery;

/// How many attempts are prefetched before the first of them is decided: about as many as the
/// processor fetches in parallel.
const PREFETCH: usize = 16;

/// Decides on the products of one partition.
pub(super) struct PartitionDecider<'a> {
    decider: &'a Decider,
    partition: OwnedPartition,
    products: Products,
    label: [(&'static str, String); 1],
}

impl<'a> PartitionDecider<'a> {
    /// Begins after the last command answered.
    pub(super) async fn start(
        decider: &'a Decider,
        recovered: Recovery,
        products: Products,
    ) -> Result<Self, PartitionError> {
        let label = [("partition", recovered.partition().to_string())];
        Outcomes::default().report(&label[0].1);
        metrics::counter!(CHECKPOINTS, &label).increment(0);
        metrics::counter!(RECORDS_SKIPPED, &label).increment(0);
        let (policy, clock) = (decider.checkpoints, decider.clock.clone());
        Ok(Self {
            decider,
            partition: OwnedPartition::start(recovered, policy, clock).await?,
            products,
            label,
        })
    }

    /// Decides until `stop`, or until another decider claims the partition.
    pub(super) async fn run(
        mut self,
        component: &Component,
        stop: &CancellationToken,
    ) -> Result<(), PartitionError> {
        loop {
            let status = CoreStatus {
                remembered: self.products.remembered(),
                first_deadline: self.products.deadlines.first(),
            };
            match self.partition.next_step(status, component, stop).await? {
                Step::Decide(records) => {
                    if let Err(error) = self.decide(&records) {
                        // What was decided before is sound, and need not be decided again.
                        self.partition.finish().await?;
                        return Err(error);
                    }
                }
                Step::Deadline => self.let_time_pass(),
                Step::Checkpoint => self.partition.write_checkpoint(self.products.parts()),
                Step::Stop => return self.partition.finish().await,
            }
        }
    }

    /// Decides on a batch of commands. The decisions take effect for clients only once they have
    /// been read back.
    fn decide(&mut self, records: &[LogRecord]) -> Result<(), PartitionError> {
        let mut outcomes = Outcomes::default();
        let mut left = records;
        let mut decided = Ok(());
        while decided.is_ok() && !left.is_empty() {
            let (some, after) = left.split_at(left.len().min(PREFETCH));
            let (commands, undecodable) = self.decode(some);
            self.products.prefetch(&commands);
            decided = some
                .iter()
                .zip(&commands)
                .try_for_each(|(record, command)| self.answer(record, command, &mut outcomes));
            left = match undecodable {
                Some(error) if decided.is_ok() => {
                    let undecodable = &left[commands.len()..];
                    self.partition.take_undecodable(undecodable, &error)
                }
                _ => after,
            };
        }
        outcomes.report(&self.label[0].1);
        let last = self.partition.decided();
        let done = records.partition_point(|record| record.offset <= last);
        self.report_delays(&records[..done]);
        decided
    }

    /// Reports how long each command waited. Records of one batch of the log have the same time.
    fn report_delays(&self, records: &[LogRecord]) {
        let now_ms = self.decider.clock.now_ms();
        let delays = metrics::histogram!(DECISION_SECONDS, &self.label);
        for batch in records.chunk_by(|one, next| one.appended_at_ms == next.appended_at_ms) {
            let delay_ms = (now_ms - batch[0].appended_at_ms).max(0);
            delays.record_many(delay_ms as f64 / 1000.0, batch.len());
        }
    }

    /// The commands up to the first record that cannot be decoded, and why it cannot be.
    fn decode(&self, records: &[LogRecord]) -> (Vec<Command>, Option<DecodeError>) {
        let mut commands = Vec::with_capacity(records.len());
        for record in records {
            match self.decider.codec.decode_command(&record.value) {
                Ok(command) => commands.push(command),
                Err(error) => return (commands, Some(error)),
            }
        }
        (commands, None)
    }

    /// Decides on one command, and hands the decision to the shell, chained to the product's last
    /// one.
    fn answer(
        &mut self,
        record: &LogRecord,
        command: &Command,
        outcomes: &mut Outcomes,
    ) -> Result<(), PartitionError> {
        let context = DecisionContext {
            claim: self.partition.claim(),
            offset: record.offset,
            follows: self.partition.decided(),
            appended_at_ms: record.appended_at_ms,
        };
        let answered = self.products.answer(command, context);
        let decision =
            answered.map_err(PartitionError::violation(TOPICS.commands, record.offset))?;
        outcomes.count(&decision);
        let product = &command.product_id;
        let previous = self.products.chain(product);
        let link = DecisionLink::from(&decision);
        let (value, chain) = self.decider.codec.encode_chained(decision, previous);
        self.products.set_chain(product, chain);
        self.partition.push(record, Bytes::from(value), link);
        Ok(())
    }

    /// Appends a `TimeAdvanced` for every product whose deadline has passed.
    fn let_time_pass(&mut self) {
        let due = self
            .products
            .deadlines
            .take_due(self.decider.clock.now_ms());
        if due.is_empty() {
            return;
        }
        let commands = due
            .into_iter()
            .map(|product| self.time_advanced(product))
            .collect();
        self.partition.append_due(commands);
    }

    fn time_advanced(&self, product_id: ProductId) -> NewRecord {
        let key = Bytes::copy_from_slice(product_id.as_str().as_bytes());
        let command = Command {
            product_id,
            body: CommandBody::TimeAdvanced,
            if_version: None,
        };
        let value = self.decider.codec.encode_command(command).into();
        NewRecord {
            key,
            value,
            headers: vec![],
        }
    }
}
