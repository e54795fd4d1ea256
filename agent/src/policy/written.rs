//! A rule as written: YAML of the rules directory and the config, JSON of the control API and of `WeirPolicy`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore<T> {
    /// One.
    One(T),
    /// Several, or none.
    Many(Vec<T>),
}

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> OneOrMore<T> {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

/// A value that [`OneOrMore`] is read of. YAML hands texts over for everything, JSON tells numbers from texts.
pub trait Scalar: Sized {
    /// What it is called.
    const WANTED: &'static str;
    /// From a text.
    fn of_text(text: &str) -> Option<Self>;
    /// From a number.
    fn of_number(number: u64) -> Option<Self>;
}

impl Scalar for String {
    const WANTED: &'static str = "a text";

    fn of_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn of_number(_: u64) -> Option<Self> {
        None
    }
}

impl Scalar for u16 {
    const WANTED: &'static str = "a whole number from 0 to 65535";

    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn of_number(number: u64) -> Option<Self> {
        number.try_into().ok()
    }
}

impl<'de, T: Scalar> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Values::<T>(PhantomData))
    }
}

/// Reads one value or a list of them.
struct Values<T>(PhantomData<T>);

impl<'de, T: Scalar> Visitor<'de> for Values<T> {
    type Value = OneOrMore<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or a list", T::WANTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let value = T::of_text(text).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            E::custom(format!("`{shown}` is not {}", T::WANTED))
        });
        value.map(OneOrMore::One)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let value = T::of_number(number).ok_or_else(|| E::custom(format!("{number} is not {}", T::WANTED)));
        value.map(OneOrMore::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element::<OneOrMore<T>>()? {
            match item {
                OneOrMore::One(one) => all.push(one),
                OneOrMore::Many(_) => return Err(A::Error::custom("a list within a list")),
            }
        }
        Ok(OneOrMore::Many(all))
    }
}

/// One end of the calls that a rule is about. All given keys must hold; several values of one key are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenEnd {
    /// Address or CIDR, IPv4 or IPv6.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub address: OneOrMore<String>,
    /// Executable name on this node.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub process: OneOrMore<String>,
    /// `service.name` on this node.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub service: OneOrMore<String>,
    /// systemd unit on this node.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub unit: OneOrMore<String>,
    /// Container id on this node, or 12 characters and more of its start.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub container: OneOrMore<String>,
    /// Pod on this node, `namespace/name`.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub pod: OneOrMore<String>,
    /// Resource attribute, `key=value`.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub attribute: OneOrMore<String>,
    /// Port; servers only.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub port: OneOrMore<u16>,
    /// Host as the request names it, `*.` in front for all below; servers only.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub host: OneOrMore<String>,
}

/// A rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenLimit {
    /// Requests in a time: `100/s`, `600/m`, `5/10s`.
    pub rate: String,
    /// Requests that may come at once; default: those of one `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// `client` (default): a bucket for each client address; `network`: for each `/64` of IPv6, of which one client has
    /// every address; `rule`: one for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenRule {
    /// Name, `[A-Za-z0-9._-]`, up to 64 characters; made up when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `deny` (default), `limit`, `watch`, `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `monitor` (default) or `enforce`; the node's own mode must be `enforce` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `reset` (default) or `drop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Ambiguous heads are met too.
    #[serde(skip_serializing_if = "is_false")]
    pub strict: bool,
    /// Take it in spite of warnings; it overrules loopback and the node's own addresses on the allow-list.
    #[serde(skip_serializing_if = "is_false")]
    pub force: bool,
    /// −100..=100, default 0; higher wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Who calls.
    pub client: WrittenEnd,
    /// Who is called.
    pub server: WrittenEnd,
    /// Request method.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub method: OneOrMore<String>,
    /// `/prefix`, `=/exact` or `/a/{template}`.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub path: OneOrMore<String>,
    /// The rate of a `limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<WrittenLimit>,
    /// How long it holds, `90s`, `1h`, `7d`; absent: until it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who wants it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A file of the rules directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenRules {
    /// Its rules.
    pub rules: Vec<WrittenRule>,
}
