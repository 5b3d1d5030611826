//! A disk in memory that injects failures, and loses in a power cut what was not synced.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::files::{Files, LogFile};

/// A power cut keeps or loses a sector as a whole.
const SECTOR_BYTES: usize = 512;

/// A disk with one directory. Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    /// Files by number, and their names in the page cache and on the disk.
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The number of calls so far that change something.
    calls: usize,
    fault: Option<(usize, Fault)>,
    /// The error of every call that needs a new file or more space, if they all fail.
    exhausted: Option<ErrorKind>,
    /// Whether syncs of files do not return.
    hangs: bool,
}

#[derive(Clone, Default)]
struct Content {
    /// The bytes in the page cache.
    cached: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Range<usize>>,
}

/// A failure of a call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call fails: a write is done in part; a sync leaves its bytes in the page cache only, and the
    /// next sync does not write them either. Later calls succeed.
    Once(ErrorKind),
    /// The call and all later ones fail; a write reaches the page cache.
    PowerOff,
}

impl Disk {
    /// Lets the call with this number fail, counted from the disk's first call.
    pub(super) fn fail_at(&self, call: usize, fault: Fault) {
        self.0.lock().fault = Some((call, fault));
    }

    /// Lets every call fail with this error that needs a new file or more space, until it is called
    /// with none.
    pub(super) fn exhaust(&self, error: Option<ErrorKind>) {
        self.0.lock().exhausted = error;
    }

    /// Lets no sync of a file return, until it is called with false.
    pub(super) fn hang(&self, hangs: bool) {
        self.0.lock().hangs = hangs;
    }

    pub(super) fn calls(&self) -> usize {
        self.0.lock().calls
    }

    /// The disk as the next process finds it after this one was killed.
    pub(super) fn after_kill(&self) -> Disk {
        let state = State {
            fault: None,
            exhausted: None,
            hangs: false,
            calls: 0,
            ..self.0.lock().clone()
        };
        Disk(Arc::new(Mutex::new(state)))
    }

    /// The disk after a power cut, with those unsynced sectors for which `keep` returns true.
    pub(super) fn after_power_cut(&self, mut keep: impl FnMut() -> bool) -> Disk {
        let mut state = self.after_kill().0.lock().clone();
        state.names = state.durable_names.clone();
        for file in &mut state.files {
            let sectors = (0..file.cached.len()).step_by(SECTOR_BYTES);
            for sector in sectors.map(|at| at..(at + SECTOR_BYTES).min(file.cached.len())) {
                let is_unsynced =
                    |range: &Range<usize>| range.start < sector.end && sector.start < range.end;
                if file.unsynced.iter().any(is_unsynced) && keep() {
                    let bytes = file.durable.len().max(sector.end);
                    file.durable.resize(bytes, 0);
                    file.durable[sector.clone()].copy_from_slice(&file.cached[sector]);
                }
            }
            file.cached = file.durable.clone();
            file.unsynced.clear();
        }
        Disk(Arc::new(Mutex::new(state)))
    }

    /// The contents of all files.
    pub(super) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock();
        let files = state.names.iter();
        files
            .map(|(name, file)| (name.clone(), state.files[*file].cached.clone()))
            .collect()
    }

    /// Changes a file, unnoticed by the log.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let file = state.names[name];
        let file = &mut state.files[file];
        change(&mut file.cached);
        file.durable = file.cached.clone();
    }

    /// Removes a file, unnoticed by the log.
    pub(super) fn lose(&self, name: &str) {
        let mut state = self.0.lock();
        state.names.remove(name);
        state.durable_names.remove(name);
    }
}

impl State {
    /// Counts a call that changes something, and returns its failure, if it fails.
    fn call(&mut self) -> Option<Fault> {
        let call = self.calls;
        self.calls += 1;
        let (at, fault) = self.fault?;
        let fails = call == at || (call > at && fault == Fault::PowerOff);
        fails.then_some(fault)
    }

    fn checked_call(&mut self) -> Result<()> {
        self.call().map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn find(&self, name: &str) -> Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Fault {
    fn error(self) -> Error {
        match self {
            Fault::Once(kind) => kind.into(),
            Fault::PowerOff => Error::other("the power is off"),
        }
    }
}

impl Files for Disk {
    fn list(&self) -> Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> Result<Arc<dyn LogFile>> {
        let file = self.0.lock().find(name)?;
        Ok(Arc::new(DiskFile {
            disk: self.clone(),
            file,
        }))
    }

    fn create(&self, name: &str) -> Result<Arc<dyn LogFile>> {
        let mut state = self.0.lock();
        state.checked_call()?;
        // On a disk without space an empty file can still be created.
        if let Some(error) = state
            .exhausted
            .filter(|error| *error != ErrorKind::StorageFull)
        {
            return Err(error.into());
        }
        let file = state.files.len();
        state.files.push(Content::default());
        state.names.insert(name.to_owned(), file);
        Ok(Arc::new(DiskFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut state = self.0.lock();
        state.checked_call()?;
        let file = state.find(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let mut state = self.0.lock();
        state.checked_call()?;
        state.find(name)?;
        state.names.remove(name);
        Ok(())
    }

    fn sync_names(&self) -> Result<()> {
        let mut state = self.0.lock();
        state.checked_call()?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}

struct DiskFile {
    disk: Disk,
    file: usize,
}

impl LogFile for DiskFile {
    fn bytes(&self) -> Result<u64> {
        Ok(self.disk.0.lock().files[self.file].cached.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize> {
        // No test has a file of this size.
        assert!(buffer.len() <= 1 << 20, "a damaged length was believed");
        let state = self.disk.0.lock();
        let bytes = state.files[self.file]
            .cached
            .get(position as usize..)
            .unwrap_or(&[]);
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> Result<()> {
        let mut state = self.disk.0.lock();
        let calls = state.calls;
        let fault = state.call();
        let exhausted = state.exhausted;
        let file = &mut state.files[self.file];
        let from = position as usize;
        if let Some(error) = exhausted.filter(|_| from + bytes.len() > file.cached.len()) {
            return Err(error.into());
        }
        let written = match fault {
            None | Some(Fault::PowerOff) => bytes.len(),
            Some(Fault::Once(_)) => bytes.len() * (calls % 3) / 3,
        };
        let to = from + written;
        let end = file.cached.len().max(to);
        file.cached.resize(end, 0);
        file.cached[from..to].copy_from_slice(&bytes[..written]);
        file.unsynced.push(from..to);
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn sync(&self) -> Result<()> {
        while self.disk.0.lock().hangs {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut state = self.disk.0.lock();
        let fault = state.call();
        let file = &mut state.files[self.file];
        match fault {
            None => {
                let cached = &file.cached;
                file.durable.resize(cached.len(), 0);
                for range in file.unsynced.drain(..) {
                    file.durable[range.clone()].copy_from_slice(&cached[range]);
                }
                Ok(())
            }
            Some(fault) => {
                if matches!(fault, Fault::Once(_)) {
                    file.unsynced.clear();
                }
                Err(fault.error())
            }
        }
    }
}
