//! SHA-256 in hexadecimal.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{open, FileError};

/// The SHA-256 of `bytes`, 64 lower-case digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of the file at `path`.
pub fn sha256_of_file(path: &Path) -> Result<String, FileError> {
    let mut hash = Sha256::new();
    io::copy(&mut open(path)?, &mut hash).map_err(FileError::reading(path))?;
    Ok(hex(&hash.finalize()))
}

/// Two lower-case digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
