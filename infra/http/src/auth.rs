//! Authorisation of the administration, by the admin token.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use runtime::settings::AdminToken;
use subtle::ConstantTimeEq;

use crate::problem::{Code, Problem};

/// Lets a request pass only if it carries the admin token. Without a token in the settings, no
/// request passes. For `axum::middleware::from_fn_with_state`.
pub async fn require_admin(
    State(token): State<Option<AdminToken>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    check_admin(request.headers(), token.as_ref())?;
    Ok(next.run(request).await)
}

/// Whether these headers carry the admin token, for a route that only some of its answers need it
/// for.
pub fn check_admin(headers: &HeaderMap, token: Option<&AdminToken>) -> Result<(), Problem> {
    let Some(token) = token else {
        return Err(Problem::new(
            Code::AdminDisabled,
            "Administration is off. Start the service with an admin token to turn it on.",
        ));
    };
    if carries(headers, token) {
        return Ok(());
    }
    Err(Problem::new(
        Code::Unauthorized,
        "This request needs the header Authorization: Bearer with the admin token.",
    ))
}

/// Whether the headers carry the token. The comparison takes a time that depends on the length
/// alone, so that it does not betray how much of a guess is right.
fn carries(headers: &HeaderMap, token: &AdminToken) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes());
    let Some((scheme, given)) = given.and_then(|value| value.split_at_checked(7)) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(given.ct_eq(token.as_bytes()))
}
