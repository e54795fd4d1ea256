//! A configuration as written, before anything is known about its meaning: every value with its place.

use std::{net::SocketAddr, path::Path, sync::Arc};

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::{Place, Problem};

/// Files beyond this are refused: nobody writes them by hand, and the tree is held in memory.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Values in one tree, aliases counted as often as they are used.
const MAX_NODES: usize = 16_384;
/// Nesting; the walks over a tree recurse.
const MAX_DEPTH: usize = 32;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// The shapes YAML has; scalars keep their text, so `off` stays `off` and `1.10` stays `1.10`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar; quoted ones are never numbers, booleans or null.
    Scalar { text: Box<str>, quoted: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order written, keys unique.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    /// Of the key; [`Node::place`] is the value's.
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn map(place: Place) -> Self {
        Self { place, value: Value::Map(Vec::new()) }
    }

    pub(super) fn scalar(place: Place, text: &str) -> Self {
        Self { place, value: Value::Scalar { text: text.into(), quoted: true } }
    }

    /// The value at a path of keys, and of indices from 0 in lists.
    pub(super) fn get<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |node, key| match &node.value {
            Value::Map(entries) => entries.iter().find(|entry| &*entry.key == key).map(|entry| &entry.node),
            Value::List(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
            Value::Null | Value::Scalar { .. } => None,
        })
    }

    /// Puts a value at a path of keys; maps on the way are made where missing, other values there are replaced.
    pub(super) fn put(&mut self, path: &[&str], node: Self) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return };
        if let Some(entry) = entries.iter_mut().find(|entry| &*entry.key == *first) {
            entry.place = node.place.clone();
            entry.node.put(rest, node);
        } else {
            let mut made = Self::map(node.place.clone());
            let place = node.place.clone();
            made.put(rest, node);
            entries.push(Entry { key: (*first).into(), place, node: made });
        }
    }
}

/// Parses YAML. What is wrong is added to `problems`; a text whose grammar is broken has no tree.
fn parse(text: &str, at: &dyn Fn(u32, u32) -> Place, problems: &mut Vec<Problem>) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder { at, problems, stack: Vec::new(), anchors: Vec::new(), nodes: 0, root: None };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if !builder.take(event, span) {
                    return None;
                }
            }
            Err(error) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                let text = match text.lines().nth(line.saturating_sub(1)) {
                    Some(line) if line.trim_start_matches(' ').starts_with('\t') => {
                        "a tab indents this line; YAML allows spaces only".to_owned()
                    }
                    _ => format!("not YAML: {}", error.info()),
                };
                builder.problems.push(Problem { place: at(line as u32, column as u32), text });
                return None;
            }
        }
    }
    Some(builder.root.unwrap_or_else(|| Node { place: at(1, 1), value: Value::Null }))
}

/// Parses the text of a file.
pub(super) fn parse_file(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let path: Arc<Path> = path.into();
    parse(text, &|line, column| Place::File { path: path.clone(), line, column }, problems)
}

/// Parses a value given as one argument or variable.
pub(super) fn parse_value(text: &str, place: &Place, problems: &mut Vec<Problem>) -> Option<Node> {
    // Only collections need YAML's grammar; a scalar is taken as it is, so that `http://[::1]:4317`, `[::1]:9464` or
    // `a: b` need no quotes inside quotes.
    if text.starts_with(['[', '{']) && text.parse::<SocketAddr>().is_err() {
        parse(text, &|_, _| place.clone(), problems)
    } else {
        Some(Node { place: place.clone(), value: Value::Scalar { text: text.into(), quoted: false } })
    }
}

struct Builder<'p> {
    at: &'p dyn Fn(u32, u32) -> Place,
    problems: &'p mut Vec<Problem>,
    stack: Vec<Open>,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
    root: Option<Node>,
}

/// A collection that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<(Box<str>, Place)>,
}

impl Builder<'_> {
    /// Takes an event; `false` ends the parse.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let place = (self.at)(span.start.line() as u32, span.start.col() as u32 + 1);
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let quoted = style != ScalarStyle::Plain;
                let value = if !quoted && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    Value::Null
                } else {
                    Value::Scalar { text: text.into(), quoted }
                };
                self.add(Node { place, value }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Node { place, value: Value::List(Vec::new()) }, anchor),
            Event::MappingStart(_, anchor, _) => self.open(Node::map(place), anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(open) => self.add(open.node, open.anchor),
                None => true,
            },
            Event::Alias(id) => {
                let target = self.anchors.iter().find(|(anchor, _)| *anchor == id).map(|(_, node)| node.clone());
                match target {
                    Some(node) => {
                        self.nodes += size(&node);
                        self.add(Node { place, ..node }, 0)
                    }
                    None => self.refuse(place, "an alias inside its own anchor"),
                }
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                self.refuse(place, "a second document; a configuration is one document")
            }
            _ => true,
        }
    }

    fn open(&mut self, node: Node, anchor: usize) -> bool {
        if self.stack.len() >= MAX_DEPTH {
            return self.refuse(node.place, &format!("nested deeper than {MAX_DEPTH}"));
        }
        self.stack.push(Open { node, anchor, key: None });
        true
    }

    fn add(&mut self, node: Node, anchor: usize) -> bool {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.refuse(node.place, &format!("more than {MAX_NODES} values"));
        }
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return true;
        };
        match (&mut open.node.value, open.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((key, place))) => {
                if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                    let text = format!("`{key}` is given twice; first at {}", first.place);
                    self.problems.push(Problem { place, text });
                } else {
                    entries.push(Entry { key, place, node });
                }
            }
            (Value::Map(_), None) => match node.value {
                Value::Scalar { text, .. } => open.key = Some((text, node.place)),
                Value::Null | Value::List(_) | Value::Map(_) => {
                    return self.refuse(node.place, "a key must be a word");
                }
            },
            (Value::Null | Value::Scalar { .. }, _) => {}
        }
        true
    }

    fn refuse(&mut self, place: Place, text: &str) -> bool {
        self.problems.push(Problem { place, text: text.to_owned() });
        false
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar { .. } => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.node)).sum(),
    }
}
