//! The records of a partition, one by one, up to where it ended when the audit began.

use ports::{EventLog, LogReader, LogRecord, ReadError};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

/// A place in a partition that moves on up to an end.
pub(super) struct Cursor {
    reader: Box<dyn LogReader>,
    read: std::vec::IntoIter<LogRecord>,
    /// The offset that the next record has at least.
    next: Offset,
    end: Offset,
}

impl Cursor {
    /// From the first record on; `end` is no later than the partition's own.
    pub(super) async fn open(
        log: &dyn EventLog,
        topic: Topic,
        partition: Partition,
        end: Offset,
    ) -> Result<Self, ReadError> {
        let reader = log.read(topic, partition, Offset(0)).await?;
        Ok(Self {
            reader,
            read: Vec::new().into_iter(),
            next: Offset(0),
            end,
        })
    }

    /// The next record; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<LogRecord>, ReadError> {
        loop {
            if let Some(record) = self.read.next() {
                self.next = record.offset.next();
                return Ok(Some(record).filter(|record| record.offset < self.end));
            }
            if self.next >= self.end {
                return Ok(None);
            }
            self.read = self.reader.next().await?.into_iter();
        }
    }

    /// The next records, as many as come at once; none at the end.
    pub(super) async fn batch(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        if self.next >= self.end {
            return Ok(Vec::new());
        }
        let mut batch = self.reader.next().await?;
        self.next = batch.last().map_or(self.end, |last| last.offset.next());
        batch.retain(|record| record.offset < self.end);
        Ok(batch)
    }
}
