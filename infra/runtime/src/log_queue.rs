//! Log messages on their way to standard error. What logs never waits for who reads the log: a
//! message goes to a bounded queue, and a thread of its own writes the queue. When nobody reads, or
//! the disk is full, messages are lost and counted; the work continues.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::metrics::LOG_LINES_LOST;

/// The most bytes that wait to be written: some thousands of messages, more than a burst has. A
/// message that does not fit is lost.
const MAX_BYTES: usize = 1 << 20;

/// Lines that wait to be written. Clones share the queue.
#[derive(Clone)]
pub(crate) struct LogQueue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Notified when a line is added.
    added: Condvar,
    /// Notified when all lines have been written or are lost.
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    /// Lines lost since the last report.
    lost: u64,
}

impl LogQueue {
    /// Starts the thread that writes to `to`. After lines were lost, `report` is called with their
    /// number as soon as writing succeeds again; it may add lines.
    pub(crate) fn start(
        to: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            added: Condvar::new(),
            written: Condvar::new(),
        });
        let queue = shared.clone();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || queue.write_all_to(to, report))?;
        Ok(Self { shared })
    }

    /// Adds a line, or counts it as lost if the queue is full. Never waits for the reader.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.shared.state.lock();
        if state.waiting.len() + line.len() <= MAX_BYTES {
            state.waiting.extend_from_slice(line);
            self.shared.added.notify_one();
        } else {
            state.lose(1);
        }
    }

    /// Waits until all lines have been written or are lost, but no longer than `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let mut state = self.shared.state.lock();
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        self.shared
            .written
            .wait_while_for(&mut state, is_busy, limit);
    }
}

/// Writing adds the bytes, which are one line, to the queue.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn write_all_to(&self, mut to: impl Write, report: impl Fn(u64)) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.state.lock();
            self.added
                .wait_while(&mut state, |state| state.waiting.is_empty());
            std::mem::swap(&mut state.waiting, &mut lines);
            state.is_writing = true;
            drop(state);

            let written = to.write_all(&lines).and_then(|()| to.flush());
            let mut state = self.state.lock();
            let lost = match written {
                Ok(()) => std::mem::take(&mut state.lost),
                Err(_) => {
                    let count = lines.iter().filter(|byte| **byte == b'\n').count();
                    state.lose(count as u64);
                    0
                }
            };
            lines.clear();
            drop(state);
            if lost > 0 {
                report(lost);
            }
            self.state.lock().is_writing = false;
            self.written.notify_all();
        }
    }
}

impl State {
    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        metrics::counter!(LOG_LINES_LOST).increment(lines);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Passes each write on, and then waits until the test answers whether it succeeded.
    struct Reader {
        lines: SyncSender<Vec<u8>>,
        answers: Receiver<bool>,
    }

    impl Write for Reader {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            self.lines.send(lines.to_vec()).unwrap();
            match self.answers.recv() {
                Ok(true) => Ok(lines.len()),
                _ => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_without_a_reader_are_lost_and_counted_and_nothing_waits() {
        let (lines, written) = sync_channel(1);
        let (answer, answers) = sync_channel(8);
        let (reported, reports) = sync_channel(8);
        let report = move |lost| reported.send(lost).unwrap();
        let queue = LogQueue::start(Reader { lines, answers }, report).unwrap();
        queue.flush(LONG);

        queue.push(b"one\n");
        assert_eq!(written.recv().unwrap(), b"one\n");
        // The first line is not read. The queue takes what fits, and no more.
        let line = [b"x".repeat(MAX_BYTES / 4 - 1), b"\n".to_vec()].concat();
        (0..7).for_each(|_| queue.push(&line));
        queue.flush(Duration::ZERO);

        answer.send(true).unwrap();
        assert_eq!(reports.recv().unwrap(), 3);
        assert_eq!(written.recv().unwrap().len(), MAX_BYTES);
        answer.send(false).unwrap();
        queue.push(b"two\n");
        assert_eq!(written.recv().unwrap(), b"two\n");
        answer.send(true).unwrap();
        assert_eq!(reports.recv().unwrap(), 4, "those of the failed write");
        queue.flush(LONG);
    }
}
