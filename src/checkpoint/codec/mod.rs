//! Image codecs alone: their files, and a decoder that was trained further.

pub mod decoder;
pub mod file;
