//! Where a JPEG ends, and what it says of itself before a decoder is asked.

use super::error::PictureProblem;

/// The bytes of the first picture in `bytes`, from its start marker to its end marker.
/// Behind it phones put a video (motion photos) or further pictures (MPF), which are not
/// looked at.
///
/// # Errors
///
/// Data without an end marker, of which a decoder would fill the rest with grey; other
/// than 8 bits a channel; other than 1, 3 or 4 colour components.
pub fn first_picture(bytes: &[u8]) -> Result<&[u8], PictureProblem> {
    let byte = |at: usize| bytes.get(at).copied().ok_or(PictureProblem::Truncated);
    let mut at = 2; // behind the start marker
    loop {
        while byte(at)? != 0xFF {
            at += 1;
        }
        while byte(at)? == 0xFF {
            at += 1;
        }
        let marker = byte(at)?;
        at += 1;
        match marker {
            // The end.
            0xD9 => return Ok(&bytes[..at]),
            // Stuffing and restarts have no length, and damage no meaning.
            0x00..=0xBF | 0xD0..=0xD8 => continue,
            0xC4 | 0xC8 | 0xCC => {}
            // A frame: length (2), bits, height (2), width (2), components.
            0xC0..=0xCF => match (byte(at + 2)?, byte(at + 7)?) {
                (8, 1 | 3 | 4) => {}
                (8, components) => return Err(PictureProblem::Components(components)),
                (bits, _) => return Err(PictureProblem::Bits(bits)),
            },
            _ => {}
        }
        // The data of a scan, which follow its header, hold markers only as stuffing and
        // restarts, so the search above goes through them.
        at += usize::from(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
    }
}
