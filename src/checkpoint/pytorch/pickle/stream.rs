//! The bytes of a pickle program, counted and bounded.

use std::io::{self, BufRead, Read};

use crate::checkpoint::pytorch::error::PickleError;

/// Reads a program's bytes; no length found in them is trusted with an allocation.
pub(super) struct Stream<'a> {
    reader: &'a mut dyn BufRead,
    at: u64,
    /// Bytes that may still be read, and the limit to name when they are gone.
    left: u64,
    limit: u64,
}

impl<'a> Stream<'a> {
    pub fn new(reader: &'a mut dyn BufRead, used: u64, limit: u64) -> Self {
        Stream {
            reader,
            at: 0,
            left: limit.saturating_sub(used),
            limit,
        }
    }

    /// Bytes read so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn take<const N: usize>(&mut self, inside: &'static str) -> Result<[u8; N], PickleError> {
        self.spend(N as u64)?;
        let mut bytes = [0; N];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|e| self.failed(e, inside))?;
        self.at += N as u64;
        Ok(bytes)
    }

    pub fn byte(&mut self, inside: &'static str) -> Result<u8, PickleError> {
        let [byte] = self.take::<1>(inside)?;
        Ok(byte)
    }

    /// Reads `length` bytes, growing the buffer only as bytes arrive.
    pub fn bytes(&mut self, length: u64, inside: &'static str) -> Result<Vec<u8>, PickleError> {
        self.spend(length)?;
        let mut bytes = Vec::new();
        let read = (&mut self.reader)
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|e| self.failed(e, inside))?;
        self.at += read as u64;
        if (read as u64) < length {
            return Err(PickleError::Truncated {
                at: self.at,
                inside,
            });
        }
        Ok(bytes)
    }

    /// Reads up to a line feed, which is dropped, as is a carriage return before it.
    pub fn line(&mut self, inside: &'static str) -> Result<Vec<u8>, PickleError> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader)
            .take(self.left)
            .read_until(b'\n', &mut bytes)
            .map_err(|e| self.failed(e, inside))?;
        self.spend(read as u64)?;
        self.at += read as u64;
        if bytes.pop() != Some(b'\n') {
            self.spend(1)?;
            return Err(PickleError::Truncated {
                at: self.at,
                inside,
            });
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Ok(bytes)
    }

    fn spend(&mut self, count: u64) -> Result<(), PickleError> {
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(PickleError::TooLarge {
                limit: self.limit,
                unit: "bytes",
                at: self.at,
            }),
        }
    }

    fn failed(&self, source: io::Error, inside: &'static str) -> PickleError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            PickleError::Truncated {
                at: self.at,
                inside,
            }
        } else {
            PickleError::Io {
                at: self.at,
                source,
            }
        }
    }
}
