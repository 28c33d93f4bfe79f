//! The stack machine that turns a pickle program into nodes: what each instruction asks for.

use std::collections::HashMap;
use std::io::BufRead;

use super::numbers::{float_from_text, long_from_bytes, long_from_text, raw_unicode};
use super::stream::Stream;
use super::{numbers, Limits, Node, NodeId, Pickle, PickleProgram};
use crate::checkpoint::pytorch::error::PickleError;

pub(super) fn run(
    pickle: &mut Pickle,
    reader: &mut dyn BufRead,
    source: PickleProgram,
    limits: Limits,
) -> Result<NodeId, PickleError> {
    let stream = Stream::new(reader, pickle.bytes, limits.bytes);
    let mut machine = Machine {
        pickle,
        stream,
        source,
        limit: limits.instructions,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        code: 0,
    };
    let result = machine.run();
    machine.pickle.bytes += machine.stream.at();
    result
}

pub(super) struct Machine<'a> {
    pub(super) pickle: &'a mut Pickle,
    pub(super) stream: Stream<'a>,
    source: PickleProgram,
    pub(super) limit: u64,
    pub(super) stack: Vec<NodeId>,
    /// Stack heights at which a MARK was set.
    pub(super) marks: Vec<usize>,
    pub(super) memo: HashMap<u64, NodeId>,
    /// The instruction at work, for error messages.
    pub(super) code: u8,
}

pub(super) type Step = Result<(), PickleError>;

impl Machine<'_> {
    fn run(&mut self) -> Result<NodeId, PickleError> {
        loop {
            if self.pickle.instructions >= self.limit {
                return Err(self.too_long());
            }
            self.pickle.instructions += 1;
            self.code = self.stream.byte("a list of instructions")?;
            if self.code == b'.' {
                return self.pop();
            }
            self.step()?;
        }
    }

    fn step(&mut self) -> Step {
        match self.code {
            // Framing and protocol.
            0x80 => match self.stream.byte("PROTO")? {
                0..=5 => Ok(()),
                version => Err(self.malformed(format!("protocol {version}"), "protocols 0 to 5")),
            },
            // A frame only tells how much could be read ahead.
            0x95 => self.stream.take::<8>("FRAME").map(drop),

            // Stack and memo.
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_mark().map(drop),
            b'2' => self.top().map(|id| self.stack.push(id)),
            b'g' => self.text_index().and_then(|i| self.recall(i)),
            b'h' => self.length::<1>("BINGET").and_then(|i| self.recall(i)),
            b'j' => self.length::<4>("LONG_BINGET").and_then(|i| self.recall(i)),
            b'p' => self.text_index().and_then(|i| self.remember(i)),
            b'q' => self.length::<1>("BINPUT").and_then(|i| self.remember(i)),
            b'r' => self
                .length::<4>("LONG_BINPUT")
                .and_then(|i| self.remember(i)),
            0x94 => self.remember(self.memo.len() as u64),

            // Scalars.
            b'N' => self.add(Node::None),
            0x88 => self.add(Node::Bool(true)),
            0x89 => self.add(Node::Bool(false)),
            b'I' => match self.stream.line("INT")?.as_slice() {
                b"01" => self.add(Node::Bool(true)),
                b"00" => self.add(Node::Bool(false)),
                text => self.add_parsed(text, long_from_text(text), "a decimal integer"),
            },
            b'L' => {
                let text = self.stream.line("LONG")?;
                self.add_parsed(&text, long_from_text(&text), "a decimal integer")
            }
            b'J' => {
                let value = i32::from_le_bytes(self.stream.take("BININT")?);
                self.add(Node::Int(value.into()))
            }
            b'K' => {
                let value = self.stream.byte("BININT1")?;
                self.add(Node::Int(value.into()))
            }
            b'M' => {
                let value = u16::from_le_bytes(self.stream.take("BININT2")?);
                self.add(Node::Int(value.into()))
            }
            0x8a => {
                let bytes = self.counted::<1>("LONG1")?;
                self.add(long_from_bytes(&bytes))
            }
            0x8b => {
                let bytes = self.counted::<4>("LONG4")?;
                self.add(long_from_bytes(&bytes))
            }
            b'F' => {
                let text = self.stream.line("FLOAT")?;
                self.add_parsed(&text, float_from_text(&text).map(Node::Float), "a number")
            }
            b'G' => {
                let value = f64::from_be_bytes(self.stream.take("BINFLOAT")?);
                self.add(Node::Float(value))
            }

            // Strings and bytes.
            b'S' => {
                let text = self.stream.line("STRING")?;
                let node = numbers::string_literal(&text).map(python2_string);
                self.add_parsed(&text, node, "a quoted string")
            }
            b'T' => {
                let bytes = self.counted::<4>("BINSTRING")?;
                self.add(python2_string(bytes))
            }
            b'U' => {
                let bytes = self.counted::<1>("SHORT_BINSTRING")?;
                self.add(python2_string(bytes))
            }
            b'V' => {
                let text = self.stream.line("UNICODE")?;
                let node = raw_unicode(&text).map(|s| Node::Str(s.into()));
                self.add_parsed(&text, node, "a string with whole escapes")
            }
            0x8c => self.add_text::<1>("SHORT_BINUNICODE"),
            b'X' => self.add_text::<4>("BINUNICODE"),
            0x8d => self.add_text::<8>("BINUNICODE8"),
            b'C' => self.add_bytes::<1>("SHORT_BINBYTES"),
            b'B' => self.add_bytes::<4>("BINBYTES"),
            0x8e => self.add_bytes::<8>("BINBYTES8"),
            0x96 => self.add_bytes::<8>("BYTEARRAY8"),

            // Containers.
            b')' => self.add(Node::Tuple(Box::default())),
            0x85 => self.tuple_of(1),
            0x86 => self.tuple_of(2),
            0x87 => self.tuple_of(3),
            b't' => {
                let items = self.pop_mark()?;
                self.add(Node::Tuple(items.into()))
            }
            b']' => self.add(Node::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.add(Node::List(items))
            }
            0x8f => self.add(Node::Set(Vec::new())),
            0x91 => {
                let items = self.pop_mark()?;
                self.add(Node::Set(items))
            }
            b'}' => self.add(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                let pairs = self.pairs(&items)?;
                self.add(Node::Dict(pairs))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![(key, value)])
            }
            b'u' => {
                let items = self.pop_mark()?;
                let pairs = self.pairs(&items)?;
                self.set(pairs)
            }

            // Names, calls and objects.
            b'c' => {
                let class = self.class_from_lines("GLOBAL")?;
                self.stack.push(class);
                Ok(())
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                self.add(Node::Class { module, name })
            }
            0x82 => self.extension::<1>(),
            0x83 => self.extension::<2>(),
            0x84 => self.extension::<4>(),
            b'R' | 0x81 => {
                let args = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, args)
            }
            0x92 => {
                // Keyword arguments carry nothing that is read from a checkpoint.
                self.pop()?;
                let args = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, args)
            }
            b'i' => {
                let callable = self.class_from_lines("INST")?;
                let items = self.pop_mark()?;
                let args = self.make(Node::Tuple(items.into()))?;
                self.call(callable, args)
            }
            b'o' => {
                let mut items = self.pop_mark()?.into_iter();
                let Some(callable) = items.next() else {
                    return Err(self.malformed("nothing".into(), "a class"));
                };
                let args = self.make(Node::Tuple(items.collect()))?;
                self.call(callable, args)
            }
            b'b' => self.build(),
            b'P' => {
                let text = self.stream.line("PERSID")?;
                let id = self.make(Node::Str(String::from_utf8_lossy(&text).into()))?;
                self.add(Node::Persistent {
                    id,
                    source: self.source,
                })
            }
            b'Q' => {
                let id = self.pop()?;
                self.add(Node::Persistent {
                    id,
                    source: self.source,
                })
            }
            0x97 | 0x98 => {
                Err(self.malformed("an out-of-band buffer".into(), "all data in the file"))
            }
            code => Err(PickleError::UnknownInstruction {
                code,
                at: self.at_code(),
            }),
        }
    }
}

/// Python 2 had one type for text and bytes; what is UTF-8 is taken for text.
fn python2_string(bytes: Vec<u8>) -> Node {
    match String::from_utf8(bytes) {
        Ok(text) => Node::Str(text.into()),
        Err(e) => Node::Bytes(e.into_bytes().into()),
    }
}
