//! What bounds a connection.

use std::time::Duration;

/// What bounds the connections of a server. A number alone is the most connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections at once; further ones are refused with 503.
    pub connections: usize,
    /// The longest time for the head of a request, and the longest time a connection may be idle.
    pub head_timeout: Duration,
    /// The longest time for which a client may leave responses unread; then its connection ends.
    pub write_timeout: Duration,
    /// How long a connection on which the client does not read, or does not stop sending, is kept
    /// after the drain has started.
    pub drain_timeout: Duration,
    /// How long the rest of a request that nobody reads is discarded after the answer, so that
    /// the client gets the answer.
    pub discard_timeout: Duration,
    /// The most bytes that are discarded likewise.
    pub discard_bytes: usize,
}

impl From<usize> for Limits {
    fn from(connections: usize) -> Self {
        Self {
            connections,
            head_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(2),
            discard_timeout: Duration::from_secs(5),
            discard_bytes: 16 * 1024 * 1024,
        }
    }
}
