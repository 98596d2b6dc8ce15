//! Bodies on their way: counted, and never silent for long.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep_until};
use wasmtime_wasi_http::{Error, WasiBody};

use super::{Timeouts, Usage, client::read_error, connections::Lease};

/// What the guest sends. A copy sends the same body, from where it is.
#[derive(Clone)]
pub(super) struct Sent(Arc<Sending>);

struct Sending {
    body: Mutex<WasiBody>,
    usage: Arc<Usage>,
    has_begun: AtomicBool,
}

/// What the guest receives.
pub(super) struct Received {
    body: Incoming,
    usage: Arc<Usage>,
    timeouts: Timeouts,
    silence: Pin<Box<Sleep>>,
    /// The connection that it comes on, until it has come.
    lease: Option<Lease>,
}

impl Sent {
    pub(super) fn new(body: WasiBody, usage: Arc<Usage>) -> Self {
        Self(Arc::new(Sending {
            body: Mutex::new(body),
            usage,
            has_begun: AtomicBool::new(false),
        }))
    }

    /// Whether something of it has been sent, so that it cannot be sent once more.
    pub(super) fn has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::Relaxed)
    }

    fn body(&self) -> MutexGuard<'_, WasiBody> {
        self.0.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Received {
    pub(super) fn new(body: Incoming, timeouts: Timeouts, usage: Arc<Usage>, lease: Lease) -> Self {
        Self {
            body,
            usage,
            timeouts,
            silence: Box::pin(sleep_until(timeouts.next_byte().into())),
            lease: Some(lease),
        }
    }

    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl Drop for Received {
    /// A guest need not look at a body that is empty.
    fn drop(&mut self) {
        self.give_back_at_end();
    }
}

impl Timeouts {
    /// When the next byte has to be there.
    fn next_byte(&self) -> Instant {
        self.until.min(Instant::now() + self.between_bytes)
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut *self.body()).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.0.has_begun.store(true, Ordering::Relaxed);
            if !self.0.usage.take(size(frame)) {
                return Poll::Ready(Some(Err(Error::HttpRequestBodySize(None))));
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if !self.usage.take(size(&frame)) {
                    return Poll::Ready(Some(Err(Error::HttpResponseBodySize(None))));
                }
                let next = self.timeouts.next_byte();
                self.silence.as_mut().reset(next.into());
                self.give_back_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(read_error(&error, 0)))),
            Poll::Ready(None) => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Pending => match self.silence.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(Error::ConnectionReadTimeout))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn size(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}
