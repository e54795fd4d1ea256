//! Compiles methods, paths and hosts of all rules into the table that the kernel half walks.

mod head;
mod host;
mod path;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use weir_common::judge::{
    ACT_FIRST, ACT_FLAG, ACT_HTTP2, ACT_METHOD, ACT_NONE, CLASSES, Classes, NO_HOST, NO_METHOD, NO_PATH, Row, state,
    unclear,
};
#[cfg(test)]
use weir_common::verdict::SLOTS;
use weir_common::verdict::{MASKS, Mask, STATES};

use super::pattern::{HostPattern, PathPattern, Segment};
use rows::{ODD_SPACE, Rows, SPACE, TAB, is_token};

/// Methods that rules may name, all together.
pub const METHODS: usize = 64;

/// Rules that don't fit into one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// Too many states.
    #[error(
        "the paths and hosts of all rules need more than {STATES} states: use fewer or shorter patterns, or prefixes"
    )]
    States,
    /// Too many distinct combinations of matched patterns.
    #[error("the paths and hosts of all rules overlap in more than {MASKS} ways: use fewer patterns")]
    Masks,
    /// Too many methods.
    #[error("all rules together name more than {METHODS} methods")]
    Methods,
    /// Too many distinct encoded octets.
    #[error("the paths of all rules name more than {} distinct encoded octets", rows::NAMED_MAX)]
    Octets,
}

/// What one slot asks of a request; an empty list asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// Methods, as spelled.
    pub methods: Vec<Box<str>>,
    /// Paths.
    pub paths: Vec<PathPattern>,
    /// Hosts.
    pub hosts: Vec<HostPattern>,
}

/// The compiled table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// States, at most [`STATES`].
    pub rows: Vec<Row>,
    /// Classes of symbols.
    pub classes: Box<Classes>,
    /// What a path or host matches: the slots whose condition holds (those without one included). At most [`MASKS`].
    pub masks: Vec<Mask>,
}

/// Masks under construction.
pub(crate) struct Masks {
    list: Vec<Mask>,
    known: HashMap<Mask, u16>,
    no_path: Mask,
    no_host: Mask,
    no_method: Mask,
}

impl Masks {
    fn paths(&mut self, slots: &[u16]) -> Result<u16, MachineError> {
        if slots.is_empty() { Ok(NO_PATH) } else { self.index(with(self.no_path, slots)) }
    }

    fn hosts(&mut self, slots: &[u16]) -> Result<u16, MachineError> {
        if slots.is_empty() { Ok(NO_HOST) } else { self.index(with(self.no_host, slots)) }
    }

    fn methods(&mut self, slots: &[u16]) -> Result<u16, MachineError> {
        self.index(with(self.no_method, slots))
    }

    fn index(&mut self, mask: Mask) -> Result<u16, MachineError> {
        if let Some(&at) = self.known.get(&mask) {
            return Ok(at);
        }
        if self.list.len() >= MASKS as usize {
            return Err(MachineError::Masks);
        }
        let at = self.list.len() as u16;
        self.list.push(mask);
        self.known.insert(mask, at);
        Ok(at)
    }
}

/// The mask with further slots.
fn with(mut mask: Mask, slots: &[u16]) -> Mask {
    for &slot in slots {
        set(&mut mask, slot);
    }
    mask
}

/// Adds a slot to a mask.
pub(crate) fn set(mask: &mut Mask, slot: u16) {
    if let Some(word) = mask.get_mut(usize::from(slot) / 64) {
        *word |= 1 << (slot % 64);
    }
}

/// Slots of a mask.
#[cfg(test)]
pub(crate) fn slots(mask: &Mask) -> impl Iterator<Item = u16> + '_ {
    (0..SLOTS as u16).filter(|&slot| mask[usize::from(slot) / 64] >> (slot % 64) & 1 != 0)
}

impl Machine {
    /// Compiles the conditions of all slots that read requests.
    pub fn build(conditions: &[(u16, &Conditions)]) -> Result<Self, MachineError> {
        let mut masks =
            Masks { list: Vec::new(), known: HashMap::new(), no_path: [0; 4], no_host: [0; 4], no_method: [0; 4] };
        for &(slot, wanted) in conditions {
            if wanted.paths.is_empty() {
                set(&mut masks.no_path, slot);
            }
            if wanted.hosts.is_empty() {
                set(&mut masks.no_host, slot);
            }
            if wanted.methods.is_empty() {
                set(&mut masks.no_method, slot);
            }
        }
        masks.list = vec![masks.no_path, masks.no_host, masks.no_method];
        let methods = gather(conditions, |wanted| &wanted.methods);
        if methods.len() > METHODS {
            return Err(MachineError::Methods);
        }
        let methods = methods
            .into_iter()
            .map(|(name, slots)| Ok((name, masks.methods(&slots)?)))
            .collect::<Result<Vec<_>, MachineError>>()?;
        let paths = gather(conditions, |wanted| &wanted.paths);
        let hosts = gather(conditions, |wanted| &wanted.hosts);
        let named = named(&paths)?;

        let mut rows = Rows(Vec::new());
        let exits = head::build(&mut rows);
        let entrances = path::build(&mut rows, &mut masks, &paths, &named, exits)?;
        let authority = host::build(&mut rows, &mut masks, &hosts, exits, entrances.authority, entrances.empty)?;
        let target = rows::target(&mut rows, exits, entrances.root, authority);
        start(&mut rows, &methods, target);
        if rows.0.len() > STATES as usize {
            return Err(MachineError::States);
        }
        Ok(Self { rows: rows.0, classes: Box::new(rows::classes(&named)), masks: masks.list })
    }
}

impl weir_common::judge::Table for Machine {
    fn row(&self, state: u16) -> Option<&Row> {
        self.rows.get(usize::from(state))
    }
}

fn gather<T: Clone + Ord>(conditions: &[(u16, &Conditions)], of: impl Fn(&Conditions) -> &[T]) -> Vec<(T, Vec<u16>)> {
    let mut all: std::collections::BTreeMap<T, Vec<u16>> = std::collections::BTreeMap::new();
    for &(slot, wanted) in conditions {
        for pattern in of(wanted) {
            all.entry(pattern.clone()).or_default().push(slot);
        }
    }
    all.into_iter().collect()
}

/// Encoded octets that some path names.
fn named(paths: &[(PathPattern, Vec<u16>)]) -> Result<Vec<u8>, MachineError> {
    let octets: BTreeSet<u8> = paths
        .iter()
        .flat_map(|(path, _)| &path.segments)
        .flat_map(|segment| match segment {
            Segment::Literal(symbols) => symbols.as_slice(),
            Segment::Any => &[],
        })
        .filter(|symbol| **symbol > 255)
        .map(|symbol| (symbol & 255) as u8)
        .collect();
    if octets.len() > rows::NAMED_MAX { Err(MachineError::Octets) } else { Ok(octets.into_iter().collect()) }
}

/// Methods: a trie from the message's first byte.
fn start(rows: &mut Rows, methods: &[(Box<str>, u16)], target: u16) {
    let method = rows.like(target, ACT_METHOD, 0);
    let method_odd = rows.like(target, ACT_METHOD, unclear::SPACE);
    let http2 = rows.add(state::NOT_HTTP, ACT_HTTP2, 0);
    let other = rows.add(state::NOT_HTTP, ACT_NONE, 0);
    let ends = |rows: &mut Rows, state: u16| {
        rows.on(state, SPACE, method);
        rows.on(state, TAB, method_odd);
        rows.on(state, ODD_SPACE, method_odd);
    };
    // Some servers take any word for a method; what holds control characters is another protocol's.
    let odd = rows.add(state::NOT_HTTP, ACT_FLAG, unclear::NOT_HTTP);
    for class in 1..rows::CR {
        let token = is_token(class + b' ');
        rows.on(other, class, if token { other } else { odd });
        rows.on(odd, class, odd);
    }
    for state in [other, odd] {
        rows.accept(state, NO_METHOD);
        ends(rows, state);
    }
    let root = rows.like(other, ACT_NONE, 0);
    let words = methods.iter().map(|(name, accept)| (name.as_bytes(), *accept));
    for (word, number) in words.chain([(b"PRI".as_slice(), u16::MAX)]) {
        let mut at = root;
        for &byte in word {
            let class = rows::printable(byte);
            let known = rows.0[usize::from(at)][usize::from(class)];
            at = if known == other {
                let next = rows.like(other, ACT_NONE, 0);
                rows.on(at, class, next);
                next
            } else {
                known
            };
        }
        if number == u16::MAX {
            rows.on(at, SPACE, http2);
        } else {
            rows.accept(at, number);
        }
    }
    // The first byte is a state of its own: it starts the request.
    for class in 0..CLASSES as u8 {
        let next = rows.0[usize::from(root)][usize::from(class)];
        if (1..rows::CR).contains(&class) {
            let odd = if is_token(class + b' ') { 0 } else { unclear::NOT_HTTP };
            let first = rows.like(next, ACT_FIRST, odd);
            rows.on(state::START, class, first);
        }
    }
    let space = rows.like(root, ACT_FIRST, unclear::SPACE);
    let more = rows.like(root, ACT_FLAG, unclear::SPACE);
    for from in [space, more] {
        for class in [SPACE, TAB, ODD_SPACE] {
            rows.on(from, class, more);
        }
    }
    for class in [SPACE, TAB, ODD_SPACE] {
        rows.on(state::START, class, space);
    }
}
