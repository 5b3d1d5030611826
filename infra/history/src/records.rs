//! The records of one topic of a partition, up to where the topic ended when the walk began.

use ports::{EventLog, LogReader, LogRecord, ReadError};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

/// A reader that stops at an end, while the log may grow behind it.
pub struct Records {
    reader: Box<dyn LogReader>,
    buffer: std::vec::IntoIter<LogRecord>,
    /// The lowest offset that the next record can have.
    next: Offset,
    end: Offset,
}

impl Records {
    /// Reads from the first record on, up to but not including `end`, which must not be beyond
    /// the topic's own end.
    pub async fn open(
        log: &dyn EventLog,
        topic: Topic,
        partition: Partition,
        end: Offset,
    ) -> Result<Self, ReadError> {
        Self::open_at(log, topic, partition, Offset(0), end).await
    }

    /// Reads from the first record at `from` or later on, up to but not including `end`.
    pub async fn open_at(
        log: &dyn EventLog,
        topic: Topic,
        partition: Partition,
        from: Offset,
        end: Offset,
    ) -> Result<Self, ReadError> {
        let reader = log.read(topic, partition, from).await?;
        Ok(Self {
            reader,
            buffer: Vec::new().into_iter(),
            next: from,
            end,
        })
    }

    /// The next record; `None` at the end, also if the last records before it were deleted.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, ReadError> {
        loop {
            if let Some(record) = self.buffer.next() {
                return Ok(Some(record));
            }
            let batch = self.batch().await?;
            if batch.is_empty() {
                return Ok(None);
            }
            self.buffer = batch.into_iter();
        }
    }

    /// The next records, as many as the log returns at once; none at the end. A caller uses
    /// either this or [`Records::next`], since this skips what `next` has read ahead.
    pub async fn batch(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        if self.next >= self.end {
            return Ok(Vec::new());
        }
        let mut batch = self.reader.next_below(self.end).await?;
        self.next = batch.last().map_or(self.end, |last| last.offset.next());
        batch.retain(|record| record.offset < self.end);
        Ok(batch)
    }
}
