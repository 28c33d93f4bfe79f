//! The values of a pickle program, as an arena of nodes.
//!
//! A program is decoded, never run: a class or function it names is only a [`Node::Class`], and
//! calling one makes a [`Node::Object`] that remembers the call. What the calls mean (a tensor, a
//! parameter, an ordered dictionary) is decided later, from the outside, for the few names that
//! matter. Nodes refer to each other by index, so depth costs no stack, neither when decoding nor
//! when dropping, and a value used twice is stored once.

mod machine;
mod numbers;
mod stack;
mod stream;
mod view;

use std::io::BufRead;

use super::error::PickleError;

/// Index of a node in its [`Pickle`].
///
/// An id is only meaningful with the arena it came from; with another one, look-ups find an
/// unrelated node or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// Which program of a file a storage was named by; each has its own storage records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PickleProgram {
    /// The saved value itself.
    Data,
    /// The constants of a TorchScript archive.
    Constants,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, as little-endian two's complement.
    BigInt(Box<[u8]>),
    Float(f64),
    Str(Box<str>),
    Bytes(Box<[u8]>),
    Tuple(Box<[NodeId]>),
    List(Vec<NodeId>),
    Set(Vec<NodeId>),
    /// Pairs in the order written; of equal keys the last one holds.
    Dict(Vec<(NodeId, NodeId)>),
    /// A class or function, by the string nodes of its module and its name.
    Class {
        module: NodeId,
        name: NodeId,
    },
    /// The result of calling something; see [`Object`].
    Object(Box<Object>),
    /// Something kept outside the pickle, by the value that identifies it (for `torch.save`: a
    /// tuple that describes a storage).
    Persistent {
        id: NodeId,
        source: PickleProgram,
    },
}

/// A call that a program would have made, and what it would have done to the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What is called: a [`Node::Class`], or a computed value for exotic programs.
    pub callable: NodeId,
    /// The arguments, normally a [`Node::Tuple`].
    pub args: NodeId,
    /// The argument of the last BUILD: for most classes a dict of the attributes.
    pub state: Option<NodeId>,
    /// Values appended or added to the result.
    pub items: Vec<NodeId>,
    /// Pairs set on the result.
    pub entries: Vec<(NodeId, NodeId)>,
}

/// Bounds on what decoding may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Instructions of all programs in one file. An instruction makes at most three nodes and one
    /// reference, so this bounds the arena.
    pub instructions: u64,
    /// Bytes of all programs in one file.
    pub bytes: u64,
}

impl Default for Limits {
    /// Two and a half million instructions and 64 MiB: ten times what the largest training states need,
    /// tensors not included, and at most half a gigabyte of memory.
    fn default() -> Self {
        Limits {
            instructions: 2_500_000,
            bytes: 64 << 20,
        }
    }
}

/// An arena of values, filled by one or more pickle programs.
#[derive(Debug, Default)]
pub struct Pickle {
    nodes: Vec<Node>,
    instructions: u64,
    bytes: u64,
}

impl Pickle {
    /// An arena without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes one program up to and including its STOP and returns its value.
    ///
    /// The limits count everything this arena has read so far. `source` marks the storages that
    /// the program names. On an error the nodes decoded so far stay, unreachable.
    ///
    /// # Errors
    ///
    /// Whatever keeps the bytes from being a program of protocols 0 to 5 within the limits.
    pub fn read(
        &mut self,
        reader: &mut dyn BufRead,
        source: PickleProgram,
        limits: Limits,
    ) -> Result<NodeId, PickleError> {
        machine::run(self, reader, source, limits)
    }

    /// The value behind an id; `None` for an id of another arena that is beyond this one.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::try_from(id.0).ok()?)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing has been decoded.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All values with their ids, in the order they were made.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0u32..).map(NodeId).zip(&self.nodes)
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(id.0).ok()?)
    }

    /// Adds a node; `None` when ids have run out.
    fn push(&mut self, node: Node) -> Option<NodeId> {
        let id = NodeId(u32::try_from(self.nodes.len()).ok()?);
        self.nodes.push(node);
        Some(id)
    }
}
