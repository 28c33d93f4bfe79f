//! TensorBoard event files: TFRecords (length, masked CRC-32C, data, masked CRC-32C) of
//! `Event` protocol buffers, written field by field.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::growing::GrowingFile;

/// A file that is written event by event; it is made with the first one.
pub struct EventFile {
    file: GrowingFile,
    /// Records that are not in the file yet.
    records: Vec<u8>,
}

impl EventFile {
    /// A new file in `folder`, named by the time.
    pub fn new(folder: &Path) -> Self {
        let nanoseconds = now().as_nanos();
        let name = format!(
            "events.out.tfevents.{}.{}",
            now().as_secs(),
            nanoseconds % 1_000_000_000
        );
        let mut events = EventFile {
            file: GrowingFile::new(folder.join(name)),
            records: Vec::new(),
        };
        let mut event = Message::default();
        event.double(1, now().as_secs_f64());
        event.bytes(3, b"brain.Event:2"); // file_version
        events.record(&event.0);
        events
    }

    /// One number.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f64) {
        let mut content = Message::default();
        content.float(2, value as f32); // simple_value
        self.value(step, tag, content);
    }

    /// One picture as PNG bytes.
    pub fn picture(&mut self, step: u64, tag: &str, size: [u64; 2], png: &[u8]) {
        let mut image = Message::default();
        image.varint(1, size[0]); // height
        image.varint(2, size[1]); // width
        image.varint(3, 3); // colour channels
        image.bytes(4, png);
        let mut content = Message::default();
        content.bytes(4, &image.0);
        self.value(step, tag, content);
    }

    /// Writes the events so far.
    pub fn flush(&mut self) {
        self.file.append(&self.records);
        self.records.clear();
    }

    /// Ends the file, if there was any event.
    pub fn finish(&mut self) {
        self.file.finish();
    }

    fn value(&mut self, step: u64, tag: &str, content: Message) {
        let mut value = Message::default();
        value.bytes(1, tag.as_bytes());
        value.0.extend(content.0);
        let mut summary = Message::default();
        summary.bytes(1, &value.0);
        let mut event = Message::default();
        event.double(1, now().as_secs_f64()); // wall_time
        event.varint(2, step);
        event.bytes(5, &summary.0);
        self.record(&event.0);
    }

    fn record(&mut self, data: &[u8]) {
        let length = (data.len() as u64).to_le_bytes();
        self.records.extend(length);
        self.records.extend(masked_crc(&length).to_le_bytes());
        self.records.extend(data);
        self.records.extend(masked_crc(data).to_le_bytes());
    }
}

fn now() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A protocol buffer in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire: u64) {
        self.raw_varint(field << 3 | wire);
    }

    fn raw_varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn varint(&mut self, field: u64, n: u64) {
        self.key(field, 0);
        self.raw_varint(n);
    }

    fn double(&mut self, field: u64, x: f64) {
        self.key(field, 1);
        self.0.extend(x.to_le_bytes());
    }

    fn float(&mut self, field: u64, x: f32) {
        self.key(field, 5);
        self.0.extend(x.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

/// CRC-32C (Castagnoli), rotated and shifted as TFRecords have it.
fn masked_crc(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in data {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::masked_crc;

    /// RFC 3720, B.4: CRC-32C of 32 zero bytes is 0x8A9136AA.
    #[test]
    fn checksum_is_castagnolis() {
        let crc = 0x8A91_36AAu32;
        let masked = crc.rotate_right(15).wrapping_add(0xA282_EAD8);
        assert_eq!(masked_crc(&[0; 32]), masked);
    }
}
