//! Ports to listen on.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the kernel's range for outgoing connections (32768 and up). There, a client that tries to reach a
/// stopped engine could get the engine's port for its own end, and would be connected to itself.
const RANGE: Range<u32> = 15_000..32_000;
/// The distance of the first ports that two processes try.
const PER_PROCESS: u32 = 16;

/// A free port of the loopback address, never the same twice in one process.
///
/// # Panics
/// If all 17,000 ports of the range are in use.
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

/// The port itself if it is free, else another free one.
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
