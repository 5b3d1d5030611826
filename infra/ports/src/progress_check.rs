//! Whether a log is the one that rows were made from.

use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use crate::log_mark::{LogMark, check_identity, identity, record_at};
use crate::read_store::Progress;
use crate::{EventLog, ReadError};

/// What to do about read models that were made from another log.
const REMEDY: &str = "stop the services; then restore the log that the read models were made from, \
                      or delete the read models, which are rebuilt from this log";

impl Progress {
    /// Checks that the rows of this progress were made from this log, and returns the progress with
    /// its mark. Progress of an older version has none and gets one if it fits the log's ends.
    ///
    /// # Errors
    ///
    /// [`ReadError::AnotherLog`] or [`ReadError::BeyondEnd`] if the log is another one or has lost
    /// records that the rows were made from.
    pub async fn checked(
        self,
        log: &dyn EventLog,
        partition: Partition,
    ) -> Result<Self, ReadError> {
        let identity = identity(log, partition).await?;
        if let Some(mark) = self.log {
            check_identity(partition, "the read models are", mark.log, identity, REMEDY)?;
        }
        self.check_ends(log, partition).await?;
        let offset = match self.log {
            Some(mark) => mark.offset,
            None if self.next.0 > 0 => Offset(self.next.0 - 1),
            None => return Ok(self),
        };
        let last = record_at(log, partition, offset).await?;
        let here = identity.zip(last);
        let here = here.map(|(identity, last)| LogMark::new(identity, &last));
        match self.log {
            Some(mark) if here != Some(mark) => Err(ReadError::AnotherLog(format!(
                "record {offset} of {}, partition {partition}, is not the one that the read models \
                 were made from: log {:.16} was restored to an earlier state and has continued \
                 differently since; {REMEDY}",
                Topic::StockDecisions,
                mark.log
            ))),
            _ => Ok(Self { log: here, ..self }),
        }
    }

    /// Checks that both topics have all that the rows of this progress were made from.
    pub async fn check_ends(
        &self,
        log: &dyn EventLog,
        partition: Partition,
    ) -> Result<(), ReadError> {
        for (topic, from) in [
            (Topic::StockDecisions, self.next),
            (Topic::PurchaseAttempts, self.answered.next()),
        ] {
            let end = log.end(topic, partition).await?;
            ReadError::check_end(topic, partition, from, end)?;
        }
        Ok(())
    }
}
