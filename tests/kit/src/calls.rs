use std::collections::BTreeMap;

use parking_lot::Mutex;

/// How often each method of a double was called, so that a test can tell what was asked and
/// what never was.
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
