//! Reads a tree into what serde derives, and goes on after a mistake: the value at fault is left out (every key has a
//! default) and the rest is read again, so that all mistakes are told at once, each with its place.

use std::fmt::Write as _;

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::StrDeserializer},
};

use super::{
    Place, Problem,
    problem::suggest,
    tree::{Entry, Node, Value},
};

/// Mistakes told of one configuration; the last one says so.
const MAX_PROBLEMS: usize = 50;

/// Reads `root`, adding what is wrong to `problems`. `None` when not even the rest of it could be read.
pub(super) fn read<T: for<'de> Deserialize<'de>>(root: &Node, problems: &mut Vec<Problem>) -> Option<T> {
    let mut rest = root.clone();
    loop {
        match T::deserialize(Reader(&rest)) {
            Ok(value) => return Some(value),
            Err(fault) => {
                let key = remove(&mut rest, &fault.trail);
                let place = fault.place.unwrap_or_else(|| rest.place.clone());
                let text =
                    if fault.names_key || key.is_empty() { fault.text } else { format!("`{key}`: {}", fault.text) };
                problems.push(Problem { place: place.clone(), text });
                if fault.trail.is_empty() {
                    return None;
                }
                if problems.len() >= MAX_PROBLEMS {
                    problems.push(Problem::new(&place, "there is more, not shown; mend these first"));
                    return None;
                }
            }
        }
    }
}

/// Takes the value at a trail out of the tree and names its path.
fn remove(node: &mut Node, trail: &[usize]) -> String {
    let mut path = String::new();
    let mut at = node;
    for (depth, index) in trail.iter().rev().enumerate() {
        let last = depth + 1 == trail.len();
        match &mut at.value {
            Value::Map(entries) if *index < entries.len() => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&entries[*index].key);
                if last {
                    entries.remove(*index);
                    break;
                }
                at = &mut entries[*index].node;
            }
            Value::List(items) if *index < items.len() => {
                let _ = write!(path, "[{index}]");
                if last {
                    items.remove(*index);
                    break;
                }
                at = &mut items[*index];
            }
            _ => break,
        }
    }
    path
}

/// A mistake on its way up.
#[derive(Debug)]
pub(super) struct Fault {
    text: String,
    /// The text says which key it is about.
    names_key: bool,
    place: Option<Place>,
    /// Index of the value in its collection, innermost first.
    trail: Vec<usize>,
}

impl Fault {
    fn new(text: String) -> Self {
        Self { text, names_key: false, place: None, trail: Vec::new() }
    }

    fn within(mut self, index: usize, place: &Place) -> Self {
        self.trail.push(index);
        self.place.get_or_insert_with(|| place.clone());
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut fault = Self::new(format!("unknown key `{field}`{}", suggest(field, expected)));
        fault.names_key = true;
        fault
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("`{variant}` is not one of {}{}", expected.join(", "), near(variant, expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("`{field}` is missing here; add it"))
    }
}

fn near(word: &str, known: &[&str]) -> String {
    let told = suggest(word, known);
    if told.starts_with("; did") { told } else { String::new() }
}

struct Reader<'de>(&'de Node);

impl<'de> Reader<'de> {
    fn wrong(&self, expected: &str) -> Fault {
        Fault::new(match &self.0.value {
            Value::Null => format!("no value given; write {expected}, or leave the key out to keep its default"),
            Value::Scalar { text, .. } => format!("`{text}` is not {expected}"),
            Value::List(_) => format!("a list where {expected} belongs"),
            Value::Map(_) => format!("keys where {expected} belongs"),
        })
    }

    fn text(&self, expected: &str) -> Result<&'de str, Fault> {
        match &self.0.value {
            Value::Scalar { text, .. } => Ok(text),
            _ => Err(self.wrong(expected)),
        }
    }

    fn whole<N: TryFrom<i128>>(&self, least: i128, most: i128) -> Result<N, Fault> {
        let expected = format!("a whole number from {least} to {most}");
        let number: i128 = self.text(&expected)?.parse().map_err(|_| self.wrong(&expected))?;
        N::try_from(number).map_err(|_| self.wrong(&expected))
    }
}

/// Integers, each with the bounds of its type.
macro_rules! whole {
    ($($method:ident $visit:ident $type:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.whole(i128::from(<$type>::MIN), i128::from(<$type>::MAX))?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    whole! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar { text, .. } => visitor.visit_borrowed_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text("true or false")? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text("a number")?.parse::<f64>() {
            Ok(number) if number.is_finite() => visitor.visit_f64(number),
            _ => Err(self.wrong("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.text("a text")?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Null => visitor.visit_seq(Items { items: &[], next: 0 }),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Map(entries) => visitor.visit_map(Entries { entries, next: 0 }),
            Value::Null => visitor.visit_map(Entries { entries: &[], next: 0 }),
            _ => Err(self.wrong("a section (keys)")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let text = self.text(&format!("one of {}", variants.join(", ")))?;
        visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(text))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Entries<'de> {
    entries: &'de [Entry],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.entries.get(self.next) else { return Ok(None) };
        let key: StrDeserializer<'de, Fault> = (*entry.key).into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| fault.within(self.next, &entry.place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let index = self.next;
        let Some(entry) = self.entries.get(index) else {
            return Err(Fault::new("a key without its value".to_owned()));
        };
        self.next += 1;
        seed.deserialize(Reader(&entry.node)).map_err(|fault| fault.within(index, &entry.node.place))
    }
}

struct Items<'de> {
    items: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let index = self.next;
        let Some(item) = self.items.get(index) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(Reader(item)).map(Some).map_err(|fault| fault.within(index, &item.place))
    }
}
