//! The effective configuration, each value with where it came from; secrets are masked.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Place, tree::Node, written::Written};

/// Takes a path, its value (`None`: a section begins) and its place.
type Each<'e> = &'e mut dyn FnMut(&[&str], Option<&Value>, Option<&Place>);

/// Stands for a value that is not shown.
const MASK: &str = "***";

/// Effective values and their places.
#[derive(Clone, Debug)]
pub struct Effective {
    written: Written,
    tree: Node,
}

impl Effective {
    pub(super) fn new(written: Written, tree: Node) -> Self {
        Self { written, tree }
    }

    /// Where the value of a key, or the first of a section's, was written.
    #[must_use]
    pub fn place(&self, key: &str) -> Place {
        self.tree.get(key.split('.')).map_or(Place::Default, |node| node.place.clone())
    }

    /// YAML, with the place of each value as comment.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut lines = Vec::new();
        self.walk(&mut |path, value, place| {
            let depth = path.len().saturating_sub(1);
            let key = path.last().map_or("", |key| *key);
            let line = match value {
                Some(value) => format!("{}{}: {}", "  ".repeat(depth), quoted(key), scalar(value)),
                None => format!("{}{}:", "  ".repeat(depth), quoted(key)),
            };
            lines.push((line, place.filter(|_| value.is_some()).map(ToString::to_string)));
        });
        let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
        lines.iter().fold(String::new(), |mut text, (line, place)| {
            let _ = match place {
                Some(place) => writeln!(text, "{line:width$}  # {place}"),
                None => writeln!(text, "{line}"),
            };
            text
        })
    }

    /// One document: an array of `{"key", "value", "from"}`.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut keys = Vec::new();
        self.walk(&mut |path, value, place| {
            if let Some(value) = value {
                let from = place.map(ToString::to_string);
                keys.push(json!({ "key": path.join("."), "value": value, "from": from }));
            }
        });
        Value::Array(keys)
    }

    fn walk(&self, each: Each<'_>) {
        if let Ok(Value::Object(keys)) = serde_json::to_value(&self.written) {
            walk(&keys, Some(&self.tree), &mut Vec::new(), each);
        }
    }
}

/// Names of all keys, as `privacy.level`.
pub(super) fn keys(written: &Written) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(Value::Object(keys)) = serde_json::to_value(written) {
        walk(&keys, None, &mut Vec::new(), &mut |path, value, _| {
            if value.is_some() {
                names.push(path.join("."));
            }
        });
    }
    names
}

fn walk<'v>(keys: &'v serde_json::Map<String, Value>, node: Option<&Node>, path: &mut Vec<&'v str>, each: Each<'_>) {
    for (key, value) in keys {
        path.push(key);
        let written = node.and_then(|node| node.get([key.as_str()]));
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                each(path, None, None);
                walk(inner, written, path, each);
            }
            _ => {
                let secret = matches!(path.as_slice(), ["otlp", "headers", _] | ["otlp", "signals", _, "headers", _]);
                let mask = Value::from(MASK);
                let place = written.map_or(&Place::Default, |node| &node.place);
                each(path, Some(if secret { &mask } else { value }), Some(place));
            }
        }
        path.pop();
    }
}

/// YAML reads JSON: lists and objects stand as they are, and so do texts, without quotes where they need none.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:+".contains(c))
        && !text.ends_with(':');
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}
