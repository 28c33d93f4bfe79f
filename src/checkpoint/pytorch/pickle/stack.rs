//! What the instructions do to the machine's stack, memo and nodes.

use super::machine::{Machine, Step};
use super::{Node, NodeId, Object};
use crate::checkpoint::pytorch::error::PickleError;

impl Machine<'_> {
    /// Position of the instruction at work, roughly: its own byte when nothing follows it.
    pub(super) fn at_code(&self) -> u64 {
        self.stream.at().saturating_sub(1)
    }

    pub(super) fn malformed(&self, found: String, expected: &'static str) -> PickleError {
        PickleError::Malformed {
            code: self.code,
            at: self.at_code(),
            found,
            expected,
        }
    }

    pub(super) fn too_long(&self) -> PickleError {
        PickleError::TooLarge {
            limit: self.limit,
            unit: "instructions",
            at: self.stream.at(),
        }
    }

    pub(super) fn make(&mut self, node: Node) -> Result<NodeId, PickleError> {
        match self.pickle.push(node) {
            Some(id) => Ok(id),
            None => Err(self.too_long()),
        }
    }

    pub(super) fn add(&mut self, node: Node) -> Step {
        let id = self.make(node)?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn add_parsed(
        &mut self,
        text: &[u8],
        node: Option<Node>,
        expected: &'static str,
    ) -> Step {
        match node {
            Some(node) => self.add(node),
            None => {
                let shown: String = String::from_utf8_lossy(text).chars().take(40).collect();
                Err(self.malformed(format!("{shown:?}"), expected))
            }
        }
    }

    pub(super) fn add_text<const N: usize>(&mut self, inside: &'static str) -> Step {
        let bytes = self.counted::<N>(inside)?;
        // Python writes lone surrogates, which a Rust string can not hold.
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        self.add(Node::Str(text.into()))
    }

    pub(super) fn add_bytes<const N: usize>(&mut self, inside: &'static str) -> Step {
        let bytes = self.counted::<N>(inside)?;
        self.add(Node::Bytes(bytes.into()))
    }

    /// An unsigned little-endian number of `N` bytes.
    pub(super) fn length<const N: usize>(
        &mut self,
        inside: &'static str,
    ) -> Result<u64, PickleError> {
        let bytes = self.stream.take::<N>(inside)?;
        Ok(bytes.iter().rev().fold(0, |n, &b| (n << 8) | u64::from(b)))
    }

    pub(super) fn counted<const N: usize>(
        &mut self,
        inside: &'static str,
    ) -> Result<Vec<u8>, PickleError> {
        let length = self.length::<N>(inside)?;
        self.stream.bytes(length, inside)
    }

    pub(super) fn text_index(&mut self) -> Result<u64, PickleError> {
        let line = self.stream.line("a memo index")?;
        let index = std::str::from_utf8(&line).ok().and_then(|t| t.parse().ok());
        index.ok_or_else(|| self.malformed("other text".into(), "a decimal memo index"))
    }

    pub(super) fn recall(&mut self, index: u64) -> Step {
        match self.memo.get(&index) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
            None => Err(self.malformed(format!("memo index {index}"), "one stored before")),
        }
    }

    pub(super) fn remember(&mut self, index: u64) -> Step {
        let id = self.top()?;
        self.memo.insert(index, id);
        Ok(())
    }

    /// Stack height below which the values belong to before the last MARK.
    pub(super) fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Result<NodeId, PickleError> {
        let own = self.stack.get(self.floor()..).unwrap_or_default();
        own.last()
            .copied()
            .ok_or_else(|| self.malformed("an empty stack".into(), "a value"))
    }

    pub(super) fn pop(&mut self) -> Result<NodeId, PickleError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    pub(super) fn pop_mark(&mut self) -> Result<Vec<NodeId>, PickleError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark.min(self.stack.len()))),
            None => Err(self.malformed("no MARK".into(), "a MARK before it")),
        }
    }

    pub(super) fn tuple_of(&mut self, count: usize) -> Step {
        let height = self.stack.len();
        match height.checked_sub(count) {
            Some(start) if start >= self.floor() => {
                let items = self.stack.split_off(start);
                self.add(Node::Tuple(items.into()))
            }
            _ => Err(self.malformed("too few values".into(), "the members of a tuple")),
        }
    }

    pub(super) fn pairs(&self, items: &[NodeId]) -> Result<Vec<(NodeId, NodeId)>, PickleError> {
        let pairs = items.chunks(2).map(|pair| match pair {
            &[key, value] => Ok((key, value)),
            _ => Err(self.malformed("a key without value".into(), "keys and values")),
        });
        pairs.collect()
    }

    pub(super) fn extend(&mut self, more: Vec<NodeId>) -> Step {
        let target = self.top()?;
        match self.pickle.node_mut(target) {
            Some(Node::List(items) | Node::Set(items)) => items.extend(more),
            Some(Node::Object(object)) => object.items.extend(more),
            _ => return Err(self.malformed("another value".into(), "a list, set or object")),
        }
        Ok(())
    }

    pub(super) fn set(&mut self, more: Vec<(NodeId, NodeId)>) -> Step {
        let target = self.top()?;
        match self.pickle.node_mut(target) {
            Some(Node::Dict(entries)) => entries.extend(more),
            Some(Node::Object(object)) => object.entries.extend(more),
            _ => return Err(self.malformed("another value".into(), "a dict or object")),
        }
        Ok(())
    }

    pub(super) fn call(&mut self, callable: NodeId, args: NodeId) -> Step {
        self.add(Node::Object(Box::new(Object {
            callable,
            args,
            state: None,
            items: Vec::new(),
            entries: Vec::new(),
        })))
    }

    pub(super) fn build(&mut self) -> Step {
        let state = self.pop()?;
        let target = self.top()?;
        match self.pickle.node_mut(target) {
            Some(Node::Object(object)) => object.state = Some(state),
            _ => return Err(self.malformed("another value".into(), "an object")),
        }
        Ok(())
    }

    pub(super) fn class_from_lines(&mut self, inside: &'static str) -> Result<NodeId, PickleError> {
        let module = self.stream.line(inside)?;
        let name = self.stream.line(inside)?;
        let module = self.make(Node::Str(String::from_utf8_lossy(&module).into()))?;
        let name = self.make(Node::Str(String::from_utf8_lossy(&name).into()))?;
        self.make(Node::Class { module, name })
    }

    /// A class by its number in a registry that only the writing program had.
    pub(super) fn extension<const N: usize>(&mut self) -> Step {
        let number = self.length::<N>("EXT")?;
        let module = self.make(Node::Str("copyreg".into()))?;
        let name = self.make(Node::Str(format!("extension {number}").into()))?;
        self.add(Node::Class { module, name })
    }
}
