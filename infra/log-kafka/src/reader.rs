//! A reader of one partition.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use ports::event_log::{LogReader, LogRecord, ReadError};
use rdkafka::Timestamp;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use schemas::ids::Offset;
use tokio::sync::watch;

use crate::consumers::{Consumers, Source};
use crate::names::{Names, TopicPartition};
use crate::offsets::{Offsets, Query};

/// The most records that one call returns.
const MAX_RECORDS: usize = 2_000;
/// About the most bytes that one call returns.
const MAX_BYTES: usize = 1 << 20;

/// How long a reader that needs records below an end waits for them before it asks whether they were
/// deleted: Kafka deletes a partition's records from the first one on.
const DELETED_AFTER: Duration = Duration::from_secs(1);

/// What readers share with their log.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) names: Arc<Names>,
    pub(crate) consumers: Consumers,
    pub(crate) offsets: Offsets,
    /// Whether the log has been closed. A dropped sender means the same.
    pub(crate) closed: watch::Receiver<bool>,
}

pub(crate) struct Reader {
    reading: Reading,
    partition: TopicPartition,
    /// The lowest offset to return next.
    next: i64,
    /// Whether any record has been returned.
    began: bool,
    source: Option<Source>,
    /// Opening a new source, under way. Kept here, so that a call that is dropped while it waits loses
    /// nothing.
    opening: Option<BoxFuture<'static, Result<Source, ReadError>>>,
    /// What ended the records that were returned last.
    trouble: Option<Trouble>,
}

/// Why a source has no further records.
enum Trouble {
    /// The brokers do not have the next offset.
    NoSuchOffset,
    /// The fetched record must not be used.
    Damaged(String),
    /// librdkafka resumes by itself when it can.
    Passing(String),
}

impl Reader {
    /// Opens a reader that begins at `from`.
    pub(crate) async fn open(
        reading: Reading,
        partition: TopicPartition,
        from: i64,
    ) -> Result<Self, ReadError> {
        let next = from.max(0);
        let source = reading.consumers.open(partition, next).await?;
        Ok(Self {
            reading,
            partition,
            next,
            began: false,
            source: Some(source),
            opening: None,
            trouble: None,
        })
    }

    /// Takes fetched records, up to the bounds of one call or to trouble.
    fn take(&mut self) -> Vec<LogRecord> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let Some(source) = &self.source else {
            return records;
        };
        while records.len() < MAX_RECORDS && bytes < MAX_BYTES && self.trouble.is_none() {
            match source.queue().poll(Duration::ZERO) {
                None => break,
                // A batch may begin before the requested offset.
                Some(Ok(message)) if message.offset() < self.next => {}
                Some(Ok(message)) => match record(&message) {
                    Some(record) => {
                        bytes += message.payload_len() + message.key_len();
                        self.next = record.offset.0 + 1;
                        records.push(record);
                    }
                    None => self.trouble = Some(self.wrong_time(&message)),
                },
                Some(Err(error)) => self.trouble = Some(self.trouble(&error)),
            }
        }
        self.began |= !records.is_empty();
        records
    }

    fn wrong_time(&self, message: &BorrowedMessage<'_>) -> Trouble {
        let topic = self.reading.names.topic(self.partition.0);
        Trouble::Damaged(format!(
            "the time of record {} of {} is {:?}, which is not the time of its append; set \
             message.timestamp.type of {topic} to LogAppendTime",
            message.offset(),
            self.reading.names.describe(self.partition),
            message.timestamp(),
        ))
    }

    fn trouble(&self, error: &KafkaError) -> Trouble {
        let partition = self.reading.names.describe(self.partition);
        let Some(code) = error.rdkafka_error_code() else {
            return Trouble::Passing(format!("{partition}: {error}"));
        };
        match code {
            RDKafkaErrorCode::AutoOffsetReset => Trouble::NoSuchOffset,
            RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::BadCompression => {
                Trouble::Damaged(format!("{partition} at {}: {code}", self.next))
            }
            _ => Trouble::Passing(format!("{partition}: {code}")),
        }
    }

    /// Opens a new source after the brokers did not have the next offset.
    async fn reopen(
        reading: Reading,
        partition: TopicPartition,
        next: i64,
        began: bool,
    ) -> Result<Source, ReadError> {
        let first = reading.offsets.get(partition, Query::First).await?.0;
        let end = reading.offsets.get(partition, Query::End).await?.0;
        if began && next < first {
            // Otherwise the caller would take the next record for the successor of its last one.
            let (name, last) = (reading.names.describe(partition), first - 1);
            return Err(ReadError::Unavailable(format!(
                "records {next} to {last} of {name} were dropped before they were read"
            )));
        }
        ReadError::check_end(partition.0, partition.1, Offset(next), Offset(end))?;
        reading.consumers.open(partition, next.max(first)).await
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        // Fetched records are returned without waiting, so other tasks must get their chance here.
        tokio::task::consume_budget().await;
        loop {
            if *self.reading.closed.borrow() || self.reading.closed.has_changed().is_err() {
                return Err(ReadError::Closed);
            }
            let records = self.take();
            if !records.is_empty() {
                return Ok(records);
            }
            match self.trouble.take() {
                None => {}
                Some(Trouble::NoSuchOffset) => self.source = None,
                Some(Trouble::Damaged(what)) => {
                    // The next call begins again with the same record.
                    self.source = None;
                    return Err(ReadError::Damaged(what));
                }
                Some(Trouble::Passing(what)) => return Err(ReadError::Unavailable(what)),
            }
            let mut closed = self.reading.closed.clone();
            let closed = closed.wait_for(|closed| *closed);
            match &self.source {
                Some(source) => tokio::select! {
                    () = source.filled() => {}
                    _ = closed => return Err(ReadError::Closed),
                },
                None => {
                    let (reading, partition) = (&self.reading, self.partition);
                    let (next, began) = (self.next, self.began);
                    let opening = self.opening.get_or_insert_with(|| {
                        Box::pin(Self::reopen(reading.clone(), partition, next, began))
                    });
                    let opened = opening.await;
                    self.opening = None;
                    self.source = Some(opened?);
                }
            }
        }
    }

    async fn next_below(&mut self, end: Offset) -> Result<Vec<LogRecord>, ReadError> {
        loop {
            // A call that is dropped loses nothing.
            if let Ok(records) = tokio::time::timeout(DELETED_AFTER, self.next()).await {
                return records;
            }
            let first = self.reading.offsets.get(self.partition, Query::First);
            if first.await? >= end {
                return Ok(Vec::new());
            }
        }
    }
}

/// The record of a message; none when its time is not the time of the append.
fn record(message: &BorrowedMessage<'_>) -> Option<LogRecord> {
    let Timestamp::LogAppendTime(appended_at_ms) = message.timestamp() else {
        return None;
    };
    let bytes = |bytes: Option<&[u8]>| bytes.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let headers = message.headers().map(|headers| {
        let header = |h: rdkafka::message::Header<'_, &[u8]>| (h.key.to_owned(), bytes(h.value));
        headers.iter().map(header).collect()
    });
    Some(LogRecord {
        offset: Offset(message.offset()),
        appended_at_ms,
        key: bytes(message.key()),
        value: bytes(message.payload()),
        headers: headers.unwrap_or_default(),
    })
}
