//! A place in a partition that moves on as it is read.

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
use crate::names::{Names, Place};
use crate::offsets::{Offsets, Which};

/// The most records that one call returns.
const MAX_RECORDS: usize = 2_000;
/// About the most bytes that one call returns.
const MAX_BYTES: usize = 1 << 20;

/// What readers share with their log.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) names: Arc<Names>,
    pub(crate) consumers: Consumers,
    pub(crate) offsets: Offsets,
    /// Whether the log has been closed; so it has when the other end is gone.
    pub(crate) closed: watch::Receiver<bool>,
}

pub(crate) struct Reader {
    reading: Reading,
    place: Place,
    /// The lowest offset to return next.
    next: i64,
    /// Whether anything has been returned.
    began: bool,
    source: Option<Source>,
    /// Finding a new source, under way. It is kept here, so that a call given up while it waits
    /// loses nothing.
    opening: Option<BoxFuture<'static, Result<Source, ReadError>>>,
    /// What is wrong behind the records that were returned last.
    trouble: Option<Trouble>,
}

/// What ends the records of a source.
enum Trouble {
    /// The brokers have no record to begin with.
    NoSuchOffset,
    /// What was fetched must not be used.
    Damaged(String),
    /// librdkafka goes on by itself when it can.
    Passing(String),
}

impl Reader {
    /// Begins to read.
    pub(crate) async fn open(reading: Reading, place: Place, from: i64) -> Result<Self, ReadError> {
        let next = from.max(0);
        let source = reading.consumers.open(place, next).await?;
        Ok(Self {
            reading,
            place,
            next,
            began: false,
            source: Some(source),
            opening: None,
            trouble: None,
        })
    }

    /// Takes what has been fetched, up to a bound or to trouble.
    fn take(&mut self) -> Vec<LogRecord> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let Some(source) = &self.source else {
            return records;
        };
        while records.len() < MAX_RECORDS && bytes < MAX_BYTES && self.trouble.is_none() {
            match source.queue().poll(Duration::ZERO) {
                None => break,
                // Who begins beyond the end passes over what comes before.
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
        let topic = self.reading.names.topic(self.place.0);
        Trouble::Damaged(format!(
            "the time of record {} of {} is {:?}, not the one at which it was appended; set \
             message.timestamp.type of {topic} to LogAppendTime",
            message.offset(),
            self.reading.names.place(self.place),
            message.timestamp(),
        ))
    }

    fn trouble(&self, error: &KafkaError) -> Trouble {
        let place = self.reading.names.place(self.place);
        let Some(code) = error.rdkafka_error_code() else {
            return Trouble::Passing(format!("{place}: {error}"));
        };
        match code {
            RDKafkaErrorCode::AutoOffsetReset => Trouble::NoSuchOffset,
            RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::BadCompression => {
                Trouble::Damaged(format!("{place} at {}: {code}", self.next))
            }
            _ => Trouble::Passing(format!("{place}: {code}")),
        }
    }

    /// Finds a source again after the brokers had no record to begin with.
    async fn reopen(
        reading: Reading,
        place: Place,
        next: i64,
        began: bool,
    ) -> Result<Source, ReadError> {
        let first = reading.offsets.ask(place, Which::First).await?.0;
        let end = reading.offsets.ask(place, Which::End).await?.0;
        let name = || reading.names.place(place);
        if began && next < first {
            // Whoever read them one after the other must not take the next for what follows.
            let (name, last) = (name(), first - 1);
            return Err(ReadError::Unavailable(format!(
                "records {next} to {last} of {name} were dropped before they were read"
            )));
        }
        if began && next > end {
            let (name, last) = (name(), next - 1);
            return Err(ReadError::Damaged(format!(
                "{name} ends at {end}, though its record {last} has been read"
            )));
        }
        reading.consumers.open(place, next.clamp(first, end)).await
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        // What is there is returned without waiting, and others want to run too.
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
                    // If it is asked again, it begins again with the same record.
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
                    let (reading, place) = (&self.reading, self.place);
                    let (next, began) = (self.next, self.began);
                    let opening = self.opening.get_or_insert_with(|| {
                        Box::pin(Self::reopen(reading.clone(), place, next, began))
                    });
                    let opened = opening.await;
                    self.opening = None;
                    self.source = Some(opened?);
                }
            }
        }
    }
}

/// The record of a message; none when its time is not the one at which it was appended.
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
