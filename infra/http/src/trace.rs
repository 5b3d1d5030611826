//! The trace that a request belongs to.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use schemas::ids::TraceId;
use schemas::trace::{MAX_HEADER_BYTES, TRACEPARENT, TRACESTATE, trace_id};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};

/// The trace of a request, from `traceparent` and `tracestate`, for the record that the request
/// becomes. Headers that are invalid by W3C Trace Context level 1 are ignored, as it requires, and
/// so are those of more than [`MAX_HEADER_BYTES`]. A request without a trace gets none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// The trace; none if the request belongs to none.
    pub id: Option<TraceId>,
    /// The headers of the record, unchanged; empty without a trace.
    pub headers: Vec<(String, axum::body::Bytes)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(trace(&parts.headers).unwrap_or_default())
    }
}

fn trace(headers: &HeaderMap) -> Option<Trace> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (given.next(), given.next()) else {
        return None;
    };
    let parent = parent.as_bytes();
    let id = trace_id(parent).filter(|_| parent.len() <= MAX_HEADER_BYTES)?;
    let mut kept = vec![(TRACEPARENT.to_owned(), parent.to_vec().into())];
    if let Some(state) = state(headers) {
        kept.push((TRACESTATE.to_owned(), state.into()));
    }
    Some(Trace {
        id: Some(id),
        headers: kept,
    })
}

/// The request's `tracestate`. Its list may be spread over several headers.
fn state(headers: &HeaderMap) -> Option<String> {
    let mut state = String::new();
    for part in headers.get_all(TRACESTATE) {
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(part.to_str().ok()?);
    }
    (1..=MAX_HEADER_BYTES)
        .contains(&state.len())
        .then_some(state)
}

impl IntoParams for Trace {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let header = |name: &str, description: &str| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .description(Some(description))
                .build()
        };
        vec![
            header(
                TRACEPARENT,
                "The trace that the request belongs to, by W3C Trace Context. It is shown with \
                 the outcome of the request. An invalid one is ignored.",
            ),
            header(
                TRACESTATE,
                "Data of tracing systems; kept with the request's record if it has at most 256 \
                 bytes.",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01";

    fn read(headers: &[(&'static str, &[u8])]) -> Trace {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_bytes(value).unwrap();
                (HeaderName::from_static(name), value)
            })
            .collect();
        trace(&headers).unwrap_or_default()
    }

    fn kept(headers: &[(&'static str, &[u8])]) -> Vec<(String, String)> {
        let trace = read(headers);
        assert_eq!(trace.id.is_some(), !trace.headers.is_empty());
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let headers = trace.headers.iter();
        headers
            .map(|(name, value)| (name.clone(), text(value)))
            .collect()
    }

    fn header(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_valid_trace_is_kept_unchanged() {
        let parent = ("traceparent", PARENT.as_bytes());
        let id = read(&[parent]).id.unwrap();
        assert_eq!(id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(kept(&[parent]), [header(TRACEPARENT, PARENT)]);
        let state = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
        assert_eq!(
            kept(&[("tracestate", state.as_bytes()), parent]),
            [header(TRACEPARENT, PARENT), header(TRACESTATE, state)]
        );
        let (one, two) = (("tracestate", &b"a=1"[..]), ("tracestate", &b"b=2"[..]));
        assert_eq!(
            kept(&[one, parent, two])[1],
            header(TRACESTATE, "a=1,b=2"),
            "a list may be spread over several headers"
        );
        let later = format!("01-{}-more", &PARENT[3..]);
        assert_eq!(
            kept(&[("traceparent", later.as_bytes())]),
            [header(TRACEPARENT, &later)]
        );
    }

    #[test]
    fn invalid_and_too_long_headers_are_ignored() {
        let parent = ("traceparent", PARENT.as_bytes());
        let nothing: [(String, String); 0] = [];
        assert_eq!(kept(&[]), nothing);
        assert_eq!(kept(&[("tracestate", b"a=1")]), nothing);
        assert_eq!(kept(&[("traceparent", b"00-abc")]), nothing);
        assert_eq!(
            kept(&[("traceparent", b""), ("tracestate", b"a=1")]),
            nothing
        );
        assert_eq!(kept(&[parent, parent]), nothing, "two traces are ambiguous");

        let at_most = |bytes: usize| format!("01-{}-{}", &PARENT[3..], "x".repeat(bytes - 56));
        assert_eq!(kept(&[("traceparent", at_most(256).as_bytes())]).len(), 1);
        assert_eq!(kept(&[("traceparent", at_most(257).as_bytes())]), nothing);

        let only_parent = [header(TRACEPARENT, PARENT)];
        for state in [&b""[..], b"a=\xe9", &[b'x'; 257]] {
            assert_eq!(kept(&[parent, ("tracestate", state)]), only_parent);
        }
        let half = ("tracestate", &[b'x'; 128][..]);
        assert_eq!(kept(&[parent, half, half]), only_parent);
        assert_eq!(kept(&[parent, ("tracestate", &[b'x'; 256])]).len(), 2);
    }
}
