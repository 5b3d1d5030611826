//! The bounded queue between the appending calls and the writer. The calls encode their records for
//! the disk, so that the writer only assembles the batch.

use parking_lot::{Condvar, Mutex};
use ports::event_log::{AppendError, NewRecord};
use schemas::ids::Offset;
use tokio::sync::oneshot;

use crate::format;

/// A group of this many records is large enough for a batch of its own.
const MANY_RECORDS: usize = 16;

/// The result that an append waits for.
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
    /// The number of records that the writer took last and has not come back from.
    taken: usize,
    phase: Phase,
    writer_sleeps: bool,
}

#[derive(Clone)]
enum Phase {
    Open,
    /// Queued records are still written; new ones are refused.
    Closing,
    /// Nothing is written any more, for this reason.
    Stopped(String),
}

/// Everything that is queued at one moment; it becomes one batch.
pub(crate) struct Group {
    /// By [`format::Meta::slot`].
    pub slots: Vec<Queued>,
    /// The slots that are not empty, in the order in which they were filled.
    pub filled: Vec<usize>,
    pub records: usize,
    pub bytes: usize,
}

/// What is queued for one topic's partition.
#[derive(Default)]
pub(crate) struct Queued {
    /// The records as encoded by [`format`].
    pub bytes: Vec<u8>,
    pub records: u32,
    /// The waiting calls, each with the number of the slot's records up to its own last one.
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

    /// Whether several calls wait for the group, but so few records that gathering more for the next
    /// batch pays off.
    pub(crate) fn serves_few(&self) -> bool {
        let waiting = self
            .filled
            .iter()
            .map(|slot| self.slots[*slot].waiting.len());
        self.records < MANY_RECORDS && waiting.sum::<usize>() > 1
    }

    /// Answers all waiting calls with this error, and empties the group.
    pub(crate) fn refuse(&mut self, error: &AppendError) {
        for slot in &self.filled {
            let queued = &mut self.slots[*slot];
            queued.bytes.clear();
            queued.records = 0;
        }
        for answer in self.drain_waiting() {
            // The caller may have gone away.
            let _ = answer.send(Err(error.clone()));
        }
        self.records = 0;
        self.bytes = 0;
    }

    /// Removes the waiting calls from the group.
    fn drain_waiting(&mut self) -> impl Iterator<Item = oneshot::Sender<Answer>> {
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
            taken: 0,
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

    /// Queues all records of a call, or none of them. They are within the port's bounds.
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
            Phase::Closing => return Err(AppendError::Stopped("it is closing".to_owned())),
            Phase::Stopped(reason) => return Err(AppendError::Stopped(reason.clone())),
        }
        let group = &mut state.group;
        // An empty queue takes any number of records, or a call with many would never succeed.
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

    /// Waits until something is queued and takes all of it in exchange for an empty group. Returns
    /// false when the queue is closed and empty.
    pub(crate) fn take(&self, group: &mut Group) -> bool {
        let mut state = self.state.lock();
        state.taken = 0;
        while state.group.filled.is_empty() {
            if !matches!(state.phase, Phase::Open) {
                return false;
            }
            state.writer_sleeps = true;
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.group, group);
        state.taken = group.records;
        true
    }

    /// The number of records that are queued or being written.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.state.lock();
        (state.group.records + state.taken) as u64
    }

    /// Why the queue has stopped; none while it is open or closing.
    pub(crate) fn stopped(&self) -> Option<String> {
        match &self.state.lock().phase {
            Phase::Open | Phase::Closing => None,
            Phase::Stopped(reason) => Some(reason.clone()),
        }
    }

    /// Refuses further records; queued ones are still written.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closing;
        }
        self.filled.notify_one();
    }

    /// Refuses further records, and drops the queued ones.
    pub(crate) fn stop(&self, reason: &str) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Stopped(_)) {
            return;
        }
        state.phase = Phase::Stopped(reason.to_owned());
        state.taken = 0;
        let abandoned: Vec<_> = state.group.drain_waiting().collect();
        drop(state);
        for answer in abandoned {
            // The caller may have gone away.
            let _ = answer.send(Err(AppendError::Stopped(reason.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_pays_off_when_several_calls_share_a_small_batch() {
        // The slot and the number of records of each call.
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
