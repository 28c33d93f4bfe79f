//! Reading decoded values: scalars, containers, attributes and calls.

use super::{Node, NodeId, Object, Pickle};

/// A call with the dotted parts of what is called.
pub(in crate::checkpoint) struct Call<'a> {
    pub module: &'a str,
    pub name: &'a str,
    pub args: &'a [NodeId],
}

/// Containers whose own entries count; their attributes (such as the version metadata that
/// PyTorch hangs on a state dict) are no entries.
const MAPPINGS: [(&str, &str); 3] = [
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
];

/// How many wrappers around one value are looked through.
const WRAPPERS: usize = 64;

impl Pickle {
    /// The text of a string node.
    pub fn as_str(&self, id: NodeId) -> Option<&str> {
        match self.node(id)? {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The value of an integer node; none for one beyond 64 bits.
    pub fn as_i64(&self, id: NodeId) -> Option<i64> {
        match self.node(id)? {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of a float or integer node, integers rounded to the nearest float.
    pub fn as_f64(&self, id: NodeId) -> Option<f64> {
        match self.node(id)? {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// The value of a boolean node.
    pub fn as_bool(&self, id: NodeId) -> Option<bool> {
        match self.node(id)? {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The members of a list, tuple or set, or what was appended to an object; empty for others.
    pub fn items(&self, id: NodeId) -> &[NodeId] {
        match self.node(self.unwrapped(id)) {
            Some(Node::Tuple(items)) => items,
            Some(Node::List(items) | Node::Set(items)) => items,
            Some(Node::Object(object)) => &object.items,
            _ => &[],
        }
    }

    /// Pairs of a dict, or of an object: its entries if it has some or is a mapping, otherwise
    /// its attributes. In the order written; of equal keys the last one holds. Empty for others.
    pub fn pairs(&self, id: NodeId) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
        let id = self.unwrapped(id);
        let mut own: &[(NodeId, NodeId)] = &[];
        let mut listed: &[NodeId] = &[];
        let mut states: [Option<NodeId>; 2] = [None, None];
        match self.node(id) {
            Some(Node::Dict(entries)) => own = entries,
            Some(Node::Object(object)) => {
                own = &object.entries;
                if self.is_mapping(object) {
                    // Python 2 passes the pairs of an OrderedDict as a list of lists.
                    listed = self.members(object.args).first().map_or(&[], |&first| {
                        match self.node(first) {
                            Some(Node::List(pairs)) => pairs,
                            _ => &[],
                        }
                    });
                } else if own.is_empty() {
                    states = self.states(object);
                }
            }
            _ => {}
        }
        let listed = listed.iter().filter_map(|&pair| match self.members(pair) {
            &[key, value] => Some((key, value)),
            _ => None,
        });
        let states = states.into_iter().flatten();
        let attributes = states.flat_map(|state| match self.node(state) {
            Some(Node::Dict(entries)) => entries.as_slice(),
            _ => &[],
        });
        listed.chain(own.iter().copied()).chain(attributes.copied())
    }

    /// [`Pickle::pairs`] whose keys are strings.
    pub fn entries(&self, id: NodeId) -> impl Iterator<Item = (&str, NodeId)> {
        self.pairs(id)
            .filter_map(|(key, value)| Some((self.as_str(key)?, value)))
    }

    /// The value under a string key of a dict or object; see [`Pickle::pairs`].
    pub fn get(&self, id: NodeId, key: &str) -> Option<NodeId> {
        let found = self.entries(id).filter(|(name, _)| *name == key);
        found.last().map(|(_, value)| value)
    }

    /// What an object was built with, whatever its class.
    pub fn state(&self, id: NodeId) -> Option<NodeId> {
        match self.node(self.unwrapped(id))? {
            Node::Object(object) => object.state,
            _ => None,
        }
    }

    /// Module and name of a class node, or of the class of an object.
    pub fn class_name(&self, id: NodeId) -> Option<(&str, &str)> {
        match self.node(id)? {
            Node::Object(object) => self.name_of_class(object.callable),
            _ => self.name_of_class(id),
        }
    }

    fn name_of_class(&self, id: NodeId) -> Option<(&str, &str)> {
        let mut class = self.node(id)?;
        if let Node::Persistent { id, .. } = class {
            // The class of a saved module, kept with its source text: ('module', class, ...).
            class = match self.members(*id) {
                [kind, class, ..] if self.as_str(*kind) == Some("module") => self.node(*class)?,
                _ => return None,
            };
        }
        match class {
            Node::Class { module, name } => Some((self.as_str(*module)?, self.as_str(*name)?)),
            _ => None,
        }
    }

    /// The call that made an object, if what is called has a name.
    pub(in crate::checkpoint) fn call(&self, id: NodeId) -> Option<Call<'_>> {
        let Node::Object(object) = self.node(id)? else {
            return None;
        };
        let (module, name) = self.name_of_class(object.callable)?;
        let args = self.members(object.args);
        Some(Call { module, name, args })
    }

    /// Members of a tuple or list node itself.
    pub(in crate::checkpoint) fn members(&self, id: NodeId) -> &[NodeId] {
        match self.node(id) {
            Some(Node::Tuple(items)) => items,
            Some(Node::List(items)) => items,
            _ => &[],
        }
    }

    /// Looks through the calls that only dress up a value: parameters around a tensor, and
    /// TorchScript's typed lists and dicts.
    pub(in crate::checkpoint) fn unwrapped(&self, id: NodeId) -> NodeId {
        let mut id = id;
        // The bound also ends a program that wraps a value in itself.
        for _ in 0..WRAPPERS {
            let Some(call) = self.call(id) else { break };
            let dresses = match call.module {
                "torch._utils" => {
                    matches!(
                        call.name,
                        "_rebuild_parameter" | "_rebuild_parameter_with_state"
                    )
                }
                "torch.jit._pickle" => {
                    call.name.starts_with("build_") || call.name == "restore_type_tag"
                }
                _ => false,
            };
            match call.args.first() {
                Some(&inner) if dresses => id = inner,
                _ => break,
            }
        }
        id
    }

    fn is_mapping(&self, object: &Object) -> bool {
        self.name_of_class(object.callable)
            .is_some_and(|class| MAPPINGS.contains(&class))
    }

    /// The dicts of an object's state: itself, or of a pair (attributes, slots) both.
    fn states(&self, object: &Object) -> [Option<NodeId>; 2] {
        match object.state.map(|state| (state, self.node(state))) {
            Some((_, Some(Node::Tuple(members)))) => match **members {
                [attributes, slots] => [Some(attributes), Some(slots)],
                _ => [None, None],
            },
            Some((state, _)) => [Some(state), None],
            None => [None, None],
        }
    }
}
