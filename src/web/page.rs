//! Pages of metrics and answers of the API on their way to whoever reads, a bounded number at once.
//!
//! Invariant: a reader that takes nothing keeps its place only as long as nobody else wants it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::metrics::exposition::PIECE_BYTES;

/// The places of pages that are under way.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Vec<Arc<Mutex<State>>>>,
}

/// The place of one page, until it has been read.
#[derive(Debug)]
pub(super) struct Place {
    state: Arc<Mutex<State>>,
    of: Arc<Places>,
}

/// What becomes of a page.
#[derive(Debug)]
enum State {
    /// It is being made.
    Made,
    /// It is being read: what is left of it, and when something was taken last.
    Read(VecDeque<Bytes>, Instant),
    /// Its place is another one's.
    Lost,
}

/// How long a reader may take nothing before another one may have its place.
const PATIENCE: Duration = Duration::from_secs(2);

impl Places {
    /// Places for `most` pages.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Places { most, taken: Mutex::default() })
    }

    /// A place for a page, if there is one; and whether it was taken from a reader that had taken nothing for long.
    pub(super) fn take(self: &Arc<Self>) -> Option<(Place, bool)> {
        let mut taken = lock(&self.taken);
        let is_full = taken.len() >= self.most;
        if is_full {
            let longest =
                (0..taken.len()).filter_map(|place| Some((lock(&taken[place]).stalled()?, place))).min();
            let (_, place) = longest?;
            *lock(&taken.swap_remove(place)) = State::Lost;
        }
        let state = Arc::new(Mutex::new(State::Made));
        taken.push(Arc::clone(&state));
        Some((Place { state, of: Arc::clone(self) }, is_full))
    }
}

impl State {
    /// Since when nothing was taken, if that is long ago.
    fn stalled(&self) -> Option<Instant> {
        match self {
            State::Read(_, since) if since.elapsed() >= PATIENCE => Some(*since),
            State::Made | State::Read(..) | State::Lost => None,
        }
    }
}

impl Place {
    /// Fills it with a page to be read.
    pub(super) fn fill(self, pieces: Vec<Bytes>) -> Page {
        *lock(&self.state) = State::Read(pieces.into(), Instant::now());
        Page { place: self, counter: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.of.taken).retain(|state| !Arc::ptr_eq(state, &self.state));
    }
}

/// A page that is being read.
#[derive(Debug)]
pub(super) struct Page {
    place: Place,
    /// Counts it once all of it has been read.
    counter: Option<watch::Sender<u32>>,
}

impl Page {
    /// Has it counted once all of it has been read.
    pub(super) fn counted_by(self, counter: watch::Sender<u32>) -> Self {
        Page { counter: Some(counter), ..self }
    }
}

/// Its place was taken by another reader.
#[derive(Debug, Error)]
#[error("nothing of the page was taken for too long while others waited")]
pub(super) struct Lost;

impl Body for Page {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let Page { place, counter } = self.get_mut();
        let mut state = lock(&place.state);
        let State::Read(rest, since) = &mut *state else {
            return Poll::Ready(Some(Err(Lost)));
        };
        // What the connection has been handed it holds itself: not more than this at a time.
        let piece = take(rest, PIECE_BYTES);
        if let Some(counter) = counter.take_if(|_| rest.is_empty()) {
            counter.send_modify(|read| *read += 1);
        }
        let Some(piece) = piece else {
            return Poll::Ready(None);
        };
        *since = Instant::now();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&*lock(&self.place.state), State::Read(rest, _) if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &*lock(&self.place.state) {
            State::Read(rest, _) => SizeHint::with_exact(rest.iter().map(|piece| piece.len() as u64).sum()),
            State::Made | State::Lost => SizeHint::default(),
        }
    }
}

/// Takes the next piece, of so many bytes at most.
fn take(rest: &mut VecDeque<Bytes>, most: usize) -> Option<Bytes> {
    match rest.front_mut()? {
        // Copied: whoever has a part of it would hold all of it.
        next if next.len() > most => Some(Bytes::copy_from_slice(&next.split_to(most))),
        _ => rest.pop_front(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const PAGE: usize = 3 * PIECE_BYTES;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_loses_its_place_to_another_one() {
        let places = Places::new(2);
        let take = || {
            places.take().map(|(place, from_another)| (place.fill(vec![vec![0; PAGE].into()]), from_another))
        };
        let (mut stalled, _) = take().unwrap();
        let (mut steady, _) = take().unwrap();
        tokio::time::advance(PATIENCE / 2).await;
        assert!(steady.frame().await.unwrap().is_ok());
        assert!(take().is_none(), "both are being read");
        tokio::time::advance(PATIENCE / 2).await;
        let (third, from_another) = take().unwrap();
        assert!(from_another);
        assert!(take().is_none(), "the steady one goes on");
        assert!(stalled.frame().await.unwrap().is_err());
        assert_eq!(steady.collect().await.unwrap().to_bytes().len(), PAGE - PIECE_BYTES);
        drop(stalled);
        assert!(take().is_some_and(|(_, from_another)| !from_another), "the steady one has been read");
        drop(third);
        assert_eq!(lock(&places.taken).len(), 0);
    }

    #[tokio::test]
    async fn a_page_is_handed_out_in_pieces_whichever_it_was_made_of() {
        let sizes = [10, PIECE_BYTES + 5, PIECE_BYTES];
        let pieces = sizes.iter().enumerate().map(|(place, size)| vec![place as u8; *size].into()).collect();
        let (place, _) = Places::new(1).take().unwrap();
        let mut page = place.fill(pieces);
        let mut handed_out: Vec<(u8, usize)> = Vec::new();
        while let Some(frame) = page.frame().await {
            let left: usize =
                sizes.iter().sum::<usize>() - handed_out.iter().map(|(_, size)| size).sum::<usize>();
            let piece = frame.unwrap().into_data().unwrap();
            assert_eq!(page.size_hint().exact(), Some((left - piece.len()) as u64));
            handed_out.push((piece[0], piece.len()));
        }
        assert!(page.is_end_stream());
        assert_eq!(handed_out, [(0, 10), (1, PIECE_BYTES), (1, 5), (2, PIECE_BYTES)]);
    }

    #[tokio::test]
    async fn a_page_is_counted_when_all_of_it_has_been_read() {
        let places = Places::new(2);
        let counter = watch::Sender::new(0);
        let page = || {
            let (place, _) = places.take().unwrap();
            place.fill(vec![vec![0; PAGE].into()]).counted_by(counter.clone())
        };
        let mut left = page();
        assert!(left.frame().await.unwrap().is_ok());
        drop(left);
        assert_eq!(*counter.borrow(), 0);
        let mut read = page();
        while !read.is_end_stream() {
            assert_eq!(*counter.borrow(), 0);
            assert!(read.frame().await.unwrap().is_ok());
        }
        assert_eq!(*counter.borrow(), 1);
        assert!(read.frame().await.is_none());
        assert_eq!(*counter.borrow(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_is_being_made_keeps_its_place() {
        let places = Places::new(1);
        let (place, _) = places.take().unwrap();
        tokio::time::advance(10 * PATIENCE).await;
        assert!(places.take().is_none());
        drop(place);
        assert!(places.take().is_some());
    }
}
