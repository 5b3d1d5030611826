//! A claimed and recovered partition, and the next step to take on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, OptionFuture};
use ports::{AppendError, Clock, LogReader, LogRecord, NewRecord};
use runtime::health::Component;
use schemas::codec::DecodeError;
use schemas::fence::DecisionLink;
use schemas::ids::{Offset, RecordHash, TimestampMs};
use schemas::snapshot::ProductPart;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::appending::{Appender, next_batch};
use super::checkpoint::{Checkpoint, CheckpointPolicy, CheckpointWriter, report_failure};
use super::progress::{self, Progress};
use super::read_back::ReadBack;
use super::recovery::Recovery;
use super::undecodable::Undecodable;
use super::{PartitionError, PartitionLog};

/// The most decisions appended but not read back; at that, no more commands are read.
const MAX_UNCONFIRMED: i64 = 50_000;

/// What a core's decider has to do next.
pub(crate) enum Step {
    /// Shutdown was requested: call [`OwnedPartition::finish`].
    Stop,
    /// Decide on these commands, in their order.
    Decide(Vec<LogRecord>),
    /// Pass the state to [`OwnedPartition::write_checkpoint`]: everything that was decided has
    /// been read back.
    Checkpoint,
    /// The first deadline has passed: append the commands by which it takes effect.
    Deadline,
}

/// What the next step depends on in the state of a core.
#[derive(Clone, Copy)]
pub(crate) struct CoreStatus {
    /// How much the core remembers, in the units that a checkpoint's cost grows with.
    pub(crate) remembered: usize,
    /// The first deadline, if there is one.
    pub(crate) first_deadline: Option<TimestampMs>,
}

/// A partition that this process has claimed and recovered.
pub(crate) struct OwnedPartition {
    log: PartitionLog,
    /// The identity of the log, which checkpoints name.
    identity: RecordHash,
    clock: Arc<dyn Clock>,
    claim: Offset,
    commands: Box<dyn LogReader>,
    /// The last offset of the commands that was decided on, whether appended yet or not.
    decided: Offset,
    appender: Appender,
    read_back: ReadBack,
    checkpoints: Checkpoints,
    /// The append of commands by which deadlines take effect.
    timer: Option<BoxFuture<'static, ()>>,
    progress: Progress,
    undecodable: Undecodable,
}

/// When the next checkpoint is due, and the one that is being written.
struct Checkpoints {
    policy: CheckpointPolicy,
    /// The record that completes the last one; -1 when there is none.
    last: Offset,
    /// Decisions since the last one began.
    since: u64,
    writing: Option<BoxFuture<'static, Result<Offset, AppendError>>>,
}

impl OwnedPartition {
    /// Begins to read commands after the last one answered.
    pub(crate) async fn start(
        recovered: Recovery,
        policy: CheckpointPolicy,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PartitionError> {
        let Recovery {
            log,
            claim,
            identity,
            fence,
            ..
        } = recovered;
        let next = fence.answered.next();
        let commands = log.read(log.topics.commands, next).await?;
        Ok(Self {
            identity,
            clock,
            claim,
            commands,
            decided: fence.answered,
            appender: Appender::default(),
            read_back: ReadBack::new(claim, fence, recovered.decisions),
            checkpoints: Checkpoints {
                policy,
                last: recovered.checkpoint,
                since: recovered.folded,
                writing: None,
            },
            timer: None,
            progress: Progress::new(),
            undecodable: Undecodable::default(),
            log,
        })
    }

    /// The claim that decisions are made under.
    pub(crate) fn claim(&self) -> Offset {
        self.claim
    }

    /// The last offset of the commands that was decided on; -1 before the first.
    pub(crate) fn decided(&self) -> Offset {
        self.decided
    }

    /// Appends decisions, reads them back and reports, until there is something for the core to
    /// do. Fails when another decider has claimed the partition.
    pub(crate) async fn next_step(
        &mut self,
        core: CoreStatus,
        component: &Component,
        stop: &CancellationToken,
    ) -> Result<Step, PartitionError> {
        loop {
            self.appender.append_pending(&self.log);
            if self.checkpoint_is_due(core) && self.read_back.fence.answered == self.decided {
                return Ok(Step::Checkpoint);
            }
            let until_deadline = self.until_deadline(core);
            tokio::select! {
                // What ends the work or is due comes before new work, which may never run out.
                biased;
                () = stop.cancelled() => return Ok(Step::Stop),
                records = self.read_back.decisions.next() => {
                    self.read_back.confirm(&records?, &self.log, &*self.clock)?;
                }
                Some(appended) = OptionFuture::from(self.appender.in_flight.as_mut()) => {
                    self.appender.in_flight = None;
                    appended?;
                }
                Some(()) = OptionFuture::from(self.timer.as_mut()) => self.timer = None,
                Some(completed) = OptionFuture::from(self.checkpoints.writing.as_mut()) => {
                    self.checkpoints.writing = None;
                    self.end_checkpoint(completed);
                }
                _ = self.progress.interval.tick(), if self.progress.measuring.is_none() => {
                    self.progress.measure(&self.log);
                }
                Some(end) = OptionFuture::from(self.progress.measuring.as_mut()) => {
                    self.progress.measuring = None;
                    let answered = self.read_back.fence.answered;
                    let complaint = self.read_back.log_time.complaint(self.log.partition);
                    let progress = &self.progress;
                    if let Some(lag) = progress.report(&self.log, component, answered, end, complaint)? {
                        self.undecodable.report(component, lag);
                    }
                }
                Some(()) = OptionFuture::from(until_deadline.map(tokio::time::sleep)) => {
                    return Ok(Step::Deadline);
                }
                Some(()) = OptionFuture::from(self.undecodable.retry_at().map(sleep_until)) => {
                    return Ok(Step::Decide(self.undecodable.take()));
                }
                records = self.commands.next(), if self.may_read(core) => {
                    return Ok(Step::Decide(records?));
                }
            }
        }
    }

    /// Takes the decision on a command: it will be appended, and then read back.
    pub(crate) fn push(&mut self, command: &LogRecord, value: Bytes, link: DecisionLink) {
        let record = NewRecord {
            key: command.key.clone(),
            value,
            headers: command.headers.clone(),
        };
        self.push_answer(record, link);
    }

    fn push_answer(&mut self, record: NewRecord, link: DecisionLink) {
        self.read_back
            .expect(record.value.clone(), link, &*self.clock);
        self.appender.push(record);
        self.decided = link.answers;
        self.checkpoints.since += 1;
    }

    /// Takes records, the first of which cannot be decoded. What no version of the program can decode
    /// is answered as skipped; returns the records after it. What a newer version may have written
    /// stops the partition: the records are kept, and are returned by a later step.
    pub(crate) fn take_undecodable<'a>(
        &mut self,
        records: &'a [LogRecord],
        error: &DecodeError,
    ) -> &'a [LogRecord] {
        let Some((first, rest)) = records.split_first() else {
            return records;
        };
        let (topic, partition) = (self.log.topics.commands, self.log.partition);
        if !error.is_garbage() {
            let records = records.to_vec();
            self.undecodable.hold(topic, partition, records, error);
            return &[];
        }
        let link = DecisionLink {
            claim: self.claim,
            follows: self.decided,
            answers: first.offset,
        };
        let skipped = self.undecodable.skip(topic, partition, link, error);
        let record = NewRecord {
            value: Bytes::from(self.log.codec.encode_decision(skipped)),
            ..NewRecord::default()
        };
        self.push_answer(record, link);
        rest
    }

    fn may_read(&self, core: CoreStatus) -> bool {
        let unconfirmed = self.decided.0 - self.read_back.fence.answered.0;
        !self.undecodable.holds()
            && !self.checkpoint_is_due(core)
            && self.appender.has_room()
            && unconfirmed < MAX_UNCONFIRMED
    }

    /// Whether a checkpoint is due. It begins once all decisions have been read back; until then
    /// nothing new is decided, which takes as long as one append.
    fn checkpoint_is_due(&self, core: CoreStatus) -> bool {
        let Checkpoints {
            policy,
            since,
            writing,
            ..
        } = &self.checkpoints;
        writing.is_none() && policy.is_due(*since, core.remembered)
    }

    /// Begins to write a checkpoint of these parts, in the background.
    pub(crate) fn write_checkpoint(&mut self, parts: Vec<ProductPart>) {
        let checkpoint = Checkpoint {
            covers: self.read_back.next,
            fence: self.read_back.fence,
            completed_at: self.checkpoints.last,
            log: Some(self.identity),
        };
        let writer = CheckpointWriter::new(self.log.clone(), checkpoint, parts);
        self.checkpoints.writing = Some(Box::pin(writer.write()));
        self.checkpoints.since = 0;
    }

    fn end_checkpoint(&mut self, completed: Result<Offset, AppendError>) {
        match completed {
            Ok(offset) => self.checkpoints.last = offset,
            Err(error) => report_failure(self.log.partition, &error),
        }
    }

    /// How long until the first deadline, unless the commands of an earlier one are being
    /// appended.
    fn until_deadline(&self, core: CoreStatus) -> Option<Duration> {
        // Behind a record at which the partition stands, no command takes effect.
        let deadline = core.first_deadline.filter(|_| !self.undecodable.holds())?;
        let wait_ms = (deadline - self.clock.now_ms()).max(0);
        let wait = Duration::from_millis(wait_ms as u64);
        Some(wait).filter(|_| self.timer.is_none())
    }

    /// Appends the commands by which deadlines take effect. If that fails, the deadlines are still
    /// due and are tried again.
    pub(crate) fn append_due(&mut self, commands: Vec<NewRecord>) {
        let log = self.log.clone();
        let mut commands = VecDeque::from(commands);
        self.timer = Some(Box::pin(async move {
            while !commands.is_empty() {
                let batch = next_batch(&mut commands);
                if let Err(error) = log.append(log.topics.commands, batch).await {
                    let partition = log.partition;
                    tracing::debug!(%partition, %error, "could not append a passed deadline; trying again");
                    return;
                }
            }
        }));
    }

    /// Appends all pending decisions, so that the next decider need not make them again.
    pub(crate) async fn finish(mut self) -> Result<(), PartitionError> {
        self.appender.finish(&self.log).await?;
        progress::note(&self.log, self.read_back.fence.answered);
        Ok(())
    }
}
