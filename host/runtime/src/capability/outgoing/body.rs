//! Bodies on their way: counted, and never silent for long.

use std::{
    any::Any,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep_until};
use wasmtime_wasi_http::{Error, WasiBody};

use super::{Timeouts, Usage, client::read_error};

/// What the guest sends.
pub(super) struct Sent {
    body: WasiBody,
    usage: Arc<Usage>,
}

/// What the guest receives.
pub(super) struct Received {
    body: Incoming,
    usage: Arc<Usage>,
    timeouts: Timeouts,
    silence: Pin<Box<Sleep>>,
    /// What has to live as long as this.
    _held: Box<dyn Any + Send>,
}

impl Sent {
    pub(super) fn new(body: WasiBody, usage: Arc<Usage>) -> Self {
        Self { body, usage }
    }
}

impl Received {
    pub(super) fn new(
        body: Incoming,
        timeouts: Timeouts,
        usage: Arc<Usage>,
        held: impl Any + Send,
    ) -> Self {
        Self {
            body,
            usage,
            timeouts,
            silence: Box::pin(sleep_until(timeouts.next_byte().into())),
            _held: Box::new(held),
        }
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
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && !self.usage.take(size(frame))
        {
            return Poll::Ready(Some(Err(Error::HttpRequestBodySize(None))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(read_error(&error, 0)))),
            Poll::Ready(None) => Poll::Ready(None),
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
