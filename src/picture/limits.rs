//! What is read of a picture file, at most.

/// Bytes of the largest picture file that is read.
pub const MOST_BYTES: u64 = 1 << 30;
/// Pixels of the largest picture that is read (Pillow warns of a decompression bomb
/// there).
pub const MOST_PIXELS: u64 = 89_478_485;
/// Sides ratio of the narrowest picture that is read: scaled to cover a square, it
/// would grow without bound.
pub const NARROWEST: u32 = 100;
/// Bytes that a PNG's colour profile and texts may take.
pub const MOST_METADATA: u64 = 64 << 20;
/// Bytes of all texts of a file together, unpacked: a few kilobytes of compressed text can
/// unpack to gigabytes.
pub const MOST_TEXT: usize = 16 << 20;
