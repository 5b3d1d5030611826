//! Counting the calls of a double.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// How often each method of a double was called, so that a test can assert which calls were made and
/// which never were.
#[derive(Default)]
pub(crate) struct Calls(Mutex<BTreeMap<&'static str, usize>>);

impl Calls {
    pub fn count(&self, method: &'static str) {
        *self.0.lock().entry(method).or_default() += 1;
    }

    pub fn all(&self) -> BTreeMap<&'static str, usize> {
        self.0.lock().clone()
    }
}
