//! A page as it is written: in pieces, so that what is written need not be moved as it grows, and is let go piece by
//! piece as it is read.

use bytes::Bytes;

/// How large a piece of text is, unless something in it cannot be divided.
pub const PIECE_BYTES: usize = 64 * 1024;

/// The pieces of a page.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    done: Vec<Bytes>,
    text: String,
}

impl Pieces {
    /// Where to write on, with room for so many bytes. It grows where more are written.
    pub(super) fn text(&mut self, bytes: usize) -> &mut String {
        if self.text.capacity() - self.text.len() < bytes {
            let next = String::with_capacity(bytes.max(PIECE_BYTES));
            let full = std::mem::replace(&mut self.text, next);
            self.add(full.into_bytes());
        }
        &mut self.text
    }

    fn add(&mut self, piece: Vec<u8>) {
        if !piece.is_empty() {
            self.done.push(piece.into());
        }
    }

    /// All of them.
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        let last = std::mem::take(&mut self.text);
        self.add(last.into_bytes());
        self.done
    }
}
