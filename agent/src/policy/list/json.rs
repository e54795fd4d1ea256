//! Lists as JSON, read without building the document: of a large object only its address is kept.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Entries, ListError};

/// Keys that may hold the address, the first of them first.
const KEYS: [&str; 5] = ["ip", "address", "cidr", "range", "value"];

/// Reads a document.
pub(super) fn read(bytes: &[u8], entries: &mut Entries) -> Result<(), ListError> {
    let mut long = None;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let result = Document { entries, long: &mut long }.deserialize(&mut reader).and_then(|()| reader.end());
    match (long, result) {
        (Some(long), _) => Err(long),
        (None, Err(error)) => {
            let text: String = error.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
            Err(ListError::Json(text))
        }
        (None, Ok(())) => Ok(()),
    }
}

/// The document, or its `data`.
struct Document<'a> {
    entries: &'a mut Entries,
    /// Why reading was given up: serde's errors carry text only.
    long: &'a mut Option<ListError>,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of addresses, or an object with the key data")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut n = 0_u64;
        while let Some(entry) = items.next_element_seed(Entry)? {
            n += 1;
            let place = Item(n);
            let taken = if let Some(text) = entry {
                self.entries.take(&place, &text)
            } else {
                self.entries.refuse(&place, &"neither a text nor an object with ip, address, cidr, range or value");
                Ok(())
            };
            if let Err(error) = taken {
                *self.long = Some(error);
                return Err(A::Error::custom("too long"));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut keys: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = keys.next_key::<Cow<'de, str>>()? {
            if key == "data" && !found {
                found = true;
                keys.next_value_seed(Document { entries: &mut *self.entries, long: &mut *self.long })?;
            } else {
                keys.next_value::<IgnoredAny>()?;
            }
        }
        if found { Ok(()) } else { Err(A::Error::custom("the object has no key data")) }
    }
}

/// One entry: its address, where it has one.
struct Entry;

impl<'de> DeserializeSeed<'de> for Entry {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entry {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut keys: A) -> Result<Self::Value, A::Error> {
        let mut best: Option<(usize, String)> = None;
        while let Some(key) = keys.next_key::<Cow<'de, str>>()? {
            let rank = KEYS.iter().position(|known| *known == key);
            match rank.filter(|rank| best.as_ref().is_none_or(|(known, _)| rank < known)) {
                Some(rank) => {
                    if let Some(text) = keys.next_value_seed(Text)? {
                        best = Some((rank, text));
                    }
                }
                None => drop(keys.next_value::<IgnoredAny>()?),
            }
        }
        Ok(best.map(|(_, text)| text))
    }
}

/// A text; anything else is none.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Any {
            Text(String),
            Other(IgnoredAny),
        }
        match serde::Deserialize::deserialize(from)? {
            Any::Text(text) => Ok(Some(text)),
            Any::Other(IgnoredAny) => Ok(None),
        }
    }
}

struct Item(u64);

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}", self.0)
    }
}
