//! Bytes that are read from front to back. A length is compared with what is there before anything
//! is taken, and nothing is allocated, so a length that lies costs nothing.

use std::borrow::Cow;

use crate::{CodecError, Encoding};

/// What is left of a body to read, and where that begins.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    encoding: Encoding,
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(encoding: Encoding, bytes: &'a [u8]) -> Self {
        Self {
            encoding,
            rest: bytes,
            offset: 0,
        }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.malformed("it ends too early"));
        };
        self.rest = rest;
        self.offset += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.malformed("it ends too early"));
        };
        self.rest = rest;
        self.offset += N;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, CodecError> {
        self.array().map(|[byte]| byte)
    }

    /// A text of a known length.
    pub(super) fn text(&mut self, length: usize) -> Result<&'a str, CodecError> {
        let start = self.clone();
        std::str::from_utf8(self.take(length)?).map_err(|_| start.malformed("a text is not UTF-8"))
    }

    /// The next bytes as a cursor of their own, which remembers where they are.
    pub(super) fn part(&mut self, length: usize) -> Result<Self, CodecError> {
        let offset = self.offset;
        Ok(Self {
            encoding: self.encoding,
            rest: self.take(length)?,
            offset,
        })
    }

    /// What has been read since the cursor was at `start`.
    pub(super) fn since(&self, start: &Self) -> &'a [u8] {
        start
            .rest
            .get(..self.offset.saturating_sub(start.offset))
            .unwrap_or_default()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The end of what has to be there.
    pub(super) fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.malformed("bytes follow the value"))
    }

    /// A fault at the place that is to be read next.
    pub(super) fn malformed(&self, fault: &str) -> CodecError {
        CodecError::Malformed {
            encoding: self.encoding,
            fault: Cow::Owned(format!("{fault}, at byte {}", self.offset)),
        }
    }
}
