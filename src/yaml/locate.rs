//! The line of a key in a YAML text.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The line, counted from 1, of the entry that the keys lead to: names of mappings and places
/// of lists. The parser says where it is in errors alone, so one is raised there.
pub fn line_of(text: &str, keys: &[String]) -> Option<usize> {
    let arrived = Cell::new(false);
    let way = Way {
        keys,
        arrived: &arrived,
    };
    let error = way
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .err()?;
    let location = error.location().filter(|_| arrived.get())?;
    Some(location.line())
}

/// What is left of the way to an entry.
#[derive(Clone, Copy)]
struct Way<'a> {
    keys: &'a [String],
    arrived: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Way<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.keys.is_empty() {
            self.arrived.set(true);
            return deserializer.deserialize_any(Refusal);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Way<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "the entry {}", self.keys.join("."))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.keys.split_first() else {
            return Ok(());
        };
        let name = Name {
            wanted: first,
            last: rest.is_empty(),
            arrived: self.arrived,
        };
        while let Some(matches) = map.next_key_seed(name)? {
            match matches {
                true => map.next_value_seed(Way { keys: rest, ..self })?,
                false => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.keys.split_first() else {
            return Ok(());
        };
        let place: usize = first.parse().map_err(A::Error::custom)?;
        for _ in 0..place {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        list.next_element_seed(Way { keys: rest, ..self })?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// A key of a mapping: whether it is the wanted one. The `last` one ends the search.
#[derive(Clone, Copy)]
struct Name<'a> {
    wanted: &'a str,
    last: bool,
    arrived: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, found: &str) -> Result<bool, E> {
        let matches = found == self.wanted;
        if matches && self.last {
            self.arrived.set(true);
            return Err(E::custom("here"));
        }
        Ok(matches)
    }
}

/// Takes no value.
struct Refusal;

impl Visitor<'_> for Refusal {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("nothing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, keys: &str) -> Option<usize> {
        let keys: Vec<String> = keys.split('.').map(String::from).collect();
        line_of(text, &keys)
    }

    #[test]
    fn keys_are_found_in_block_and_flow_style() {
        let text =
            "a: 1\n\"b\":\n  - {x: 1}\n  -\n    # x: no\n    x:\n      y: {p: 1,\n       q: 2}\n\
                    c: &anchor\n  d: 3\ne: *anchor\n1: one\n";
        for (keys, expected) in [
            ("a", Some(1)),
            ("b", Some(2)),
            ("b.0", Some(3)),
            ("b.0.x", Some(3)),
            ("b.1.x", Some(6)),
            ("b.1.x.y.p", Some(7)),
            ("b.1.x.y.q", Some(8)),
            ("c.d", Some(10)),
            ("e", Some(11)),
            ("1", Some(12)),
            ("f", None),
            ("a.b", None),
            ("b.2", None),
            ("b.x", None),
            ("b.1.x.y.r", None),
        ] {
            assert_eq!(line(text, keys), expected, "{keys}");
        }
        for text in ["", "[]", "a", ": :", "a: [", "a: !tag {b: 1}"] {
            assert_eq!(line(text, "a.b"), None, "{text}");
        }
    }
}
