//! The states inside a host, of a `Host` field or of an absolute-form target.

use std::collections::HashMap;

use weir_common::judge::{ACT_AUTHORITY_PATH, ACT_FLAG, ACT_NONE, NO_HOST, state, unclear};
use weir_common::verdict::STATES;

use super::head::Exits;
use super::rows::{CR, LF, ODD_SPACE, Rows, SPACE, TAB, printable};
use super::{MachineError, Masks};
use crate::policy::pattern::HostPattern;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Item {
    host: u16,
    /// Characters of the name that are matched; `None`: before the name of a `*.` pattern.
    at: Option<u16>,
    /// Behind the one dot that may follow a whole name (RFC 9110 §4.2.3, RFC 3986 §3.2.2).
    dot: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Form {
    Name,
    /// Inside the brackets of an IPv6 address.
    Literal,
    Port,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Place {
    items: Vec<Item>,
    form: Form,
    /// In a target's authority, not in a field.
    authority: bool,
    /// Nothing was read yet.
    start: bool,
    flag: bool,
}

struct Builder<'a> {
    rows: &'a mut Rows,
    masks: &'a mut Masks,
    hosts: &'a [(HostPattern, Vec<u16>)],
    exits: Exits,
    known: HashMap<Place, u16>,
    todo: Vec<(Place, u16)>,
    /// At the first slash behind an authority.
    slash: u16,
    /// Behind an authority without a path: at a space, a query, an end of line.
    bare: [u16; 3],
}

/// Adds the states of all hosts, wires the `Host` field, and returns the state behind `http://`.
pub(super) fn build(
    rows: &mut Rows,
    masks: &mut Masks,
    hosts: &[(HostPattern, Vec<u16>)],
    exits: Exits,
    slash: u16,
    empty: u16,
) -> Result<u16, MachineError> {
    let bare = [
        rows.like(exits.version, ACT_AUTHORITY_PATH, empty),
        rows.like(exits.query, ACT_AUTHORITY_PATH, empty),
        rows.like(exits.bare_cr, ACT_AUTHORITY_PATH, empty),
    ];
    let mut builder = Builder { rows, masks, hosts, exits, known: HashMap::new(), todo: Vec::new(), slash, bare };
    let items: Vec<Item> = hosts
        .iter()
        .enumerate()
        .map(|(index, (host, _))| Item { host: index as u16, at: if host.below { None } else { Some(0) }, dot: false })
        .collect();
    let field = Place { items, form: Form::Name, authority: false, start: true, flag: false };
    let authority = builder.state(Place { authority: true, ..field.clone() })?;
    let start = builder.state(field)?;
    while let Some((place, state)) = builder.todo.pop() {
        builder.fill(&place, state)?;
    }
    builder.rows.follow(exits.host, start);
    builder.rows.accept(exits.host, NO_HOST);
    Ok(authority)
}

impl Builder<'_> {
    fn state(&mut self, place: Place) -> Result<u16, MachineError> {
        if let Some(&state) = self.known.get(&place) {
            return Ok(state);
        }
        if self.rows.0.len() >= STATES as usize {
            return Err(MachineError::States);
        }
        let (action, argument) = if place.flag { (ACT_FLAG, unclear::HOST) } else { (ACT_NONE, 0) };
        let state = self.rows.add(0, action, argument);
        let mut slots: Vec<u16> = Vec::new();
        for item in place.items.iter().filter(|item| self.whole(**item)) {
            slots.extend(&self.hosts[usize::from(item.host)].1);
        }
        let accept = self.masks.hosts(&slots)?;
        self.rows.accept(state, accept);
        self.known.insert(place.clone(), state);
        self.todo.push((place, state));
        Ok(state)
    }

    fn whole(&self, item: Item) -> bool {
        item.at.is_some_and(|at| usize::from(at) == self.hosts[usize::from(item.host)].0.name.len())
    }

    fn fill(&mut self, place: &Place, state: u16) -> Result<(), MachineError> {
        let dead = self.state(Place {
            items: Vec::new(),
            form: dead_form(place),
            start: false,
            flag: false,
            ..*place_ref(place)
        })?;
        self.rows.fill(state, dead);
        match place.form {
            Form::Port => {
                // Digits, and whatever else stands there, change nothing.
                let same = self.state(Place { start: false, flag: false, ..place.clone() })?;
                self.rows.fill(state, same);
            }
            Form::Name | Form::Literal => self.name(place, state)?,
        }
        let flagged = self.state(Place {
            items: Vec::new(),
            form: Form::Name,
            start: false,
            flag: true,
            authority: place.authority,
        })?;
        self.rows.on_byte(state, b'%', flagged);
        let again = self.initial(place.authority);
        let user = self.state(again)?;
        self.rows.on_byte(state, b'@', user);
        self.ends(place, state, flagged);
        Ok(())
    }

    /// Behind user information the host starts anew, flagged.
    fn initial(&self, authority: bool) -> Place {
        let items = self
            .hosts
            .iter()
            .enumerate()
            .map(|(index, (host, _))| Item {
                host: index as u16,
                at: if host.below { None } else { Some(0) },
                dot: false,
            })
            .collect();
        Place { items, form: Form::Name, authority, start: false, flag: true }
    }

    fn name(&mut self, place: &Place, state: u16) -> Result<(), MachineError> {
        for byte in b'!'..=b'~' {
            if byte.is_ascii_uppercase() || matches!(byte, b'/' | b'?' | b'#' | b'@' | b'%') {
                continue;
            }
            let mut items = Vec::new();
            for &item in &place.items {
                self.advance(item, byte, &mut items);
            }
            let mut form = if place.form == Form::Literal { Form::Literal } else { Form::Name };
            match byte {
                b'[' if place.start => form = Form::Literal,
                b']' => form = Form::Name,
                b':' if place.form != Form::Literal => {
                    items = place.items.iter().copied().filter(|item| self.whole(*item)).collect();
                    form = Form::Port;
                }
                _ => {}
            }
            let next = self.state(Place { items, form, authority: place.authority, start: false, flag: false })?;
            self.rows.on_letter(state, byte, next);
        }
        Ok(())
    }

    fn advance(&self, item: Item, byte: u8, out: &mut Vec<Item>) {
        if item.dot {
            return;
        }
        if byte == b'.' && self.whole(item) {
            out.push(Item { dot: true, ..item });
        }
        match item.at {
            None => {
                out.push(item);
                if byte == b'.' {
                    out.push(Item { at: Some(0), ..item });
                }
            }
            Some(at) => {
                if self.hosts[usize::from(item.host)].0.name.as_bytes().get(usize::from(at)) == Some(&byte) {
                    out.push(Item { at: Some(at + 1), ..item });
                }
            }
        }
        out.sort_unstable();
        out.dedup();
    }

    fn ends(&mut self, place: &Place, state: u16, flagged: u16) {
        let exits = self.exits;
        if place.authority {
            let [space, query, cr] = self.bare;
            self.rows.on_byte(state, b'/', self.slash);
            for byte in [b'?', b'#'] {
                self.rows.on_byte(state, byte, query);
            }
            for class in [SPACE, TAB, ODD_SPACE] {
                self.rows.on(state, class, space);
            }
            self.rows.on(state, CR, cr);
            self.rows.on(state, LF, state::NOT_HTTP);
            return;
        }
        for class in [SPACE, TAB] {
            // Whitespace before the host is skipped, behind it ends it.
            self.rows.on(state, class, if place.start { state } else { exits.host_rest });
        }
        self.rows.on(state, ODD_SPACE, flagged);
        for class in [printable(b'/'), printable(b'?'), printable(b'#'), printable(b',')] {
            self.rows.on(state, class, flagged);
        }
        self.rows.on(state, CR, exits.host_cr);
        self.rows.on(state, LF, exits.host_lf);
    }
}

fn dead_form(place: &Place) -> Form {
    if place.form == Form::Literal { Form::Literal } else { Form::Name }
}

fn place_ref(place: &Place) -> &Place {
    place
}
