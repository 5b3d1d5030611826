//! Both logs against the invariants of the domain, partition by partition.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use domain::invariants::{Ledger, TurnOrder, check_answers_next, check_product};
use indicatif::ProgressBar;
use ports::read_store::Progress;
use ports::{EventLog, LogRecord, ReadError};
use schemas::codec::{Codec, chain_hash};
use schemas::command::CommandBody;
use schemas::decision::{Decision, DecisionRecord, Event, ReleaseCause};
use schemas::fence::Verdict;
use schemas::ids::{Offset, Partition, ProductId};
use schemas::topics::Topic;

use super::cursor::Cursor;
use super::report::{Breach, Head, PartitionFigures, Place, Report};
use super::{AuditError, Scope};

/// How often the bar moves, in records.
const BAR_STEP: u64 = 1_000;

/// Where the partitions ended when the audit began.
#[derive(Debug, Clone)]
pub struct Ends(BTreeMap<Partition, End>);

#[derive(Debug, Clone, Copy)]
struct End {
    decisions: Offset,
    attempts: Offset,
}

impl Ends {
    /// Asks the log for the ends of the partitions looked at. Log 2 is asked first, so that
    /// what its decisions answer is in log 1.
    pub async fn find(log: &dyn EventLog, scope: &Scope) -> Result<Self, ReadError> {
        let mut ends = BTreeMap::new();
        for partition in (0..log.partitions()).map(Partition) {
            if scope.has_partition(partition) {
                let decisions = log.end(Topic::StockDecisions, partition).await?;
                let attempts = log.end(Topic::PurchaseAttempts, partition).await?;
                ends.insert(
                    partition,
                    End {
                        decisions,
                        attempts,
                    },
                );
            }
        }
        Ok(Self(ends))
    }

    /// The end of log 2 in each partition.
    pub fn of_decisions(&self) -> impl Iterator<Item = (Partition, Offset)> {
        self.0
            .iter()
            .map(|(partition, end)| (*partition, end.decisions))
    }

    /// About how many records log 2 has.
    pub fn decisions(&self) -> u64 {
        self.0.values().map(|end| end.decisions.0 as u64).sum()
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

/// Checks the partitions one after the other, up to the first violation.
pub async fn check(
    log: Arc<dyn EventLog>,
    codec: Arc<Codec>,
    scope: Scope,
    ends: Ends,
    progress: BTreeMap<Partition, Progress>,
    bar: ProgressBar,
) -> Result<Report, AuditError> {
    let mut report = Report::default();
    for (&partition, &end) in &ends.0 {
        let decisions = Cursor::open(&*log, Topic::StockDecisions, partition, end.decisions);
        let attempts = Cursor::open(&*log, Topic::PurchaseAttempts, partition, end.attempts);
        let applied = progress
            .get(&partition)
            .map_or(Offset(0), |progress| progress.next);
        let mut walk = Walk {
            codec: &codec,
            scope: &scope,
            attempts: attempts.await?,
            order: TurnOrder::default(),
            ledgers: HashMap::new(),
            applied,
            figures: PartitionFigures::new(partition),
            report: &mut report,
        };
        let checked = walk.all(decisions.await?, &bar).await;
        walk.finish();
        match checked {
            Ok(()) => {}
            Err(Stop::Breach(breach)) => {
                report.violation = Some(*breach);
                break;
            }
            Err(Stop::Read(error)) => return Err(error.into()),
        }
    }
    Ok(report)
}

/// Why a walk ended early.
enum Stop {
    Breach(Box<Breach>),
    Read(ReadError),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// A walk through both logs of one partition.
struct Walk<'a> {
    codec: &'a Codec,
    scope: &'a Scope,
    attempts: Cursor,
    order: TurnOrder,
    ledgers: HashMap<ProductId, Ledger>,
    /// The place in log 2 that the read models reach.
    applied: Offset,
    figures: PartitionFigures,
    report: &'a mut Report,
}

impl Walk<'_> {
    async fn all(&mut self, mut decisions: Cursor, bar: &ProgressBar) -> Result<(), Stop> {
        let mut walked = 0;
        while let Some(record) = decisions.next().await? {
            self.take(&record).await?;
            walked += 1;
            if walked % BAR_STEP == 0 {
                bar.inc(BAR_STEP);
            }
        }
        self.order
            .finish()
            .map_err(|(offset, violation)| self.breach(offset, None, violation))?;
        bar.inc(walked % BAR_STEP);
        while self.attempts.next().await?.is_some() {
            self.figures.records += 1;
            self.figures.undecided += 1;
        }
        Ok(())
    }

    /// Takes the next record of log 2.
    async fn take(&mut self, record: &LogRecord) -> Result<(), Stop> {
        let decoded = self.codec.decode_decision(&record.value);
        let decoded = decoded.map_err(|error| self.breach(record.offset, None, error))?;
        let verdict = self.order.observe(record.offset, &decoded);
        let verdict =
            verdict.map_err(|(offset, violation)| self.breach(offset, None, violation))?;
        match (verdict, decoded) {
            (Verdict::Counts, DecisionRecord::Decision(decision)) => {
                self.figures.decisions += 1;
                self.figures.not_applied += u64::from(record.offset >= self.applied);
                self.answer(record, &decision).await
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

    /// Takes a decision that counts, with the record of log 1 whose turn it is.
    async fn answer(&mut self, record: &LogRecord, decision: &Decision) -> Result<(), Stop> {
        let product = &decision.product_id;
        let at = record.offset;
        let asked = self.attempts.next().await?;
        if let Err(violation) =
            check_answers_next(decision, asked.as_ref().map(|asked| asked.offset))
        {
            return Err(match asked {
                Some(passed_over) if passed_over.offset < decision.answers => {
                    self.breach_in_line(&passed_over, violation)
                }
                _ => self.breach(at, Some(product), violation),
            });
        }
        // The turn is checked: there is a record.
        let Some(asked) = asked else { return Ok(()) };
        self.figures.records += 1;
        let command = self.codec.decode_command(&asked.value);
        let command = command.map_err(|error| self.breach_in_line(&asked, error))?;
        check_product(decision, &command)
            .map_err(|violation| self.breach(at, Some(product), violation))?;
        if !self.scope.has_product(product) {
            return Ok(());
        }
        if !self.ledgers.contains_key(product) {
            self.ledgers.insert(product.clone(), Ledger::default());
        }
        let taken = self.ledgers.get_mut(product).map_or(Ok(()), |ledger| {
            let chain = chain_hash(&record.value, ledger.chain);
            ledger.record(decision, &command.body, asked.appended_at_ms, chain)
        });
        taken.map_err(|violation| self.breach(at, Some(product), violation))?;
        self.count(decision, &command.body);
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

    /// Adds what was seen to the report.
    fn finish(self) {
        self.report.products += self.ledgers.len() as u64;
        for (product_id, ledger) in self.ledgers {
            self.report.totals.units.add(&ledger.figures.stock);
            let (version, chain) = (ledger.figures.version, ledger.chain.to_string());
            let partition = self.figures.partition;
            self.report.heads.push(Head {
                product_id,
                partition,
                version,
                chain,
            });
        }
        self.report
            .heads
            .sort_by(|a, b| a.product_id.cmp(&b.product_id));
        self.report.partitions.push(self.figures);
    }

    /// What does not hold at a place in log 2.
    fn breach(&self, at: Offset, product: Option<&ProductId>, what: impl ToString) -> Stop {
        let place = Place {
            topic: Topic::StockDecisions.name(),
            partition: self.figures.partition,
            offset: at,
        };
        Stop::Breach(Box::new(Breach {
            place: Some(place),
            product: product.cloned(),
            what: what.to_string(),
        }))
    }

    /// What does not hold about a record of log 1.
    fn breach_in_line(&self, record: &LogRecord, what: impl ToString) -> Stop {
        let place = Place {
            topic: Topic::PurchaseAttempts.name(),
            partition: self.figures.partition,
            offset: record.offset,
        };
        let command = self.codec.decode_command(&record.value);
        Stop::Breach(Box::new(Breach {
            place: Some(place),
            product: command.ok().map(|command| command.product_id),
            what: what.to_string(),
        }))
    }
}
