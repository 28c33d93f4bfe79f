//! Copying a tensor's elements out of its storage into contiguous order.
//!
//! The storage is read once, forwards, through a small window, and every piece is put where it
//! belongs in the result. So a transposed matrix takes no second copy of itself, a slice of a big
//! storage takes nothing for the rest, and a compressed record is decompressed only once.

use std::io::{self, Read, Seek, SeekFrom};

use super::tensor_ref::TensorRef;

/// A record's bytes, readable from given positions.
pub(super) trait RecordBytes {
    /// A reader placed at byte `at` of the record. Records that can only be read in sequence fail
    /// when `at` lies before what has been read.
    fn read_from(&mut self, at: u64) -> io::Result<&mut dyn Read>;
}

/// A record that lies plainly in a file, `base` bytes from the reader's start.
pub(super) struct Plain<R> {
    pub reader: R,
    pub base: u64,
}

impl<R: Read + Seek> RecordBytes for Plain<R> {
    fn read_from(&mut self, at: u64) -> io::Result<&mut dyn Read> {
        let at = self.base.checked_add(at);
        let at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.reader.seek(SeekFrom::Start(at))?;
        Ok(&mut self.reader)
    }
}

/// A record that has to be read in sequence, as a compressed one does.
pub(super) struct Sequential<R> {
    pub reader: R,
    /// Bytes read so far.
    pub at: u64,
}

impl<R: Read> Read for Sequential<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(to)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Read> RecordBytes for Sequential<R> {
    fn read_from(&mut self, at: u64) -> io::Result<&mut dyn Read> {
        let skip = at.checked_sub(self.at);
        let skip = skip.ok_or_else(|| io::Error::from(io::ErrorKind::NotSeekable))?;
        if io::copy(&mut self.by_ref().take(skip), &mut io::sink())? < skip {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self)
    }
}

/// Bytes of storage held at once while gathering.
const WINDOW: u64 = 1 << 16;

/// A dimension that is walked: how often, and the steps in storage and result, in elements.
#[derive(Clone, Copy, Debug)]
struct Walk {
    size: u64,
    from: u64,
    to: u64,
}

/// How to walk a tensor: blocks of `run` consecutive elements, for every combination of the
/// `moving` dimensions (in decreasing storage steps), copied to every one of the `repeated`.
#[derive(Debug)]
struct Plan {
    run: u64,
    moving: Vec<Walk>,
    repeated: Vec<Walk>,
}

impl Plan {
    fn new(tensor: &TensorRef) -> Plan {
        let mut run = 1u64;
        let mut to = 1u64;
        let mut walks: Vec<Walk> = Vec::new();
        for (&size, &stride) in tensor.shape.iter().zip(&tensor.stride).rev() {
            let (size, from) = (size as u64, stride as u64);
            if size == 1 {
                continue;
            }
            if walks.is_empty() && from == run {
                run *= size;
            } else {
                walks.push(Walk { size, from, to });
            }
            to *= size;
        }
        let (repeated, mut moving): (Vec<_>, Vec<_>) = walks.into_iter().partition(|w| w.from == 0);
        moving.sort_by_key(|w| std::cmp::Reverse(w.from));
        Plan {
            run,
            moving,
            repeated,
        }
    }

    /// Whether walking goes only forwards through the storage: no block overlaps another.
    fn is_forward(&self) -> bool {
        let mut span = self.run;
        self.moving.iter().rev().all(|walk| {
            let forward = walk.from >= span;
            // Inside a storage, so this can not overflow.
            span += (walk.size - 1) * walk.from;
            forward
        })
    }
}

/// Steps through all index combinations, the last dimension fastest; false when done.
fn advance(index: &mut [u64], walks: &[Walk], from: &mut u64, to: &mut u64) -> bool {
    for (i, walk) in index.iter_mut().zip(walks).rev() {
        *i += 1;
        *from += walk.from;
        *to += walk.to;
        if *i < walk.size {
            return true;
        }
        *from -= walk.from * walk.size;
        *to -= walk.to * walk.size;
        *i = 0;
    }
    false
}

/// Reads a tensor that has passed its checks (so no product or sum below can overflow) from its
/// storage's record. The result holds the elements in row-major order, in the bytes of the record.
pub(super) fn gather(tensor: &TensorRef, record: &mut dyn RecordBytes) -> io::Result<Vec<u8>> {
    let length = tensor.byte_len().and_then(|n| usize::try_from(n).ok());
    let mut out = Vec::new();
    // No place is touched before its bytes have been read, so a lying size costs no memory.
    match length {
        Some(0) => return Ok(out),
        Some(length) => out.try_reserve_exact(length).map_err(io::Error::other)?,
        None => return Err(io::ErrorKind::OutOfMemory.into()),
    }
    let size = tensor.dtype.size() as u64;
    let plan = Plan::new(tensor);
    let first = tensor.offset * size;
    if plan.moving.is_empty() && plan.repeated.is_empty() {
        read_exactly(record.read_from(first)?, plan.run * size, &mut out)?;
        return Ok(out);
    }
    let end = tensor.end().unwrap_or(tensor.offset) * size;
    out.resize(length.unwrap_or(0), 0);
    if plan.is_forward() {
        scatter(&plan, size, first, end, record, &mut out)?;
    } else {
        // Overlapping blocks, as sliding windows have them, share elements, so that the range
        // they come from is normally no larger than the tensor; it is walked in memory.
        let mut range = Vec::new();
        read_exactly(record.read_from(first)?, end - first, &mut range)?;
        let mut range = Plain {
            reader: io::Cursor::new(range),
            base: 0,
        };
        scatter(&plan, size, 0, end - first, &mut range, &mut out)?;
    }
    Ok(out)
}

fn read_exactly(from: &mut dyn Read, count: u64, to: &mut Vec<u8>) -> io::Result<()> {
    if (from.take(count).read_to_end(to)? as u64) < count {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Copies all blocks; `first` and `end` bound the bytes used of the record.
fn scatter(
    plan: &Plan,
    size: u64,
    first: u64,
    end: u64,
    record: &mut dyn RecordBytes,
    out: &mut [u8],
) -> io::Result<()> {
    let mut window: Vec<u8> = Vec::new();
    let mut window_at = first;
    let mut moving = vec![0; plan.moving.len()];
    let (mut from, mut to) = (0, 0);
    loop {
        let mut done = 0;
        while done < plan.run {
            let piece = (plan.run - done).min(WINDOW / size);
            let at = first + (from + done) * size;
            let held = window_at + window.len() as u64;
            if at < window_at || at + piece * size > held {
                window.clear();
                window_at = at;
                let fill = WINDOW.min(end - at);
                read_exactly(record.read_from(at)?, fill, &mut window)?;
            }
            let bytes = slice(&window, at - window_at, piece * size)?;
            let mut repeated = vec![0; plan.repeated.len()];
            let (mut ignored, mut place) = (0, to + done);
            loop {
                let target = slice_mut(out, place * size, piece * size)?;
                target.copy_from_slice(bytes);
                if !advance(&mut repeated, &plan.repeated, &mut ignored, &mut place) {
                    break;
                }
            }
            done += piece;
        }
        if !advance(&mut moving, &plan.moving, &mut from, &mut to) {
            return Ok(());
        }
    }
}

fn slice(bytes: &[u8], at: u64, length: u64) -> io::Result<&[u8]> {
    let range = at as usize..(at + length) as usize;
    let slice = bytes.get(range);
    slice.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn slice_mut(bytes: &mut [u8], at: u64, length: u64) -> io::Result<&mut [u8]> {
    let range = at as usize..(at + length) as usize;
    let slice = bytes.get_mut(range);
    slice.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::pytorch::dtype::DType;
    use crate::checkpoint::pytorch::pickle::PickleProgram;
    use crate::checkpoint::pytorch::tensor_ref::StorageRef;

    /// Elements in row-major order, by the definition of strides.
    fn naive(tensor: &TensorRef, storage: &[u8]) -> Vec<u8> {
        let mut places = vec![tensor.offset as usize];
        for (&size, &stride) in tensor.shape.iter().zip(&tensor.stride) {
            places = places
                .iter()
                .flat_map(|at| (0..size).map(move |i| at + i * stride))
                .collect();
        }
        let size = tensor.dtype.size();
        places
            .iter()
            .flat_map(|at| &storage[at * size..(at + 1) * size])
            .copied()
            .collect()
    }

    fn check(dtype: DType, shape: &[usize], stride: &[usize], offset: u64) {
        let mut tensor = TensorRef {
            dtype,
            shape: shape.into(),
            stride: stride.into(),
            offset,
            storage: StorageRef {
                source: PickleProgram::Data,
                key: String::new(),
                bytes: 0,
            },
        };
        let bytes = tensor.end().unwrap() * dtype.size() as u64;
        tensor.storage.bytes = bytes;
        tensor.check().unwrap();
        let storage: Vec<u8> = (0..bytes).map(|i| ((i * 2654435761) >> 13) as u8).collect();
        let wanted = naive(&tensor, &storage);
        let mut plain = Plain {
            reader: io::Cursor::new([b"before".as_slice(), &storage].concat()),
            base: 6,
        };
        assert!(gather(&tensor, &mut plain).unwrap() == wanted, "{tensor:?}");
        let mut sequential = Sequential {
            reader: storage.as_slice(),
            at: 0,
        };
        assert!(
            gather(&tensor, &mut sequential).unwrap() == wanted,
            "{tensor:?}"
        );
        if !wanted.is_empty() {
            let mut short = Sequential {
                reader: storage.split_last().unwrap().1,
                at: 0,
            };
            let error = gather(&tensor, &mut short).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn every_layout_is_gathered_also_beyond_the_window() {
        check(DType::F32, &[], &[], 3);
        check(DType::F32, &[0, 4], &[4, 1], 3);
        check(DType::F32, &[500, 300], &[300, 1], 5);
        check(DType::F32, &[300, 500], &[1, 300], 5);
        check(DType::F64, &[200, 40], &[1000, 1], 1);
        check(DType::BF16, &[7, 1, 50, 60], &[3000, 9, 1, 50], 0);
        check(DType::U8, &[3, 100_000], &[0, 1], 2);
        check(DType::U8, &[3, 100_000, 2], &[0, 1, 0], 2);
        check(DType::I16, &[5, 4, 3], &[0, 0, 0], 9);
        check(DType::F16, &[1000, 100], &[1, 1], 0);
        check(DType::F16, &[4, 1000, 100], &[2000, 100, 1], 0);
        check(DType::I64, &[4, 20_000], &[1, 7], 0);
        check(DType::Bool, &[2, 1, 2], &[1, 77, 5], 0);
    }
}
