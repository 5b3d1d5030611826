//! What is checked of every request, whatever its route.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, Request, Response, Version, header};
use axum::response::IntoResponse;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::bare_answer;
use super::client_io::Client;
use crate::counts::OpenRequest;
use crate::problem::{Code, Problem};

/// The most bytes of a request's path and query.
const MAX_TARGET_BYTES: usize = 8 * 1024;
/// How often it is checked whether the client of a query that takes long is still there.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// Answers a request by the routes.
pub(super) async fn answer(
    routes: Router,
    client: Arc<Client>,
    mut request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let open = OpenRequest::begin(client.counts.clone(), &mut request);
    client.begin_request();
    let is_query = matches!(*request.method(), Method::GET | Method::HEAD);
    let request = request.map(|body| RequestBody::wrap(body, &client));
    let mut response = match check(&request) {
        Ok(()) => {
            let response = TowerToHyperService::new(routes).call(request);
            let response = match is_query {
                true => while_wanted(response, &client).await?,
                false => response.await,
            };
            response.unwrap_or_else(|never| match never {})
        }
        Err(problem) => {
            drop(request);
            problem.into_response()
        }
    };
    if client.is_unread() {
        // The next request could only be found by reading the rest of this one.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    open.end(response.status());
    Ok(response)
}

/// Gives a query up when its client has closed its side for a second: most likely it is gone, and
/// long polls of clients that are gone must not crowd out others. A command is always finished and
/// answered.
async fn while_wanted<T>(response: impl Future<Output = T>, client: &Client) -> io::Result<T> {
    let mut response = pin!(response);
    let mut was_closed = false;
    loop {
        if let Ok(response) = tokio::time::timeout(GONE_AFTER, &mut response).await {
            return Ok(response);
        }
        let is_closed = client.has_closed_its_side();
        if is_closed && was_closed {
            return Err(io::Error::other("the client of a query is gone"));
        }
        was_closed = is_closed;
    }
}

/// Checks what HTTP requires of every request, and its length.
fn check<B>(request: &Request<B>) -> Result<(), Problem> {
    if request
        .uri()
        .path_and_query()
        .map_or(0, |it| it.as_str().len())
        > MAX_TARGET_BYTES
    {
        return Err(bare_answer::uri_too_long());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        return match request.version() {
            Version::HTTP_11 => Err(Problem::new(
                Code::MissingHeader,
                "The header Host is missing; HTTP/1.1 requires it.",
            )
            .at("Host", "the service's name, and its port if it is not 80")),
            _ => Ok(()),
        };
    };
    if hosts.next().is_some() {
        return Err(Problem::invalid("Host", "given once"));
    }
    let host = host.as_bytes();
    let is_valid = host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok());
    match is_valid {
        true => Ok(()),
        false => Err(Problem::invalid(
            "Host",
            "a name or address, with or without a port",
        )),
    }
}

/// The body of a request. It notes at its end whether all of it was read.
struct RequestBody {
    body: Incoming,
    client: Arc<Client>,
    is_read: bool,
}

impl RequestBody {
    fn wrap(body: Incoming, client: &Arc<Client>) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        Body::new(Self {
            body,
            client: client.clone(),
            is_read: false,
        })
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.is_read = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.is_read && !self.body.is_end_stream() {
            self.client.set_unread(true);
        }
    }
}
