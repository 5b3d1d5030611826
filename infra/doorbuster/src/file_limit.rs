//! The limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many files and connections the process may have open, if its user may set that.
const OPEN_FILES: u64 = 65_536;

/// How many of them are kept for the files of the log and the read store, and for connections to
/// engines. Of a low limit it is half.
const RESERVED_FILES: u64 = 512;

/// Raises the limit of open files. Each connection is a file, and the default of most shells is
/// too low for a crowd. Returns how many connections may be open at once: `max_connections`, or
/// fewer if the limit leaves no more, since a connection beyond the limit would not be refused but
/// wait without an answer.
pub fn raise(max_connections: usize) -> usize {
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
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return max_connections;
    };
    let possible = connections_within(limit);
    if possible < max_connections {
        tracing::warn!(
            limit,
            max_connections,
            possible,
            "the limit of open files allows fewer connections than max_connections; further ones \
             are refused. Raise the limit (ulimit -n) or lower max_connections"
        );
    }
    max_connections.min(possible)
}

/// How many connections fit under a limit of open files, at least one.
pub fn connections_within(limit: u64) -> usize {
    let left = limit - RESERVED_FILES.min(limit / 2);
    usize::try_from(left).unwrap_or(usize::MAX).max(1)
}
