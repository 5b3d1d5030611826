//! Ports to listen on.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below where the kernel takes the ports of outgoing connections from (32768 and up): there, the
/// port of an engine that is down for a while could be taken by a client that tries to reach it,
/// and the client would even be connected, to itself.
const RANGE: Range<u32> = 15_000..32_000;
/// Two processes that start sets at the same time look in different places.
const PER_PROCESS: u32 = 16;

/// A port of the loopback address that nobody listens on, never the same twice in one process.
///
/// # Panics
/// If all of the 17,000 it may choose from are in use.
pub(crate) fn free() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = RANGE.end - RANGE.start;
    let first = std::process::id().wrapping_mul(PER_PROCESS) % count;
    (0..count)
        .map(|_| RANGE.start + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % count)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| is_free(*port))
        .expect("one of 17,000 ports is free")
}

/// The port itself if nobody listens on it, else another.
pub(crate) fn this_or_free(port: u16) -> u16 {
    if is_free(port) { port } else { free() }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let (one, two) = (free(), free());
        assert_ne!(one, two);
        let _listener = TcpListener::bind(("127.0.0.1", one)).unwrap();
        assert_eq!(this_or_free(two), two);
        assert_ne!(this_or_free(one), one);
    }
}
