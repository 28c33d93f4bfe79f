//! Telling by its first bytes what a file is.

/// Enough bytes to recognise every kind below.
pub(super) const HEAD: usize = 512;

/// The integer that opens the older format, 0x1950a86a20f9469cfc6c, in little-endian bytes.
pub(super) const LEGACY_MAGIC: [u8; 10] =
    [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The same as protocols 0 and 1 begin their files with it.
const LEGACY_MAGIC_TEXT: &[u8] = b"L119547037146038801333356L\n";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signature {
    Zip,
    /// A pickle program, as the older format begins with.
    Pickle,
    /// So short that only a part of a signature is there.
    CutOff,
    /// Something else, in words, with the remedy where one is known.
    Foreign(String),
}

/// Judges a file by its beginning; `head` holds [`HEAD`] bytes, fewer if the file is shorter.
pub(super) fn signature(head: &[u8]) -> Signature {
    let foreign = |text: &str| Signature::Foreign(text.to_string());
    if head.is_empty() {
        return foreign("the file is empty (0 bytes)");
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Signature::Zip;
    }
    if matches!(head, [0x80, 0..=5, ..]) || head.starts_with(LEGACY_MAGIC_TEXT) {
        return Signature::Pickle;
    }
    if b"PK\x03\x04".starts_with(head) || head == [0x80] || LEGACY_MAGIC_TEXT.starts_with(head) {
        return Signature::CutOff;
    }
    if let Some(text) = text_kind(head) {
        return foreign(text);
    }
    let known: [(&[u8], &str); 12] = [
        (b"\x1f\x8b", "gzip-compressed data; decompress it first"),
        (
            b"\x28\xb5\x2f\xfd",
            "zstd-compressed data; decompress it first",
        ),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive; extract it first"),
        (b"Rar!", "a RAR archive; extract it first"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x93NUMPY", "a NumPy array file"),
        (b"\x89PNG", "a picture (PNG)"),
        (b"\xff\xd8\xff", "a picture (JPEG)"),
        (b"GIF8", "a picture (GIF)"),
        (b"RIFF", "a picture (WebP) or a sound or film file (RIFF)"),
        (b"%PDF", "a PDF document"),
        (b"\x7fELF", "a program or library (ELF)"),
    ];
    if let Some((_, text)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return foreign(text);
    }
    if head.get(257..262) == Some(b"ustar") {
        return foreign(
            "a tar archive; extract it first, or, if PyTorch before 0.1.10 wrote it, save it again with a newer one",
        );
    }
    if head.get(8) == Some(&b'{') && head.get(4..8) == Some(&[0; 4]) {
        return foreign("a safetensors file");
    }
    if let Some(line) = first_line(head) {
        return Signature::Foreign(format!("a text that begins with {line:?}"));
    }
    let shown: Vec<String> = head.iter().take(8).map(|b| format!("{b:02x}")).collect();
    Signature::Foreign(format!(
        "its first bytes are {}, which begin neither a zip archive (50 4b 03 04) nor a pickle (80 02); the file may be damaged",
        shown.join(" ")
    ))
}

/// What the file that begins with `head` is, where that is not what it should be.
pub(in crate::checkpoint) fn kind(head: &[u8]) -> String {
    match signature(head) {
        Signature::Zip => "a zip archive, as PyTorch's files are".into(),
        Signature::Pickle => "a pickle, as PyTorch's older files are".into(),
        Signature::CutOff => format!("{} bytes", head.len()),
        Signature::Foreign(found) => found,
    }
}

/// The beginning of the first line of a text.
fn first_line(head: &[u8]) -> Option<String> {
    // A character may be cut at the end.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_text = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    text.chars()
        .all(is_text)
        .then(|| line.chars().take(40).collect())
}

/// The texts that arrive in place of a checkpoint when a download goes wrong.
fn text_kind(head: &[u8]) -> Option<&'static str> {
    let text = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    let begins = |with: &[u8]| {
        let start = text.get(..with.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    if begins(b"version https://git-lfs.github.com/spec/") {
        return Some("a git-LFS pointer, which only names the file; fetch the file itself with `git lfs pull`");
    }
    let html: [&[u8]; 5] = [b"<!doctype html", b"<html", b"<head", b"<body", b"<!--"];
    if html.iter().any(|tag| begins(tag)) {
        return Some("a web page (HTML), as a download leaves that failed or asked for a confirmation; download the file itself again");
    }
    if begins(b"<?xml") {
        return Some("an XML text, as a failed download leaves; download the file itself again");
    }
    let json = begins(b"{") || begins(b"[");
    if json && std::str::from_utf8(text.get(..text.len().min(64))?).is_ok() {
        return Some("a JSON text, as a failed download leaves; download the file itself again");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_told_by_their_first_bytes() {
        assert_eq!(signature(b"PK\x03\x04...."), Signature::Zip);
        assert_eq!(signature(b"\x80\x02\x8a\x0a"), Signature::Pickle);
        assert_eq!(
            signature(b"L119547037146038801333356L\n."),
            Signature::Pickle
        );
        assert_eq!(signature(b"PK"), Signature::CutOff);
        assert_eq!(signature(b"L1195"), Signature::CutOff);
    }

    #[test]
    fn other_files_are_named() {
        let mut tar = [b'x'; 300];
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], &str); 11] = [
            (b"", "empty"),
            (b"\n  <!DOCTYPE HTML><html>", "web page"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid",
                "git-LFS",
            ),
            (b"{\"error\": \"not found\"}", "JSON"),
            (b"\x40\0\0\0\0\0\0\0{\"a\"", "safetensors"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"<?xml version=\"1.0\"?><Error>", "XML"),
            (&tar, "tar archive"),
            (b"\x89PNG\r\n\x1a\n", "picture (PNG)"),
            ("model:\n  ä".as_bytes(), "begins with \"model:\""),
            (b"\xde\xad\xbe\xef", "de ad be ef"),
        ];
        for (head, word) in cases {
            let Signature::Foreign(text) = signature(head) else {
                panic!("{word}: taken for a checkpoint");
            };
            assert!(text.contains(word), "{text}");
        }
    }
}
