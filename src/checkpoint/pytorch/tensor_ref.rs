//! What a checkpoint says about a tensor, checked before anything is read.

use super::dtype::{element_of_class, DType, Element};
use super::pickle::{Node, NodeId, Pickle, PickleProgram};

/// A dense tensor in a checkpoint: its type, its layout and where its elements are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef {
    pub dtype: DType,
    /// Size of every dimension, in elements.
    pub shape: Vec<usize>,
    /// Elements to step in the storage for one step in each dimension.
    pub stride: Vec<usize>,
    /// Position of the first element in the storage, in elements of `dtype`.
    pub offset: u64,
    pub storage: StorageRef,
}

/// The storage that holds a tensor's elements; several tensors may share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StorageRef {
    pub source: PickleProgram,
    /// Name of the storage among those of its source.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Why a node that stands for a tensor gives none.
#[derive(Debug)]
pub(super) enum TensorProblem {
    Unsupported(String),
    Bad { found: String, expected: String },
}

/// More dimensions than PyTorch's own kernels take.
const MAX_RANK: usize = 64;

/// Longest storage key in bytes; PyTorch writes numbers.
const MAX_KEY: usize = 256;

/// How many calls around a tensor are looked through.
const MAX_WRAPPERS: usize = 16;

impl TensorRef {
    /// Number of elements; `None` if it exceeds 63 bits.
    pub fn numel(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let mut sizes = self.shape.iter();
        let numel = sizes.try_fold(1u64, |n, &size| n.checked_mul(u64::try_from(size).ok()?))?;
        (numel <= i64::MAX as u64).then_some(numel)
    }

    /// Bytes of the tensor when contiguous; `None` if they exceed 63 bits.
    pub fn byte_len(&self) -> Option<u64> {
        let bytes = self.numel()?.checked_mul(self.dtype.size() as u64)?;
        (bytes <= i64::MAX as u64).then_some(bytes)
    }

    /// One past the last element used, counted from the start of the storage.
    pub(super) fn end(&self) -> Option<u64> {
        if self.numel()? == 0 {
            return Some(self.offset);
        }
        let mut end = self.offset.checked_add(1)?;
        for (&size, &stride) in self.shape.iter().zip(&self.stride) {
            let steps = u64::try_from(size.checked_sub(1)?).ok()?;
            end = end.checked_add(steps.checked_mul(u64::try_from(stride).ok()?)?)?;
        }
        Some(end)
    }

    /// Checks that the tensor lies inside its storage, and that its size can be counted.
    pub(super) fn check(&self) -> Result<(), TensorProblem> {
        if self.shape.len() != self.stride.len() || self.shape.len() > MAX_RANK {
            return Err(bad(
                format!(
                    "{} sizes and {} strides",
                    self.shape.len(),
                    self.stride.len()
                ),
                format!("as many strides as sizes, at most {MAX_RANK}"),
            ));
        }
        let Some(bytes) = self.byte_len() else {
            return Err(bad(
                format!("the shape {:?}", self.shape),
                "a size in bytes below 2^63".into(),
            ));
        };
        let room = self.storage.bytes / self.dtype.size() as u64;
        match self.end() {
            _ if bytes == 0 => Ok(()),
            Some(end) if end <= room => Ok(()),
            _ => Err(bad(
                format!(
                    "shape {:?}, strides {:?} and offset {}",
                    self.shape, self.stride, self.offset
                ),
                format!(
                    "a tensor inside the {room} elements of {} in storage {:?}",
                    self.dtype.name(),
                    self.storage.key
                ),
            )),
        }
    }
}

fn bad(found: String, expected: String) -> TensorProblem {
    TensorProblem::Bad { found, expected }
}

/// The tensor a node stands for; `None` if it stands for something else.
pub(super) fn tensor(pickle: &Pickle, node: NodeId) -> Result<Option<TensorRef>, TensorProblem> {
    let Some(call) = pickle.call(pickle.unwrapped(node)) else {
        return Ok(None);
    };
    let (mut module, mut name, mut args) = (call.module, call.name, call.args);
    for _ in 0..MAX_WRAPPERS {
        // Subclasses of tensor: (function, class, arguments, ...).
        let inner = match (name, args) {
            ("_rebuild_from_type" | "_rebuild_from_type_v2", [function, _, inner, ..])
                if module.starts_with("torch.") =>
            {
                pickle
                    .class_name(*function)
                    .map(|n| (n, pickle.members(*inner)))
            }
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..])
                if module == "torch._utils" =>
            {
                let call = pickle.call(pickle.unwrapped(*data));
                call.map(|c| ((c.module, c.name), c.args))
            }
            _ => break,
        };
        let Some(inner) = inner else { return Ok(None) };
        ((module, name), args) = inner;
    }
    if module != "torch._utils" {
        return Ok(None);
    }
    let what = match name {
        "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" => {
            return dense(pickle, name, args).map(Some);
        }
        "_rebuild_qtensor" => "a quantized tensor",
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => "a sparse tensor",
        "_rebuild_nested_tensor" => "a nested tensor",
        "_rebuild_meta_tensor_no_storage" => "a tensor saved without its data (device meta)",
        "_rebuild_wrapper_subclass" => "a tensor subclass without data of its own",
        name if name.starts_with("_rebuild_device_tensor") => "a tensor of a foreign device",
        _ => return Ok(None),
    };
    Err(TensorProblem::Unsupported(what.into()))
}

fn dense(pickle: &Pickle, name: &str, args: &[NodeId]) -> Result<TensorRef, TensorProblem> {
    let [storage, offset, shape, stride, more @ ..] = args else {
        return Err(bad(
            format!("{} arguments of {name}", args.len()),
            "storage, offset, size and stride".into(),
        ));
    };
    let (element, storage, view) = storage_of(pickle, *storage)?;
    let element = match (name, more) {
        // (requires_grad, hooks, dtype, ...): the storage is plain bytes.
        ("_rebuild_tensor_v3", [_, _, dtype, ..]) => class_element(pickle, *dtype)?,
        _ => element,
    };
    // (requires_grad, hooks, metadata): pending operations on views of complex tensors.
    if let ("_rebuild_tensor_v2", [_, _, metadata, ..]) = (name, more) {
        for flag in ["conj", "neg"] {
            let value = pickle.get(*metadata, flag);
            if value.and_then(|v| pickle.as_bool(v)) == Some(true) {
                let what = format!("a tensor with a pending {flag} operation");
                return Err(TensorProblem::Unsupported(what));
            }
        }
    }
    let Some(dtype) = element.dtype else {
        let what = format!("a tensor of {}", element.name);
        return Err(TensorProblem::Unsupported(what));
    };
    let (view_offset, view_size) = view;
    let own = natural(pickle, *offset, "a storage offset")?;
    let mut tensor = TensorRef {
        dtype,
        shape: sizes(pickle, *shape, "sizes")?,
        stride: sizes(pickle, *stride, "strides")?,
        offset: own,
        storage: StorageRef {
            bytes: view_size,
            ..storage.clone()
        },
    };
    // First inside the view, then, moved to where the view begins, inside the whole storage.
    tensor.check()?;
    tensor.storage = storage;
    tensor.offset = own.checked_add(view_offset).ok_or_else(|| {
        bad(
            format!("offset {own} in a view at {view_offset}"),
            "an offset below 2^64".into(),
        )
    })?;
    tensor.check()?;
    Ok(tensor)
}

/// A storage's element type, itself, and the part that tensors may use: its first element and its
/// size in bytes.
type Storage = (Element, StorageRef, (u64, u64));

/// Reads ('storage', class, key, location, elements[, (view key, offset, elements) or None]).
pub(super) fn storage_of(pickle: &Pickle, node: NodeId) -> Result<Storage, TensorProblem> {
    let expected = || "a description ('storage', class, key, location, size)".to_string();
    let Some(Node::Persistent { id, source }) = pickle.node(node) else {
        return Err(bad("another value for a storage".into(), expected()));
    };
    if pickle.as_str(*id).is_some() {
        return Err(TensorProblem::Unsupported(
            "a storage described in text (pickle protocol 0, which PyTorch can not load either)"
                .into(),
        ));
    }
    let [kind, class, key, _, numel, more @ ..] = pickle.members(*id) else {
        return Err(bad("another value for a storage".into(), expected()));
    };
    if pickle.as_str(*kind) != Some("storage") {
        return Err(bad("another kind of outside value".into(), expected()));
    }
    let element = class_element(pickle, *class)?;
    let key = pickle.as_str(*key);
    let key = key.ok_or_else(|| bad("a storage key that is no string".into(), expected()))?;
    if key.len() > MAX_KEY {
        let found = format!("a storage key of {} bytes", key.len());
        return Err(bad(found, format!("at most {MAX_KEY}")));
    }
    let numel = natural(pickle, *numel, "a storage size")?;
    let in_bytes = |n: u64| {
        let bytes = n.checked_mul(element.size);
        bytes.ok_or_else(|| bad(format!("a storage of {n} elements"), "fewer".into()))
    };
    let bytes = in_bytes(numel)?;
    let view = match more.first().map(|&view| pickle.members(view)) {
        Some([_, offset, size]) => {
            let offset = natural(pickle, *offset, "a view's offset")?;
            let size = natural(pickle, *size, "a view's size")?;
            if offset.checked_add(size).is_none_or(|end| end > numel) {
                return Err(bad(
                    format!("a view of {size} elements at {offset}"),
                    format!("one inside the {numel} elements of storage {key:?}"),
                ));
            }
            (offset, in_bytes(size)?)
        }
        _ => (0, bytes),
    };
    let storage = StorageRef {
        source: *source,
        key: key.to_string(),
        bytes,
    };
    Ok((element, storage, view))
}

fn class_element(pickle: &Pickle, class: NodeId) -> Result<Element, TensorProblem> {
    let name = pickle.class_name(class);
    name.and_then(|(module, name)| element_of_class(module, name))
        .ok_or_else(|| {
            let (module, name) = name.unwrap_or(("", "a value that is no class"));
            let shown: String = format!("{module} {name}").trim().chars().take(80).collect();
            TensorProblem::Unsupported(format!("element type {shown:?}"))
        })
}

fn natural(pickle: &Pickle, node: NodeId, what: &str) -> Result<u64, TensorProblem> {
    let value = pickle.as_i64(node);
    value.and_then(|v| u64::try_from(v).ok()).ok_or_else(|| {
        let found = value.map_or("no integer".to_string(), |v| v.to_string());
        bad(
            format!("{found} as {what}"),
            "an integer from 0 to 2^63".into(),
        )
    })
}

/// A tuple of sizes or strides, also as `torch.Size`, whose one argument is the tuple.
fn sizes(pickle: &Pickle, node: NodeId, what: &str) -> Result<Vec<usize>, TensorProblem> {
    let node = match pickle.call(node) {
        Some(call) if (call.module, call.name) == ("torch", "Size") => {
            call.args.first().copied().unwrap_or(node)
        }
        _ => node,
    };
    let items = match pickle.node(node) {
        Some(Node::Tuple(items)) => &**items,
        Some(Node::List(items)) => items,
        _ => return Err(bad(format!("another value for {what}"), "a tuple".into())),
    };
    if items.len() > MAX_RANK {
        let found = format!("{} {what}", items.len());
        return Err(bad(found, format!("at most {MAX_RANK}")));
    }
    let read = |&item: &NodeId| {
        let value = natural(pickle, item, what)?;
        usize::try_from(value).map_err(|_| bad(value.to_string(), "a size that fits".into()))
    };
    items.iter().map(read).collect()
}
