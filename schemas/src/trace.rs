//! The trace that a request belongs to, by W3C Trace Context level 1.
//!
//! A request's `traceparent` and `tracestate` are copied unchanged into headers of the same names,
//! first of the command and then of the decision on it; no spans are created. A request without a
//! trace gets none: a proxy or front end decides which requests are traced.

use bytes::Bytes;

use crate::ids::TraceId;

/// The header that names the trace and the caller's span in it.
pub const TRACEPARENT: &str = "traceparent";
/// The header with the state of each tracing system involved.
pub const TRACESTATE: &str = "tracestate";

/// The longest value of either that is kept, in bytes: as long as a record's header may be.
pub const MAX_HEADER_BYTES: usize = 256;

/// The trace that a record's headers name, if they do.
pub fn trace_of(headers: &[(String, Bytes)]) -> Option<TraceId> {
    let (_, value) = headers.iter().find(|(name, _)| name == TRACEPARENT)?;
    trace_id(value)
}

/// The trace that a `traceparent` names; none when it is not valid.
///
/// Parsed here because opentelemetry's parser, which comes with its whole SDK, accepts ids that are
/// too short and rewrites `tracestate`.
pub fn trace_id(traceparent: &[u8]) -> Option<TraceId> {
    // Version 00 has 55 bytes: 00-{trace, 32 digits}-{parent, 16 digits}-{flags, 2 digits}.
    // A later version may append fields after one more dash.
    let (known, rest) = traceparent.split_first_chunk::<55>()?;
    let [version] = digits(&known[..2])?;
    let added = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => matches!(rest, [] | [b'-', ..]),
    };
    let dashes = [known[2], known[35], known[52]] == *b"---";
    let parent: [u8; 8] = digits(&known[36..52])?;
    let [_flags] = digits(&known[53..])?;
    if !added || !dashes || parent == [0; 8] {
        return None;
    }
    TraceId::from_bytes(digits(&known[3..35])?)
}

/// The bytes that lower-case hexadecimal digits stand for.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn shown(traceparent: &str) -> Option<String> {
        trace_id(traceparent.as_bytes()).map(|trace| trace.to_string())
    }

    #[test]
    fn the_examples_of_the_specification_are_parsed() {
        for flags in ["00", "01", "ff", "09"] {
            let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            assert_eq!(shown(&traceparent).as_deref(), Some(TRACE), "{flags}");
        }
        let other = "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01";
        let trace = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(shown(other).as_deref(), Some(trace));
        let small = "00-00000000000000000000000000000001-0000000000000001-00";
        assert!(shown(small).is_some());
    }

    #[test]
    fn the_known_fields_of_later_versions_are_parsed() {
        for (version, rest) in [("01", ""), ("cc", "-what-the-future-brings"), ("fe", "-")] {
            let traceparent = format!("{version}-{TRACE}-00f067aa0ba902b7-01{rest}");
            assert_eq!(shown(&traceparent).as_deref(), Some(TRACE), "{traceparent}");
        }
    }

    #[test]
    fn an_invalid_traceparent_names_no_trace() {
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for length in 0..good.len() {
            assert_eq!(shown(&good[..length]), None, "cut to {length} bytes");
        }
        // No byte of it may be a capital, a dash elsewhere, a space or beyond ASCII.
        for at in 0..good.len() {
            for byte in [b'A', b'F', b'g', b' ', b'+', b'_', 0xe9, 0] {
                let mut bad = good.clone().into_bytes();
                bad[at] = byte;
                assert_eq!(trace_id(&bad), None, "{byte} at {at}");
            }
            if !matches!(at, 2 | 35 | 52) {
                let mut bad = good.clone().into_bytes();
                bad[at] = b'-';
                assert_eq!(trace_id(&bad), None, "a dash at {at}");
            }
        }
        for bad in [
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("{good}-"),
            format!("{good}-what-the-future-brings"),
            format!("{good}0"),
            format!("01-{TRACE}-00f067aa0ba902b7-01.what"),
            format!("cc-{TRACE}-00f067aa0ba902b7-010"),
            format!(" {good}"),
            format!("{good} "),
            format!("{good},{good}"),
        ] {
            assert_eq!(shown(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_record_s_trace_is_found_among_its_headers() {
        let header = |name: &str, value: &str| (name.to_owned(), Bytes::from(value.to_owned()));
        let traceparent = header(TRACEPARENT, &format!("00-{TRACE}-00f067aa0ba902b7-01"));
        let state = header(TRACESTATE, "congo=t61rcWkgMzE");
        let trace = trace_of(&[state.clone(), traceparent]);
        assert_eq!(trace.map(|trace| trace.to_string()).as_deref(), Some(TRACE));
        assert_eq!(trace_of(&[]), None);
        assert_eq!(trace_of(&[state, header(TRACEPARENT, "00-0-0-0")]), None);
    }
}
