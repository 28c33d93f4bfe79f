//! What a panic says, in words: the bindings panic where an operator of libtorch fails.

use std::any::Any;

/// What went wrong, by whose fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Memory ran out; what was asked for.
    Memory(String),
    /// An operator of libtorch failed; its first line.
    Torch(String),
    /// This program is wrong; what it says.
    Program(String),
}

impl Fault {
    /// What the `payload` of a panic is about.
    pub fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no words");
        if let Some(text) = of_bindings(text) {
            return match memory_asked_for(&text) {
                Some(asked) => Fault::Memory(asked),
                None => Fault::Torch(first_line(&text).into()),
            };
        }
        match memory_asked_for(text) {
            Some(asked) => Fault::Memory(asked),
            None => Fault::Program(first_line(text).into()),
        }
    }
}

/// The text of an error of the bindings in the message of an `unwrap`, where it is one.
fn of_bindings(panic: &str) -> Option<String> {
    let quoted = panic.strip_prefix("called `Result::unwrap()` on an `Err` value: ")?;
    let kinds = ["Torch(", "Kind(", "Shape(", "Convert("];
    let inner = kinds.iter().find_map(|kind| quoted.strip_prefix(kind))?;
    let inner = inner.trim_end_matches(')').trim_matches('"');
    Some(
        inner
            .replace("\\n", "\n")
            .replace("\\\"", "\"")
            .replace("\\'", "'"),
    )
}

/// What was asked for, if `text` of libtorch or C++ is about memory that ran out.
fn memory_asked_for(text: &str) -> Option<String> {
    if let Some((_, asked)) = text.split_once("you tried to allocate ") {
        let bytes: f64 = asked.split(' ').next()?.parse().ok()?;
        return Some(format!(
            "{:.1} MiB more were asked for",
            bytes / 1_048_576.0
        ));
    }
    if let Some((_, asked)) = text.split_once("out of memory. Tried to allocate ") {
        let asked = asked.split(". ").next()?;
        return Some(format!("{asked} more were asked for on the GPU"));
    }
    // What oneDNN says, without a reason, where there is no room for a kernel's code.
    if text.contains("could not create a primitive") {
        return Some("oneDNN had no room for a kernel".into());
    }
    let others = [
        "std::bad_alloc",
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
    ];
    let other = others.iter().any(|other| text.contains(other));
    other.then(|| "libtorch could not get more".into())
}

/// The first line of `text`.
pub fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_end()
}
