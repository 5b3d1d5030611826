//! A client's connection as hyper reads and writes it, with the bounds that hyper does not have:
//! how long a client may leave its responses unread, and how much of a request that nobody reads
//! is discarded so that the client can read its answer.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use super::bare_answer;
use super::limits::Limits;
use crate::counts::RequestCounts;

/// How many bytes of a request that nobody reads are discarded at once.
const DISCARD_BYTES: usize = 16 * 1024;

/// A connection, shared by [`ClientIo`] and the requests that arrive on it.
pub(super) struct Client {
    stream: OwnedWriteHalf,
    /// Where its requests are counted.
    pub(super) counts: Arc<RequestCounts>,
    /// Whether a part of the last request was not read.
    unread: AtomicBool,
    /// Whether bytes were read since the last request began.
    sent_more: AtomicBool,
}

impl Client {
    /// Notes that the head of a request has been read.
    pub(super) fn begin_request(&self) {
        self.set_unread(false);
        self.sent_more.store(false, Ordering::Relaxed);
    }

    /// Counts a request that has not become one: its head did not arrive in time, with `status`, or
    /// not at all.
    pub(super) fn count_unfinished_head(&self, status: Option<StatusCode>) {
        if self.sent_more.load(Ordering::Relaxed) {
            self.counts.count_unread(status);
        }
    }

    /// Notes whether a part of the current request has not been read.
    pub(super) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// Whether a part of the current request has not been read.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whether the client has closed its side: it has sent its last request, or is gone.
    pub(super) fn has_closed_its_side(&self) -> bool {
        let readiness = pin!(self.stream.ready(Interest::READABLE));
        match readiness.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }
}

type Deadline = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The reading and writing half of a connection.
pub(super) struct ClientIo {
    client: Arc<Client>,
    /// Its own reading half: `poll_read` notes that the socket is empty after a read that does not
    /// fill the buffer, where `TcpStream::try_read` has to ask the kernel once more.
    reader: OwnedReadHalf,
    limits: Limits,
    draining: CancellationToken,
    /// Set while responses wait for the client: when the client has to have read them.
    unsent: Option<Deadline>,
    /// The problem that is sent in place of an answer of hyper's own, and how much of it is sent.
    problem: Option<(Vec<u8>, usize)>,
    closing: Closing,
}

/// How far the end of a connection is.
enum Closing {
    No,
    /// The client has its answer; the rest of its request is discarded.
    Discarding {
        deadline: Deadline,
        left: usize,
        buffer: Box<[u8]>,
    },
    Done,
}

impl ClientIo {
    pub(super) fn new(
        stream: TcpStream,
        counts: Arc<RequestCounts>,
        limits: Limits,
        draining: CancellationToken,
    ) -> Self {
        let (reader, stream) = stream.into_split();
        let client = Client {
            stream,
            counts,
            unread: AtomicBool::new(false),
            sent_more: AtomicBool::new(false),
        };
        Self {
            client: Arc::new(client),
            reader,
            limits,
            draining,
            unsent: None,
            problem: None,
            closing: Closing::No,
        }
    }

    /// The connection, for the requests that arrive on it.
    pub(super) fn client(&self) -> Arc<Client> {
        self.client.clone()
    }

    /// Ends after `time`, or soon after the drain has started.
    fn deadline(&self, time: Duration) -> Deadline {
        let (draining, drain_time) = (self.draining.clone(), self.limits.drain_timeout);
        Box::pin(async move {
            let drain = async {
                draining.cancelled().await;
                tokio::time::sleep(drain_time).await;
            };
            tokio::select! {
                () = tokio::time::sleep(time) => (),
                () = drain => (),
            }
        })
    }

    /// Writes to the socket. Fails when the client has left responses unread for too long.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let stream = self.client.stream.as_ref();
            if stream.poll_write_ready(cx)?.is_pending() {
                break;
            }
            match write(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                result => return Poll::Ready(result),
            }
        }
        if self.unsent.is_none() {
            self.unsent = Some(self.deadline(self.limits.write_timeout));
        }
        if let Some(deadline) = &mut self.unsent {
            ready!(deadline.as_mut().poll(cx));
        }
        let why = "the client did not read its responses in time";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }

    /// Sends the problem in place of the first `length` bytes that hyper has to send.
    fn poll_send_problem(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        while let Some((text, mut sent)) = self.problem.take() {
            let result = self.poll_send(cx, |stream| stream.try_write(&text[sent..]));
            if let Poll::Ready(Ok(written)) = result {
                sent += written;
                if sent == text.len() {
                    break;
                }
            }
            self.problem = Some((text, sent));
            ready!(result)?;
        }
        // The client may still be sending what was not understood.
        self.client.set_unread(true);
        Poll::Ready(Ok(length))
    }

    fn poll_write_first(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.problem.is_none() {
            let Some((status, text)) = bare_answer::replacement(first) else {
                return self.poll_send(cx, write);
            };
            self.client.sent_more.store(false, Ordering::Relaxed);
            self.client.counts.count_unread(Some(status));
            self.problem = Some((text, 0));
        }
        self.poll_send_problem(cx, first.len())
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.reader).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.client.sent_more.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_write_first(cx, buf, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        let first = first.map_or(&[][..], |buf| buf);
        self.get_mut()
            .poll_write_first(cx, first, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Called when everything has been written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().unsent = None;
        Poll::Ready(Ok(()))
    }

    /// Ends the responses. If the client may still be sending, reads and discards what it sends,
    /// within bounds: data that nobody reads would reset the connection, and the client would lose
    /// the answer.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        loop {
            match &mut io.closing {
                Closing::No => {
                    rustix::net::shutdown(io.client.stream.as_ref(), rustix::net::Shutdown::Write)?;
                    io.closing = match io.client.is_unread() {
                        false => Closing::Done,
                        true => Closing::Discarding {
                            deadline: io.deadline(io.limits.discard_timeout),
                            left: io.limits.discard_bytes,
                            buffer: vec![0; DISCARD_BYTES].into(),
                        },
                    };
                }
                Closing::Discarding {
                    deadline,
                    left,
                    buffer,
                } => {
                    let is_over = deadline.as_mut().poll(cx).is_ready();
                    let mut buffer = ReadBuf::new(buffer);
                    match Pin::new(&mut io.reader).poll_read(cx, &mut buffer) {
                        _ if is_over => io.closing = Closing::Done,
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) if *left > 0 && !buffer.filled().is_empty() => {
                            *left = left.saturating_sub(buffer.filled().len());
                        }
                        // All is read, the client has reset the connection, or it sends too much.
                        Poll::Ready(_) => io.closing = Closing::Done,
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
