//! The limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many files and connections the process may have open, if its user may set that.
const OPEN_FILES: u64 = 65_536;

/// Raises the limit of open files. Each connection is a file, and the default of most shells is
/// too low for a crowd.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_some_and(|current| current < wanted) {
        let limit = Rlimit {
            current: Some(wanted),
            maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "cannot raise the limit of open files; it stays as it is");
        }
    }
}
