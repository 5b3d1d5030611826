//! Who may administer: whoever knows the admin token.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use crate::problem::{Code, Problem};

/// The secret of the administration; never shown.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// The shortest token, in bytes.
    pub const MIN_BYTES: usize = 8;
    /// The longest token, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// The token, or none when it is not 8 to 256 visible ASCII characters.
    pub fn new(text: &str) -> Option<Self> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = (Self::MIN_BYTES..=Self::MAX_BYTES).contains(&text.len());
        (visible && fits).then(|| Self(text.into()))
    }

    /// Whether a request carries the token, compared in a time that depends on its length
    /// alone.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes());
        let Some((scheme, token)) = given.and_then(|value| value.split_at_checked(7)) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.ct_eq(self.0.as_bytes()))
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(hidden)")
    }
}

/// Lets only administrators through; without a token nobody is one. For
/// `axum::middleware::from_fn_with_state`.
pub async fn require_admin(
    State(token): State<Option<AdminToken>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(token) = token else {
        return Err(Problem::new(
            Code::AdminDisabled,
            "Administration is off. Start the service with an admin token to turn it on.",
        ));
    };
    if !token.is_in(request.headers()) {
        return Err(Problem::new(
            Code::Unauthorized,
            "This needs the header Authorization: Bearer with the admin token.",
        ));
    }
    Ok(next.run(request).await)
}
