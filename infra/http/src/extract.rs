//! The extractors of handlers. A wrong part of a request becomes a [`Problem`] that names the part
//! and what it must be.

use std::borrow::Cow;
use std::fmt;

use axum::RequestExt;
use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use schemas::ids::{BuyerId, MAX_KEY_BYTES, Position};
use serde::de::{DeserializeOwned, Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::problem::{Code, Problem};

/// The header that names the buyer.
pub const BUYER_HEADER: &str = "x-buyer-id";
/// The header that identifies an attempt, so that a retry is recognised.
pub const KEY_HEADER: &str = "idempotency-key";

/// A body that is a JSON object. Its size is bounded by the route's `DefaultBodyLimit`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(unsupported_media_type());
        }
        let bytes = read_body(request, state).await?;
        // serde would read an array as the fields of an object in their order.
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(Problem::invalid("body", "a JSON object"));
        }
        // The fast way first. Only a wrong body is read again, to find out what is wrong.
        serde_json::from_slice(&bytes)
            .map(Body)
            .or_else(|_| explain::<T>(&bytes).map(Body))
    }
}

/// The body of a request that needs none: it is empty, or an empty JSON object.
pub struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}
        let is_json = is_json(request.headers());
        let bytes = read_body(request, state).await?;
        match bytes.trim_ascii() {
            b"" => Ok(NoBody),
            [b'[', ..] => Err(Problem::invalid("body", "a JSON object")),
            _ if !is_json => Err(unsupported_media_type()),
            bytes => explain::<Empty>(bytes).map(|_| NoBody),
        }
    }
}

/// Parameters in the path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        use axum::extract::path::ErrorKind;
        let rejection = match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => return Ok(Path(value)),
            Err(rejection) => rejection,
        };
        let kind = match rejection {
            PathRejection::FailedToDeserializePathParams(failed) => failed.into_kind(),
            // The handler requests parameters that the path of its route does not have.
            other => return Err(Problem::new(Code::Internal, other.body_text())),
        };
        Err(match kind {
            ErrorKind::DeserializeError { key, message, .. } => wrong(key, &message),
            ErrorKind::ParseErrorAtKey {
                key, expected_type, ..
            } => Problem::invalid(key, in_words(expected_type)),
            ErrorKind::InvalidUtf8InPathParam { key } => Problem::invalid(key, "UTF-8"),
            other => wrong("path".into(), &other.to_string()),
        })
    }
}

/// Parameters in the query.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Query(value)),
            Err(rejection) => {
                let text = rejection.body_text();
                let text = text
                    .strip_prefix("Failed to deserialize query string: ")
                    .unwrap_or(&text);
                // The parameter's name comes before the message, unless the message names it.
                let is_name = |name: &str| !name.contains([' ', '`']);
                Err(match text.split_once(": ") {
                    Some((name, message)) if is_name(name) => wrong(name.to_owned(), message),
                    _ => wrong("query".into(), text),
                })
            }
        }
    }
}

/// The buyer who sends the request, from `X-Buyer-Id`.
pub struct Buyer(pub BuyerId);

impl<S: Send + Sync> FromRequestParts<S> for Buyer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(text) = one_header(&parts.headers, BUYER_HEADER, "X-Buyer-Id")? else {
            let problem = Problem::new(
                Code::MissingHeader,
                "The header X-Buyer-Id, which names the buyer, is missing.",
            );
            return Err(problem.at("X-Buyer-Id", "1 to 64 bytes that name the buyer"));
        };
        text.parse()
            .map(Buyer)
            .map_err(|error: schemas::ids::IdError| wrong("X-Buyer-Id".into(), &error.to_string()))
    }
}

/// The buyer who sends the request, from `X-Buyer-Id` if that is given.
pub struct OptionalBuyer(pub Option<BuyerId>);

impl<S: Send + Sync> FromRequestParts<S> for OptionalBuyer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if !parts.headers.contains_key(BUYER_HEADER) {
            return Ok(Self(None));
        }
        let Buyer(buyer) = Buyer::from_request_parts(parts, state).await?;
        Ok(Self(Some(buyer)))
    }
}

/// The client's own name for its attempt, from `Idempotency-Key`: 1 to 255 visible ASCII
/// characters, bare or as a string of RFC 8941 in double quotes. Both forms mean the same.
pub struct IdempotencyKey(pub Option<Box<str>>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(text) = one_header(&parts.headers, KEY_HEADER, "Idempotency-Key")? else {
            return Ok(Self(None));
        };
        let key = unquote(text).filter(|key| {
            let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
            visible && (1..=MAX_KEY_BYTES).contains(&key.len())
        });
        match key {
            Some(key) => Ok(Self(Some(key.into()))),
            None => Err(Problem::invalid(
                "Idempotency-Key",
                "1 to 255 visible ASCII characters, bare or in double quotes",
            )),
        }
    }
}

/// The version of the sale that a change was made for, from `If-Match`: one entity tag, as the sale's
/// `ETag` was. None without the header.
pub struct IfMatch(pub Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(text) = one_header(&parts.headers, "if-match", "If-Match")? else {
            return Ok(Self(None));
        };
        let digits = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        // The log has versions as 64-bit numbers with a sign.
        let version = digits.and_then(|text| text.parse::<i64>().ok());
        match version.and_then(|version| u64::try_from(version).ok()) {
            Some(version) => Ok(Self(Some(version))),
            None => Err(Problem::invalid(
                "If-Match",
                "one ETag of the sale, unchanged, such as \"17\"",
            )),
        }
    }
}

/// The value of a header that may be given at most once.
fn one_header<'a>(
    headers: &'a HeaderMap,
    name: &str,
    shown: &'static str,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::invalid(shown, "given once"));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Problem::invalid(shown, "ASCII text")),
    }
}

/// The value of a string of RFC 8941. A text without quotes is its own value.
fn unquote(text: &str) -> Option<Cow<'_, str>> {
    let Some(inner) = text.strip_prefix('"') else {
        return Some(text.into());
    };
    let inner = inner.strip_suffix('"')?;
    if !inner.contains(['"', '\\']) {
        return Some(inner.into());
    }
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            '\\' => plain.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            c => plain.push(c),
        }
    }
    Some(plain.into())
}

fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE);
    let Some(declared) = declared.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let kind = declared.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn unsupported_media_type() -> Problem {
    let problem = Problem::new(
        Code::UnsupportedMediaType,
        "The body must be declared with Content-Type: application/json.",
    );
    problem.at("Content-Type", "application/json")
}

async fn read_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = "The body is larger than this route accepts.";
        Problem::new(Code::BodyTooLarge, detail)
    };
    // A body that is announced as too large need not arrive.
    let announced = request.body().size_hint().lower();
    let request = request.with_limited_body();
    let limit = request.body().size_hint().upper();
    if limit.is_some_and(|limit| announced > limit) {
        return Err(too_large());
    }
    Bytes::from_request(request, state)
        .await
        .map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                too_large()
            }
            _ => Problem::new(
                Code::InvalidRequest,
                "The body could not be read to its end.",
            )
            .at("body", "complete"),
        })
}

/// Reads a body once more, to find out which part of it is wrong.
fn explain<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let not_json = |error: &serde_json::Error| {
        Problem::new(
            Code::InvalidRequest,
            format!("The body is not JSON: {error}."),
        )
        .at("body", "JSON")
    };
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        if !error.inner().is_data() {
            return not_json(error.inner());
        }
        let path = error.path().to_string();
        let message = error.inner().to_string();
        let message = message
            .rsplit_once(" at line ")
            .map_or(&*message, |(text, _)| text);
        wrong(path, message)
    })?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

/// The problem for a message of serde about the value at a path.
fn wrong(path: String, message: &str) -> Problem {
    let quoted = |prefix| {
        let (name, _) = message.strip_prefix(prefix)?.split_once('`')?;
        Some(name.to_owned())
    };
    let path = if path == "." { "body".to_owned() } else { path };
    if let Some(rest) = message.strip_prefix("unknown field `") {
        // The name comes from the client and may contain anything; the known names are our own.
        let (name, known) = match rest.rsplit_once("`, expected ") {
            Some((name, known)) => (name, known.replace('`', "")),
            None => (
                rest.strip_suffix("`, there are no fields").unwrap_or(rest),
                "no field at all".to_owned(),
            ),
        };
        let name = if name.is_empty() { "\"\"" } else { name };
        let detail = format!("There is no field {name} here.");
        return Problem::new(Code::UnknownField, detail).at(name.to_owned(), known);
    }
    if let Some(name) = quoted("missing field `") {
        // In a nested value the path is that of the parent; at the top level it is empty.
        let field = match path.as_str() {
            "body" | "query" => name,
            parent => format!("{parent}.{name}"),
        };
        let detail = format!("{field} is missing.");
        return Problem::new(Code::InvalidRequest, detail).at(field, "given");
    }
    if let Some(name) = quoted("duplicate field `") {
        return Problem::invalid(name, "given once");
    }
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => Problem::invalid(path, in_words(expected)),
        None => {
            let expected = message.split(", but ").next().unwrap_or(message);
            let expected = expected.strip_prefix("must ").unwrap_or(expected);
            let expected = expected.strip_prefix("be ").unwrap_or(expected).to_owned();
            Problem::new(Code::InvalidRequest, format!("{path} {message}.")).at(path, expected)
        }
    }
}

/// What serde expects, in words for people who do not know Rust.
fn in_words(expected: &str) -> Cow<'static, str> {
    match expected {
        "u32" => "a whole number from 0 to 4294967295".into(),
        "i64" => "a whole number".into(),
        text if text.starts_with("struct ") => "a JSON object".into(),
        text => text.to_owned().into(),
    }
}

/// Reads a JSON number within bounds: `#[serde(deserialize_with = "number::<_, 1, 500>")]`.
pub fn number<'de, D: Deserializer<'de>, const MIN: u32, const MAX: u32>(
    deserializer: D,
) -> Result<u32, D::Error> {
    deserializer.deserialize_u32(Whole {
        min: MIN,
        max: MAX,
        of_text: false,
    })
}

/// Reads a number within bounds from a query: `#[serde(default, deserialize_with =
/// "query_number::<_, 1, 500>")]`. An absent parameter is none.
pub fn query_number<'de, D: Deserializer<'de>, const MIN: u32, const MAX: u32>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    deserializer
        .deserialize_str(Whole {
            min: MIN,
            max: MAX,
            of_text: true,
        })
        .map(Some)
}

/// Reads a position, `3:1842`, from a query: `#[serde(default, deserialize_with =
/// "query_position")]`. An absent parameter is none.
pub fn query_position<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Position>, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Position;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("partition:offset, two numbers such as 3:1842")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Position, E> {
            text.parse()
                .map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(Text).map(Some)
}

struct Whole {
    min: u32,
    max: u32,
    of_text: bool,
}

impl Visitor<'_> for Whole {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {} to {}", self.min, self.max)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
        match u32::try_from(number) {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u32, E> {
        // A number in a query has digits only, though `parse` would accept a '+'.
        let digits = self.of_text && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => self.visit_u64(number),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}
