//! The bounded queue between those who append and the writer. Records are put into the form
//! they have on disk by those who append, so that the writer only puts pieces together.

use parking_lot::{Condvar, Mutex};
use ports::event_log::{AppendError, NewRecord};
use schemas::ids::Offset;
use tokio::sync::oneshot;

use crate::format;

/// A group of so many records is worth a batch of its own.
const MANY_RECORDS: usize = 16;

/// What a call to append waits for.
pub(crate) type Answer = Result<Offset, AppendError>;

/// The queue.
pub(crate) struct Queue {
    max_records: usize,
    max_bytes: usize,
    state: Mutex<State>,
    filled: Condvar,
}

struct State {
    group: Group,
    phase: Phase,
    writer_sleeps: bool,
}

#[derive(Clone)]
enum Phase {
    Open,
    /// What is queued is still written.
    Closing,
    /// Nothing more is written, for this reason.
    Stopped(String),
}

/// All that is queued at one moment; it becomes one batch.
pub(crate) struct Group {
    /// By [`format::Meta::slot`].
    pub slots: Vec<Queued>,
    /// Those that are not empty, in the order in which they were filled.
    pub filled: Vec<usize>,
    pub records: usize,
    pub bytes: usize,
}

/// What is queued for one topic's partition.
#[derive(Default)]
pub(crate) struct Queued {
    /// The records as the format has them.
    pub bytes: Vec<u8>,
    pub records: u32,
    /// Who waits, and how many records of the slot there are up to and with theirs.
    pub waiting: Vec<(u32, oneshot::Sender<Answer>)>,
}

impl Group {
    pub(crate) fn new(slots: usize) -> Self {
        let slots = (0..slots).map(|_| Queued::default()).collect();
        Self {
            slots,
            filled: Vec::new(),
            records: 0,
            bytes: 0,
        }
    }

    /// Whether several wait for the group, but so few that the next had better be larger.
    pub(crate) fn serves_few(&self) -> bool {
        let waiting = self
            .filled
            .iter()
            .map(|slot| self.slots[*slot].waiting.len());
        self.records < MANY_RECORDS && waiting.sum::<usize>() > 1
    }

    /// Everyone who waits for the group.
    pub(crate) fn drain_waiting(&mut self) -> impl Iterator<Item = oneshot::Sender<Answer>> {
        let filled = std::mem::take(&mut self.filled);
        let slots = &mut self.slots;
        let waiting = filled
            .into_iter()
            .flat_map(|slot| std::mem::take(&mut slots[slot].waiting));
        waiting.map(|(_, answer)| answer)
    }
}

impl Queue {
    pub(crate) fn new(slots: usize, max_records: usize, max_bytes: usize) -> Self {
        let state = State {
            group: Group::new(slots),
            phase: Phase::Open,
            writer_sleeps: false,
        };
        Self {
            max_records,
            max_bytes,
            state: Mutex::new(state),
            filled: Condvar::new(),
        }
    }

    /// Queues the records of one call, or none of them. They are within the log's bounds.
    pub(crate) fn push(
        &self,
        slot: usize,
        records: &[NewRecord],
    ) -> Result<oneshot::Receiver<Answer>, AppendError> {
        let bytes = records.iter().map(format::record_bytes).sum::<usize>();
        if bytes > self.max_bytes {
            return Err(AppendError::TooLarge {
                what: "the call",
                bytes,
                max: self.max_bytes,
            });
        }
        let (answer, waiting) = oneshot::channel();
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Open => {}
            Phase::Closing => return Err(AppendError::Stopped("it is being closed".to_owned())),
            Phase::Stopped(reason) => return Err(AppendError::Stopped(reason.clone())),
        }
        let group = &mut state.group;
        // Into an empty queue goes every call, or one of many records would never.
        let too_many = group.records > 0 && group.records + records.len() > self.max_records;
        if too_many || group.bytes + bytes > self.max_bytes {
            return Err(AppendError::Full);
        }
        group.records += records.len();
        group.bytes += bytes;
        let queued = &mut group.slots[slot];
        if queued.waiting.is_empty() {
            group.filled.push(slot);
        }
        queued.bytes.reserve(bytes);
        for record in records {
            format::encode_record(record, &mut queued.bytes);
        }
        queued.records += records.len() as u32;
        queued.waiting.push((queued.records, answer));
        if std::mem::take(&mut state.writer_sleeps) {
            self.filled.notify_one();
        }
        Ok(waiting)
    }

    /// Waits until something is queued and takes all of it in exchange for an empty group;
    /// false when the queue was closed and is empty.
    pub(crate) fn take(&self, group: &mut Group) -> bool {
        let mut state = self.state.lock();
        while state.group.filled.is_empty() {
            if !matches!(state.phase, Phase::Open) {
                return false;
            }
            state.writer_sleeps = true;
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.group, group);
        true
    }

    /// Takes no more; what is queued is still written.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closing;
        }
        self.filled.notify_one();
    }

    /// Takes no more, and gives up what is queued.
    pub(crate) fn stop(&self, reason: &str) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Stopped(_)) {
            return;
        }
        state.phase = Phase::Stopped(reason.to_owned());
        let abandoned: Vec<_> = state.group.drain_waiting().collect();
        drop(state);
        for answer in abandoned {
            // Whoever no longer waits does not care.
            let _ = answer.send(Err(AppendError::Stopped(reason.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_batch_is_worth_a_wait_when_several_share_a_small_one() {
        // How many records each of these calls brings, and to which slot.
        for (calls, few) in [
            (&[][..], false),
            (&[(0, 1)][..], false),
            (&[(0, 10)][..], false),
            (&[(0, 1), (0, 1)][..], true),
            (&[(0, 1), (1, 1)][..], true),
            (&[(0, 14), (1, 1)][..], true),
            (&[(0, 15), (1, 1)][..], false),
        ] {
            let queue = Queue::new(2, 100, 10_000);
            for (slot, records) in calls {
                let records = vec![NewRecord::default(); *records];
                queue.push(*slot, &records).unwrap();
            }
            assert_eq!(queue.state.lock().group.serves_few(), few, "{calls:?}");
        }
    }
}
