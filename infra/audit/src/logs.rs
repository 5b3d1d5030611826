//! Checks both logs against the invariants of the domain, partition by partition.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use domain::invariants::{Ledger, TurnOrder, Violation, check_answers_next, check_product};
use history::{CommandRecord, Entry, FencedRecord, History, HistoryError, PartitionEnd};
use indicatif::ProgressBar;
use ports::read_store::Progress;
use ports::{EventLog, LogRecord, ReadError, log_mark};
use schemas::codec::{Codec, chain_hash};
use schemas::command::CommandBody;
use schemas::decision::{Decision, DecisionRecord, Event, ReleaseCause, Skipped};
use schemas::fence::Verdict;
use schemas::ids::{Offset, Partition, ProductId};
use schemas::placement::Placement;
use schemas::topics::Topic;

use crate::report::{Breach, ChainHead, LogPosition, PartitionFigures, Report, SkippedRecord};
use crate::{AuditError, Scope};

/// How often the bar moves, in records.
const BAR_STEP: u64 = 1_000;
/// The most skipped records that the report lists; all are counted.
const MAX_SKIPPED: usize = 100;

/// Where the partitions ended when the audit began.
#[derive(Debug, Clone)]
pub struct Ends(BTreeMap<Partition, PartitionEnd>);

impl Ends {
    /// Asks the log for the ends of the partitions within the scope.
    pub async fn find(log: &dyn EventLog, scope: &Scope) -> Result<Self, ReadError> {
        let mut ends = BTreeMap::new();
        for partition in (0..log.partitions()).map(Partition) {
            if scope.has_partition(partition) {
                ends.insert(partition, PartitionEnd::find(log, partition).await?);
            }
        }
        Ok(Self(ends))
    }

    /// The end of `stock-decisions` in each partition.
    pub fn of_decisions(&self) -> impl Iterator<Item = (Partition, Offset)> {
        self.0
            .iter()
            .map(|(partition, end)| (*partition, end.decisions))
    }

    /// About how many records `stock-decisions` has.
    pub fn decisions(&self) -> u64 {
        self.of_decisions().map(|(_, end)| end.0 as u64).sum()
    }

    /// About how many of them are in a store with this progress.
    pub fn covered(&self, progress: &BTreeMap<Partition, Progress>) -> u64 {
        let covered = self.of_decisions().map(|(partition, end)| {
            progress
                .get(&partition)
                .map_or(0, |progress| progress.next.min(end).0 as u64)
        });
        covered.sum()
    }
}

/// Checks the partitions one after the other, up to the first violation. `progress` is how far
/// the read models are, which the report counts.
pub async fn check(
    log: Arc<dyn EventLog>,
    codec: Arc<Codec>,
    scope: Scope,
    ends: Ends,
    progress: BTreeMap<Partition, Progress>,
    bar: ProgressBar,
) -> Result<Report, AuditError> {
    let mut report = Report::default();
    let begun = begun_with(&*log, &codec).await?;
    let partitions = begun.map_or(log.partitions(), |(begun, _)| begun);
    for (&partition, &end) in &ends.0 {
        let history = History::open(&*log, &codec, partition, end).await?;
        let projected = progress
            .get(&partition)
            .map_or(Offset(0), |progress| progress.next);
        let mut check = PartitionCheck {
            scope: &scope,
            placement: Placement::new(partitions),
            order: TurnOrder::default(),
            ledgers: HashMap::new(),
            projected,
            attempts_end: end.attempts,
            figures: PartitionFigures::new(partition),
            report: &mut report,
        };
        let checked = check.all(history, &bar).await;
        check.finish();
        match checked {
            Ok(()) => {}
            Err(Stop::Breach(breach)) => {
                report.violation = Some(*breach);
                break;
            }
            Err(Stop::Read(error)) => return Err(error.into()),
        }
    }
    if let Some((begun, place)) = begun.filter(|(begun, _)| *begun != log.partitions())
        && report.violation.is_none()
    {
        let what = format!(
            "the log was begun with {begun} partitions, but its topics have {} now",
            log.partitions()
        );
        report.violation = Some(Breach {
            place: Some(place),
            product: None,
            what,
        });
    }
    Ok(report)
}

/// With how many partitions the log was begun, and the claim that shows it: the first record of a
/// partition. A partition that was added later may have none.
async fn begun_with(
    log: &dyn EventLog,
    codec: &Codec,
) -> Result<Option<(u32, LogPosition)>, ReadError> {
    for partition in (0..log.partitions()).map(Partition) {
        let Some(first) = log_mark::first_record(log, partition).await? else {
            continue;
        };
        if let Ok(DecisionRecord::Claim(claim)) = codec.decode_decision(&first.value)
            && let Some(begun) = claim.partitions
        {
            let place = LogPosition {
                topic: Topic::StockDecisions.name(),
                partition,
                offset: first.offset,
            };
            return Ok(Some((begun, place)));
        }
    }
    Ok(None)
}

/// Why the check of a partition ended early.
enum Stop {
    Breach(Box<Breach>),
    Read(ReadError),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// The check of one partition.
struct PartitionCheck<'a> {
    scope: &'a Scope,
    /// Which partition each product belongs to.
    placement: Placement,
    order: TurnOrder,
    ledgers: HashMap<ProductId, Ledger>,
    /// The offset of `stock-decisions` that the read models reach.
    projected: Offset,
    /// The end of `purchase-attempts`.
    attempts_end: Offset,
    figures: PartitionFigures,
    report: &'a mut Report,
}

impl PartitionCheck<'_> {
    async fn all(&mut self, mut history: History<'_>, bar: &ProgressBar) -> Result<(), Stop> {
        let mut walked = 0;
        while let Some(entry) = history.next().await.map_err(|error| self.stop(error))? {
            self.take(&entry)?;
            walked += 1;
            if walked % BAR_STEP == 0 {
                bar.inc(BAR_STEP);
            }
        }
        self.order
            .finish()
            .map_err(|(offset, violation)| self.breach(offset, None, violation))?;
        bar.inc(walked % BAR_STEP);
        while let Some(undecided) = history.next_command().await? {
            self.figures.records += 1;
            self.figures.undecided += 1;
            if let Ok(command) = &undecided.command
                && self.scope.product.as_ref() == Some(&command.product_id)
            {
                self.report.undecided_of_product += 1;
            }
        }
        Ok(())
    }

    /// Takes the next record of `stock-decisions`.
    fn take(&mut self, entry: &Entry) -> Result<(), Stop> {
        let FencedRecord {
            record,
            content,
            verdict,
        } = &entry.fenced;
        let Some(content) = content else {
            // Garbage, which every reader drops.
            self.figures.dropped += 1;
            return Ok(());
        };
        self.order
            .observe(record.offset, content)
            .map_err(|(offset, violation)| self.breach(offset, None, violation))?;
        match (verdict, content) {
            (Verdict::Counts, DecisionRecord::Skipped(skipped)) => {
                self.figures.skipped += 1;
                self.figures.not_applied += u64::from(record.offset >= self.projected);
                self.take_skipped(record.offset, skipped, entry.command.as_ref())
            }
            (Verdict::Counts, DecisionRecord::Decision(decision)) => {
                self.figures.decisions += 1;
                self.figures.not_applied += u64::from(record.offset >= self.projected);
                self.take_decision(record, decision, entry.command.as_ref())
            }
            (Verdict::Claimed, _) => {
                self.figures.claims += 1;
                Ok(())
            }
            _ => {
                self.figures.dropped += 1;
                Ok(())
            }
        }
    }

    /// Takes a decision that counts, with the command that is next in `purchase-attempts`.
    fn take_decision(
        &mut self,
        record: &LogRecord,
        decision: &Decision,
        next: Option<&CommandRecord>,
    ) -> Result<(), Stop> {
        let product = &decision.product_id;
        let at = record.offset;
        if let Err(violation) = check_answers_next(decision, next.map(|next| next.record.offset)) {
            return Err(match next {
                Some(skipped) if skipped.record.offset < decision.answers => {
                    self.breach_at_command(skipped, violation)
                }
                _ => self.breach(at, Some(product), violation),
            });
        }
        // The check above passes only if there is a command.
        let Some(answered) = next else { return Ok(()) };
        self.figures.records += 1;
        let command = match &answered.command {
            Ok(command) => command,
            Err(error) => return Err(self.breach_at_command(answered, error)),
        };
        check_product(decision, command)
            .map_err(|violation| self.breach(at, Some(product), violation))?;
        let belongs_to = self.placement.partition_of(product);
        if belongs_to != self.figures.partition {
            let what = format!(
                "the product belongs to partition {belongs_to}, and its decisions elsewhere are of a \
                 second stock"
            );
            return Err(self.breach(at, Some(product), what));
        }
        if !self.scope.has_product(product) {
            return Ok(());
        }
        if !self.ledgers.contains_key(product) {
            self.ledgers.insert(product.clone(), Ledger::default());
        }
        let ledger = self.ledgers.get_mut(product);
        let ledger = ledger.expect("it was inserted just now");
        let chain = chain_hash(&record.value, ledger.chain);
        let taken = ledger.record(decision, command, answered.record.appended_at_ms, chain);
        // Of a product without a sale nothing is left, nor reported: anyone may make up names.
        if ledger.figures.version == 0 {
            self.ledgers.remove(product);
        }
        taken.map_err(|violation| self.breach(at, Some(product), violation))?;
        self.count(decision, &command.body);
        Ok(())
    }

    /// Takes a skipped record that counts, with the record that was skipped, if that was not deleted
    /// since. A decider skips only what cannot be decoded; an operator may skip anything.
    fn take_skipped(
        &mut self,
        at: Offset,
        skipped: &Skipped,
        record: Option<&CommandRecord>,
    ) -> Result<(), Stop> {
        let Skipped {
            answers,
            reason,
            by,
            ..
        } = skipped;
        match record {
            Some(earlier) if earlier.record.offset < *answers => {
                return Err(self.breach_at_command(earlier, Violation::Unanswered));
            }
            Some(record) if by.is_none() && record.command.is_ok() => {
                let what = "a decider has skipped this record, although it can be decoded";
                return Err(self.breach_at_command(record, what));
            }
            None if *answers >= self.attempts_end => {
                return Err(self.breach(at, None, Violation::AnswersNothing(*answers)));
            }
            _ => {}
        }
        self.figures.records += u64::from(record.is_some());
        if self.report.skipped.len() < MAX_SKIPPED {
            self.report.skipped.push(SkippedRecord {
                partition: self.figures.partition,
                offset: *answers,
                reason: reason.to_string(),
                by: by.as_deref().map(str::to_owned),
            });
        }
        Ok(())
    }

    fn count(&mut self, decision: &Decision, command: &CommandBody) {
        let totals = &mut self.report.totals;
        totals.attempts += u64::from(matches!(command, CommandBody::PlaceAttempt(_)));
        for event in &decision.events {
            match event {
                Event::OrderAccepted(_) => totals.accepted += 1,
                Event::AttemptRepeated(_) => totals.repeated += 1,
                Event::AttemptRefused(refused) => {
                    *totals.refused.entry(refused.reason.as_str()).or_default() += 1;
                }
                Event::OrderReleased(released) => match released.cause {
                    ReleaseCause::Cancelled => totals.cancelled += 1,
                    ReleaseCause::Expired => totals.expired += 1,
                },
                _ => {}
            }
        }
    }

    /// Adds the partition's figures to the report.
    fn finish(self) {
        self.report.products += self.ledgers.len() as u64;
        for (product_id, ledger) in self.ledgers {
            self.report.totals.units.add(&ledger.figures.stock);
            self.report.heads.push(ChainHead {
                product_id,
                partition: self.figures.partition,
                version: ledger.figures.version,
                chain: ledger.chain.to_string(),
            });
        }
        self.report
            .heads
            .sort_by(|a, b| a.product_id.cmp(&b.product_id));
        self.report.partitions.push(self.figures);
    }

    fn stop(&self, error: HistoryError) -> Stop {
        match error {
            HistoryError::Read(error) => error.into(),
            HistoryError::Undecodable { offset, error, .. } => self.breach(offset, None, error),
        }
    }

    /// A violation at an offset of `stock-decisions`.
    fn breach(&self, at: Offset, product: Option<&ProductId>, what: impl ToString) -> Stop {
        self.breach_in(Topic::StockDecisions, at, product, what)
    }

    /// A violation at a record of `purchase-attempts`.
    fn breach_at_command(&self, at: &CommandRecord, what: impl ToString) -> Stop {
        let product = at.command.as_ref().ok().map(|command| &command.product_id);
        self.breach_in(Topic::PurchaseAttempts, at.record.offset, product, what)
    }

    fn breach_in(
        &self,
        topic: Topic,
        offset: Offset,
        product: Option<&ProductId>,
        what: impl ToString,
    ) -> Stop {
        Stop::Breach(Box::new(Breach {
            place: Some(LogPosition {
                topic: topic.name(),
                partition: self.figures.partition,
                offset,
            }),
            product: product.cloned(),
            what: what.to_string(),
        }))
    }
}
