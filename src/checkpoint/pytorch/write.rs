//! Writing what `torch.load` reads: the zip format with a pickle of dicts, integers and
//! tensors.
//!
//! The pickle uses protocol 2 and the three calls that `weights_only=True` allows for
//! tensors, as `torch.save` does.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::dtype::DType;

/// A value to save.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    Int(i64),
    Dict(Vec<(String, Saved)>),
    Tensor(SavedTensor),
}

/// A contiguous tensor that takes a whole storage. Tensors with the same `storage`
/// share their elements.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedTensor {
    pub storage: usize,
    pub dtype: DType,
    pub shape: Vec<i64>,
}

/// PyTorch maps storages into memory from such boundaries.
const ALIGNMENT: u16 = 64;

/// The folder inside the archive; any name will do.
const FOLDER: &str = "archive";

/// A file being written: the values first, then the storages one by one.
pub struct TorchWriter {
    zip: ZipWriter<BufWriter<File>>,
}

impl TorchWriter {
    /// Begins `file` with the value `root`.
    pub fn new(file: File, root: &Saved) -> io::Result<Self> {
        let mut writer = TorchWriter {
            zip: ZipWriter::new(BufWriter::new(file)),
        };
        let mut pickle = vec![0x80, 2];
        push(&mut pickle, root);
        pickle.push(b'.');
        writer.record("data.pkl", &pickle)?;
        writer.record("byteorder", b"little")?;
        Ok(writer)
    }

    /// Adds the elements of storage `index`, little-endian.
    pub fn storage(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        self.record(&format!("data/{index}"), bytes)
    }

    /// Completes the file.
    pub fn finish(mut self) -> io::Result<()> {
        self.record("version", b"3\n")?;
        self.zip.finish()?.flush()
    }

    fn record(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(bytes.len() as u64 >= u64::from(u32::MAX))
            .with_alignment(ALIGNMENT);
        self.zip.start_file(format!("{FOLDER}/{name}"), options)?;
        self.zip.write_all(bytes)
    }
}

/// Appends the opcodes that make `value`.
fn push(out: &mut Vec<u8>, value: &Saved) {
    match value {
        Saved::Int(value) => push_int(out, *value),
        Saved::Dict(entries) => {
            out.extend(b"}("); // EMPTY_DICT, MARK
            for (key, value) in entries {
                push_text(out, key);
                push(out, value);
            }
            out.push(b'u'); // SETITEMS
        }
        Saved::Tensor(tensor) => push_tensor(out, tensor),
    }
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`.
fn push_tensor(out: &mut Vec<u8>, tensor: &SavedTensor) {
    let mut strides = vec![1; tensor.shape.len()];
    for i in (1..tensor.shape.len()).rev() {
        strides[i - 1] = strides[i] * tensor.shape[i].max(1);
    }
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n"); // GLOBAL
    out.push(b'('); // MARK
    out.push(b'('); // MARK: the storage's description
    push_text(out, "storage");
    out.extend(format!("ctorch\n{}\n", storage_class(tensor.dtype)).bytes());
    push_text(out, &tensor.storage.to_string());
    push_text(out, "cpu");
    push_int(out, tensor.shape.iter().product());
    out.extend(b"tQ"); // TUPLE, BINPERSID
    push_int(out, 0);
    for numbers in [&tensor.shape, &strides] {
        out.push(b'(');
        for &number in numbers {
            push_int(out, number);
        }
        out.push(b't');
    }
    out.push(0x89); // NEWFALSE
    out.extend(b"ccollections\nOrderedDict\n)R"); // GLOBAL, EMPTY_TUPLE, REDUCE
    out.extend(b"tR"); // TUPLE, REDUCE
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X'); // BINUNICODE
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn push_int(out: &mut Vec<u8>, value: i64) {
    match (u8::try_from(value), i32::try_from(value)) {
        (Ok(byte), _) => out.extend([b'K', byte]), // BININT1
        (_, Ok(int)) => {
            out.push(b'J'); // BININT
            out.extend(int.to_le_bytes());
        }
        _ => {
            out.extend([0x8a, 8]); // LONG1
            out.extend(value.to_le_bytes());
        }
    }
}

fn storage_class(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BoolStorage",
        DType::U8 => "ByteStorage",
        DType::I8 => "CharStorage",
        DType::I16 => "ShortStorage",
        DType::I32 => "IntStorage",
        DType::I64 => "LongStorage",
        DType::F16 => "HalfStorage",
        DType::BF16 => "BFloat16Storage",
        DType::F32 => "FloatStorage",
        DType::F64 => "DoubleStorage",
    }
}
