//! Element types of tensors and storages, by the names PyTorch gives them.

/// Element type of a tensor that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::I16 | DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// PyTorch's name, such as `float32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "uint8",
            DType::I8 => "int8",
            DType::I16 => "int16",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            DType::F32 => "float32",
            DType::F64 => "float64",
        }
    }
}

/// What a storage is made of, also where no tensor of it can be read: the older format lays
/// storages one after the other, so the size of every kind has to be known to skip it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub name: &'static str,
    /// Bytes per element, or per unit for the packed kinds.
    pub size: u64,
    pub dtype: Option<DType>,
    /// Raw bytes, given their type by each tensor.
    pub untyped: bool,
}

const fn plain(dtype: DType, name: &'static str, size: u64) -> Element {
    Element {
        name,
        size,
        dtype: Some(dtype),
        untyped: false,
    }
}

const fn foreign(name: &'static str, size: u64) -> Element {
    Element {
        name,
        size,
        dtype: None,
        untyped: false,
    }
}

const UNTYPED: Element = Element {
    name: "untyped bytes",
    size: 1,
    dtype: Some(DType::U8),
    untyped: true,
};

/// Finds the element type behind a class of module `torch` (or one of its submodules): a storage
/// class such as `FloatStorage` or a dtype such as `float32`.
pub(super) fn element_of_class(module: &str, name: &str) -> Option<Element> {
    if module != "torch" && !module.starts_with("torch.") {
        return None;
    }
    Some(match name {
        "DoubleStorage" | "float64" | "double" => plain(DType::F64, "float64", 8),
        "FloatStorage" | "float32" | "float" => plain(DType::F32, "float32", 4),
        "HalfStorage" | "float16" | "half" => plain(DType::F16, "float16", 2),
        "BFloat16Storage" | "bfloat16" => plain(DType::BF16, "bfloat16", 2),
        "LongStorage" | "int64" | "long" => plain(DType::I64, "int64", 8),
        "IntStorage" | "int32" | "int" => plain(DType::I32, "int32", 4),
        "ShortStorage" | "int16" | "short" => plain(DType::I16, "int16", 2),
        "CharStorage" | "int8" => plain(DType::I8, "int8", 1),
        "ByteStorage" | "uint8" => plain(DType::U8, "uint8", 1),
        "BoolStorage" | "bool" => plain(DType::Bool, "bool", 1),
        "UntypedStorage" | "_UntypedStorage" => UNTYPED,
        "ComplexDoubleStorage" | "complex128" | "cdouble" => foreign("complex128", 16),
        "ComplexFloatStorage" | "complex64" | "cfloat" => foreign("complex64", 8),
        "ComplexHalfStorage" | "complex32" | "chalf" => foreign("complex32", 4),
        "QInt8Storage" | "qint8" => foreign("qint8", 1),
        "QUInt8Storage" | "quint8" => foreign("quint8", 1),
        "QInt32Storage" | "qint32" => foreign("qint32", 4),
        "QUInt4x2Storage" | "quint4x2" => foreign("quint4x2", 1),
        "QUInt2x4Storage" | "quint2x4" => foreign("quint2x4", 1),
        "uint16" => foreign("uint16", 2),
        "uint32" => foreign("uint32", 4),
        "uint64" => foreign("uint64", 8),
        "float8_e4m3fn" => foreign("float8_e4m3fn", 1),
        "float8_e4m3fnuz" => foreign("float8_e4m3fnuz", 1),
        "float8_e5m2" => foreign("float8_e5m2", 1),
        "float8_e5m2fnuz" => foreign("float8_e5m2fnuz", 1),
        "float8_e8m0fnu" => foreign("float8_e8m0fnu", 1),
        "float4_e2m1fn_x2" => foreign("float4_e2m1fn_x2", 1),
        _ => return None,
    })
}
