//! The states inside a path: all patterns at once, by subset construction over segments.

use std::collections::HashMap;

use weir_common::judge::{ACT_AUTHORITY, ACT_FLAG, ACT_NONE, ACT_SLASH, ACT_UP, unclear};
use weir_common::verdict::STATES;

use super::head::Exits;
use super::rows::{CONTROL, CR, ENCODED_BAD, ENCODED_SLASH, HIGH, LF, ODD_SPACE, Rows, SPACE, TAB, printable};
use super::{MachineError, Masks};
use crate::policy::pattern::{PathPattern, Segment};

/// How far a pattern's current segment is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Far {
    /// So many symbols of it.
    At(u16),
    /// It is matched so far and takes any further symbol (`{name}`, or parameters behind `;`).
    Open,
    /// All segments are matched and the path may only end here.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Item {
    pattern: u16,
    segment: u16,
    far: Far,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Form {
    /// A segment starts.
    Start,
    /// Inside a segment.
    Inside,
    /// Behind `;` in a segment.
    Parameters,
    /// The segment is `.` so far.
    Dot,
    /// The segment is `..` so far.
    Dots,
}

/// What a state inside a path knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Place {
    items: Vec<Item>,
    /// Prefix patterns that are matched for good.
    done: Vec<u16>,
    form: Form,
    /// Where the segment started, as long as it may be a dot segment.
    start: Vec<Item>,
    action: u16,
    argument: u16,
}

/// Entrances of the path states.
pub(super) struct Paths {
    /// At the first slash of an origin-form target.
    pub(super) root: u16,
    /// At the first slash behind an authority.
    pub(super) authority: u16,
    /// What `/` alone accepts.
    pub(super) empty: u16,
}

struct Builder<'a> {
    rows: &'a mut Rows,
    masks: &'a mut Masks,
    patterns: &'a [(PathPattern, Vec<u16>)],
    exits: Exits,
    named: &'a [u8],
    known: HashMap<Place, u16>,
    todo: Vec<(Place, u16)>,
    up: u16,
}

/// Adds the states of all patterns; `patterns` holds each with the slots that it matches for.
pub(super) fn build(
    rows: &mut Rows,
    masks: &mut Masks,
    patterns: &[(PathPattern, Vec<u16>)],
    named: &[u8],
    exits: Exits,
) -> Result<Paths, MachineError> {
    let up = rows.add(0, ACT_UP, 0);
    let mut builder = Builder { rows, masks, patterns, exits, named, known: HashMap::new(), todo: Vec::new(), up };
    let mut start = Place {
        items: Vec::new(),
        done: Vec::new(),
        form: Form::Start,
        start: Vec::new(),
        action: ACT_SLASH,
        argument: 0,
    };
    for (index, (pattern, _)) in patterns.iter().enumerate() {
        let pattern_index = index as u16;
        match (pattern.segments.is_empty(), pattern.whole) {
            (true, false) => start.done.push(pattern_index),
            (true, true) => start.items.push(Item { pattern: pattern_index, segment: 0, far: Far::End }),
            (false, _) => start.items.push(Item { pattern: pattern_index, segment: 0, far: Far::At(0) }),
        }
    }
    let root = builder.state(start.clone())?;
    let authority = builder.state(Place { action: ACT_AUTHORITY, ..start.clone() })?;
    let empty = builder.accepts(&start)?;
    while let Some((place, state)) = builder.todo.pop() {
        builder.fill(&place, state)?;
    }
    Ok(Paths { root, authority, empty })
}

impl Builder<'_> {
    fn state(&mut self, place: Place) -> Result<u16, MachineError> {
        if let Some(&state) = self.known.get(&place) {
            return Ok(state);
        }
        if self.rows.0.len() >= STATES as usize {
            return Err(MachineError::States);
        }
        let state = self.rows.add(0, place.action, place.argument);
        self.rows.escapes(state);
        let accept = self.accepts(&place)?;
        self.rows.accept(state, accept);
        self.known.insert(place.clone(), state);
        self.todo.push((place, state));
        Ok(state)
    }

    /// What the path matches if it ends here.
    fn accepts(&mut self, place: &Place) -> Result<u16, MachineError> {
        let items = if place.form == Form::Dot { &place.start } else { &place.items };
        let mut slots: Vec<u16> = Vec::new();
        let ended = items.iter().filter(|item| self.ends(**item)).map(|item| item.pattern);
        for pattern in place.done.iter().copied().chain(ended) {
            slots.extend(&self.patterns[usize::from(pattern)].1);
        }
        self.masks.paths(&slots)
    }

    /// The item's segment is matched as it stands.
    fn complete(&self, item: Item) -> bool {
        match (item.far, &self.patterns[usize::from(item.pattern)].0.segments.get(usize::from(item.segment))) {
            (Far::Open, _) => true,
            (Far::At(at), Some(Segment::Literal(symbols))) => usize::from(at) == symbols.len(),
            _ => false,
        }
    }

    /// The item's pattern is matched if the path ends here.
    fn ends(&self, item: Item) -> bool {
        let last = usize::from(item.segment) + 1 == self.patterns[usize::from(item.pattern)].0.segments.len();
        item.far == Far::End || (last && self.complete(item))
    }

    fn fill(&mut self, place: &Place, state: u16) -> Result<(), MachineError> {
        let dead = match place.form {
            Form::Parameters => self.state(Place { action: ACT_NONE, argument: 0, ..place.clone() })?,
            _ => self.state(inside(place, Form::Inside))?,
        };
        let unclear = if place.form == Form::Parameters {
            Place { action: ACT_FLAG, argument: unclear::ENCODED, ..place.clone() }
        } else {
            // No literal has symbol 0; `{name}` takes it.
            let items = self.advance(&place.items, 0);
            Place { items, action: ACT_FLAG, argument: unclear::ENCODED, ..inside(place, Form::Inside) }
        };
        let unclear = self.state(unclear)?;
        self.rows.fill(state, dead);
        for class in [ENCODED_SLASH, ENCODED_BAD, HIGH, CONTROL, printable(b'\\')] {
            self.rows.on(state, class, unclear);
        }
        if place.form != Form::Parameters {
            for (class, symbol) in self.symbols(place) {
                let items = self.advance(&place.items, symbol);
                let next = self.state(Place { items, ..inside(place, Form::Inside) })?;
                self.rows.on(state, class, next);
            }
        }
        let dot = self.dot(place)?;
        if let Some(next) = dot {
            self.rows.on_byte(state, b'.', next);
        }
        if place.form != Form::Parameters {
            let parameters = self.parameters(place)?;
            self.rows.on_byte(state, b';', parameters);
        }
        let slash = self.slash(place)?;
        self.rows.on_byte(state, b'/', slash);
        let up = place.form == Form::Dots;
        let exits = self.exits;
        let pick = |plain: u16, above: u16| if up { above } else { plain };
        self.rows.on(state, SPACE, pick(exits.path_space, exits.up_space));
        for class in [TAB, ODD_SPACE] {
            self.rows.on(state, class, pick(exits.path_odd, exits.up_odd));
        }
        for byte in [b'?', b'#'] {
            self.rows.on_byte(state, byte, pick(exits.path_query, exits.up_query));
        }
        self.rows.on(state, CR, pick(exits.path_cr, exits.up_cr));
        self.rows.on(state, LF, pick(exits.path_lf, exits.up_lf));
        Ok(())
    }

    /// Classes that lead somewhere else than to the dead state: the next symbols of all items, or everything where an
    /// item takes anything.
    fn symbols(&self, place: &Place) -> Vec<(u8, u16)> {
        let any = place.items.iter().any(|item| match item.far {
            Far::Open => true,
            Far::At(0) => self.segment(*item) == Some(&Segment::Any),
            _ => false,
        });
        let structure = |byte: u8| matches!(byte, b'/' | b';' | b'?' | b'#' | b'%' | b'\\' | b' ');
        if any {
            let printables =
                (b' '..=b'~').filter(|&byte| !structure(byte)).map(|byte| (printable(byte), u16::from(byte)));
            let named =
                self.named.iter().enumerate().map(|(at, &byte)| (super::rows::NAMED + at as u8, 256 + u16::from(byte)));
            return printables.chain(named).chain([(super::rows::ENCODED, 511)]).collect();
        }
        let mut out: Vec<(u8, u16)> = Vec::new();
        for item in &place.items {
            if let (Far::At(at), Some(Segment::Literal(symbols))) = (item.far, self.segment(*item))
                && let Some(&symbol) = symbols.get(usize::from(at))
            {
                out.push((self.class(symbol), symbol));
            }
        }
        out.sort_unstable();
        out.dedup();
        out
    }

    fn class(&self, symbol: u16) -> u8 {
        super::rows::class(symbol, self.named)
    }

    fn segment(&self, item: Item) -> Option<&Segment> {
        self.patterns[usize::from(item.pattern)].0.segments.get(usize::from(item.segment))
    }

    fn advance(&self, items: &[Item], symbol: u16) -> Vec<Item> {
        let mut out: Vec<Item> = items
            .iter()
            .filter_map(|&item| {
                let far = match (item.far, self.segment(item)?) {
                    (Far::Open, _) | (Far::At(_), Segment::Any) => Far::Open,
                    (Far::At(at), Segment::Literal(symbols)) if symbols.get(usize::from(at)) == Some(&symbol) => {
                        Far::At(at + 1)
                    }
                    _ => return None,
                };
                Some(Item { far, ..item })
            })
            .collect();
        out.sort_unstable();
        out
    }

    /// A dot where the segment may still be a dot segment.
    fn dot(&mut self, place: &Place) -> Result<Option<u16>, MachineError> {
        let form = match place.form {
            Form::Start => Form::Dot,
            Form::Dot => Form::Dots,
            _ => return Ok(None),
        };
        let start = if place.form == Form::Start { place.items.clone() } else { place.start.clone() };
        let items = self.advance(&place.items, u16::from(b'.'));
        let next = Place { items, done: place.done.clone(), form, start, action: ACT_NONE, argument: 0 };
        self.state(next).map(Some)
    }

    /// What is complete at `;` stays so up to the next slash.
    fn parameters(&mut self, place: &Place) -> Result<u16, MachineError> {
        let mut items: Vec<Item> = place
            .items
            .iter()
            .filter(|item| self.complete(**item))
            .map(|item| Item { far: Far::Open, ..*item })
            .collect();
        items.sort_unstable();
        items.dedup();
        let dots = matches!(place.form, Form::Dot | Form::Dots);
        // Some servers take `/..;x/` for `/../`.
        let (action, argument) = if dots { (ACT_FLAG, unclear::DOTS) } else { (ACT_NONE, 0) };
        self.state(Place { items, action, argument, ..inside(place, Form::Parameters) })
    }

    fn slash(&mut self, place: &Place) -> Result<u16, MachineError> {
        let again = |items: &[Item]| Place {
            items: items.to_vec(),
            done: place.done.clone(),
            form: Form::Start,
            start: Vec::new(),
            action: ACT_NONE,
            argument: 0,
        };
        match place.form {
            Form::Start => return self.state(again(&place.items)),
            Form::Dot => return self.state(again(&place.start)),
            Form::Dots => return Ok(self.up),
            Form::Inside | Form::Parameters => {}
        }
        let mut next = Place { action: ACT_SLASH, ..again(&[]) };
        for &item in place.items.iter().filter(|item| self.complete(**item)) {
            let pattern = &self.patterns[usize::from(item.pattern)].0;
            let following = item.segment + 1;
            if usize::from(following) < pattern.segments.len() {
                next.items.push(Item { segment: following, far: Far::At(0), ..item });
            } else if pattern.whole {
                next.items.push(Item { segment: following, far: Far::End, ..item });
            } else {
                next.done.push(item.pattern);
            }
        }
        next.items.sort_unstable();
        next.items.dedup();
        next.done.sort_unstable();
        next.done.dedup();
        self.state(next)
    }
}

fn inside(place: &Place, form: Form) -> Place {
    Place { items: Vec::new(), done: place.done.clone(), form, start: Vec::new(), action: ACT_NONE, argument: 0 }
}
