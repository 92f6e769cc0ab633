//! A page of metrics on its way to whoever scrapes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// A page, which counts as under way until it has been taken: a reader that is slow holds it as long as it reads.
#[derive(Debug)]
pub(super) struct Page {
    rest: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// How much is handed to the connection at a time; what it has been handed it holds itself.
const PIECE_BYTES: usize = 64 * 1024;

impl Page {
    pub(super) fn new(page: Vec<u8>, permit: OwnedSemaphorePermit) -> Self {
        Page { rest: page.into(), _permit: permit }
    }
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
