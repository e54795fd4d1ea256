//! The rules in force and the rows they come to. A change is checked whole before anything of it is taken, and comes
//! out as the few rows that differ: one address among 100 000 is one row.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use weir_common::verdict::{Act, Active, AddressRow, Bank, Mask, NESTED, PREFIXES, SLOTS, Slot};

use super::machine::{self, Conditions, Machine, MachineError};
use super::prefix::Prefix;
use super::rule::{Mode, Rule, Who};
use super::shape::{Shape, shapes};

/// Rules that a node keeps, all together.
pub const RULES_MAX: usize = 300_000;
/// New prefixes of a change that are few.
const FEW: usize = 64;
/// Identity groups: distinct identities that rules name.
pub const GROUPS_MAX: usize = 64;

/// Why a change is refused. Nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The id is taken.
    #[error("rule {0} exists already: remove it first, or choose another id")]
    Exists(Arc<str>),
    /// No such rule.
    #[error("there is no rule {0}")]
    Unknown(Arc<str>),
    /// Too many rules.
    #[error("more than {RULES_MAX} rules: join addresses into prefixes, or remove rules")]
    Rules,
    /// Too many prefixes.
    #[error("more than {PREFIXES} client prefixes: join them into shorter ones, or remove rules")]
    Prefixes,
    /// Too many prefixes inside each other.
    #[error("more than {NESTED} client prefixes lie around {0}: the kernel half looks at no more; remove some of them")]
    Nested(Prefix),
    /// Too many distinct conditions.
    #[error(
        "rule {0} needs a slot and all {SLOTS} are taken: rules that differ only in their clients share one; join rules that differ in little"
    )]
    Slots(Arc<str>),
    /// Too many identities.
    #[error("rule {0} names an identity and all rules together name more than {GROUPS_MAX}")]
    Groups(Arc<str>),
    /// Paths, hosts and methods don't fit.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// What differs between two generations: rows as the kernel half reads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The new generation.
    pub generation: u64,
    /// Slots to write before the new generation counts.
    pub slots: Vec<(u16, Slot)>,
    /// Slots to clear once the new generation counts.
    pub freed: Vec<u16>,
    /// Address rows to write before the new generation counts.
    pub rows: Vec<(Prefix, AddressRow)>,
    /// Address rows to remove once the new generation counts.
    pub gone: Vec<Prefix>,
    /// The new table, where paths, hosts or methods changed.
    pub machine: Option<Arc<Machine>>,
    /// Groups, by bit, that stand for another identity than before: nobody is of them until it is told anew.
    pub renamed: u64,
    /// What the new generation asks for.
    pub bank: Bank,
}

#[derive(Clone, Debug)]
struct Kept {
    shape: Shape,
    slot: Slot,
    users: u32,
}

/// The rules in force.
#[derive(Debug)]
pub struct RuleSet {
    rules: BTreeMap<Arc<str>, Arc<Rule>>,
    slots: Vec<Option<Kept>>,
    groups: Vec<Option<(Who, u32)>>,
    rows: HashMap<Prefix, Vec<Arc<Rule>>>,
    /// Rules that don't choose clients by address.
    free: BTreeMap<Arc<str>, Arc<Rule>>,
    /// Lengths of the rows' prefixes, and how many rules have them.
    lengths: BTreeMap<u8, usize>,
    /// Ends of rules, soonest first.
    ends: BTreeSet<(u64, Arc<str>)>,
    machine: Arc<Machine>,
    table: u32,
    generation: u64,
    mode: Mode,
}

impl RuleSet {
    /// No rules, monitor mode.
    pub fn new() -> Result<Self, MachineError> {
        Ok(Self {
            rules: BTreeMap::new(),
            slots: vec![None; SLOTS],
            groups: vec![None; GROUPS_MAX],
            rows: HashMap::new(),
            free: BTreeMap::new(),
            lengths: BTreeMap::new(),
            ends: BTreeSet::new(),
            machine: Arc::new(Machine::build(&[])?),
            table: 0,
            generation: 0,
            mode: Mode::Monitor,
        })
    }

    /// All rules, by id.
    #[must_use]
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Arc<Rule>> {
        self.rules.values()
    }

    /// A rule.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Rule>> {
        self.rules.get(id)
    }

    /// The node's mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The generation that counts.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The word that makes the generation count.
    #[must_use]
    pub fn active(&self) -> Active {
        self.generation << 1 | self.generation & 1
    }

    /// The table of the generation that counts.
    #[must_use]
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// Identities that rules name, by group number.
    pub fn groups(&self) -> impl Iterator<Item = (u8, &Who)> {
        self.groups.iter().enumerate().filter_map(|(bit, group)| group.as_ref().map(|(who, _)| (bit as u8, who)))
    }

    /// Rules that a slot stands for and that a client's address does not rule out, whichever of the prefixes around it
    /// they have.
    pub fn of_slot(&self, slot: u16, client: std::net::IpAddr) -> impl Iterator<Item = &Arc<Rule>> {
        let shape = self.slots.get(usize::from(slot)).and_then(Option::as_ref).map(|kept| &kept.shape);
        self.around(client).filter(move |rule| shape.is_some_and(|shape| shape.is_of(rule)))
    }

    /// Slots whose rules refuse: in silence, or what comes before its connection has a socket.
    pub fn refusing(&self) -> impl Iterator<Item = u16> {
        let refuses = |kept: &Kept| kept.slot.act == Act::DENY.0 || kept.slot.act == Act::LIMIT.0;
        (0..).zip(&self.slots).filter(move |(_, kept)| kept.as_ref().is_some_and(refuses)).map(|(at, _)| at)
    }

    /// All rules that a slot stands for, by id.
    pub fn sharing(&self, slot: u16) -> impl Iterator<Item = &Arc<Rule>> {
        let shape = self.slots.get(usize::from(slot)).and_then(Option::as_ref).map(|kept| &kept.shape);
        self.rules.values().filter(move |rule| shape.is_some_and(|shape| shape.is_of(rule)))
    }

    /// Rules that a client's address does not rule out; a rule with several prefixes around it comes as often.
    pub fn around(&self, client: std::net::IpAddr) -> impl Iterator<Item = &Arc<Rule>> {
        let host = Prefix::host(client);
        let rows = self.lengths.keys().filter_map(move |len| self.rows.get(&host.cut(*len))).flatten();
        rows.chain(self.free.values())
    }

    /// Sets the node's mode.
    #[must_use]
    pub fn set_mode(&mut self, mode: Mode) -> Change {
        self.mode = mode;
        self.generation += 1;
        Change { generation: self.generation, bank: self.bank(), ..Change::default() }
    }

    /// Everything that the generation that counts comes to, for tables that are empty.
    #[must_use]
    pub fn whole(&self) -> Change {
        let slots = (0..).zip(&self.slots).filter_map(|(at, kept)| kept.as_ref().map(|kept| (at, kept.slot)));
        Change {
            generation: self.generation,
            slots: slots.collect(),
            rows: self.rows.keys().filter_map(|prefix| Some((*prefix, self.row(*prefix)?))).collect(),
            machine: Some(Arc::clone(&self.machine)),
            bank: self.bank(),
            ..Change::default()
        }
    }

    /// Some rule in enforce mode has an end: it holds until then whether the agent lives or not.
    #[must_use]
    pub fn outlives(&self) -> bool {
        self.rules.values().any(|rule| rule.until.is_some() && rule.mode == Mode::Enforce)
    }

    /// Removes and adds rules, all of them or none. A rule may be removed and added anew in one change.
    pub fn change(&mut self, remove: &[Arc<str>], add: Vec<Rule>) -> Result<Change, SetError> {
        let leaving = self.leaving(remove)?;
        let arriving = self.arriving(remove, add)?;
        if self.rules.len() + arriving.len() - leaving.len() > RULES_MAX {
            return Err(SetError::Rules);
        }
        let fresh: usize = arriving
            .iter()
            .map(|rule| rule.clients.iter().filter(|prefix| !self.rows.contains_key(prefix)).count())
            .sum();
        if self.rows.len() + fresh > PREFIXES as usize {
            return Err(SetError::Prefixes);
        }
        self.nested(remove, &arriving)?;
        let mut draft =
            Draft { before: &self.slots, slots: self.slots.clone(), groups: self.groups.clone(), written: Vec::new() };
        for rule in &leaving {
            draft.leave(rule);
        }
        for rule in &arriving {
            draft.arrive(rule)?;
        }
        let freed = draft.freed();
        let mut same = HashMap::new();
        for new in &arriving {
            // A rule in its own place, as one of a feed is when its list changes: only rows that differ are written.
            let old = self
                .rules
                .get(&new.id)
                .filter(|old| places(&self.slots, &self.groups, old) == places(&draft.slots, &draft.groups, new));
            if let Some(old) = old {
                same.insert(Arc::clone(&new.id), differing(old, new));
            }
        }
        let mut machine = None;
        if requests(&draft.slots) != requests(&self.slots) {
            machine = Some(Arc::new(Machine::build(&requests(&draft.slots))?));
        }

        // Nothing can fail from here on.
        if let Some(machine) = &machine {
            self.machine = Arc::clone(machine);
            self.table = self.table.wrapping_add(1);
        }
        let Draft { slots: kept, groups, written: slots, .. } = draft;
        self.slots = kept;
        let renamed = renamed(&self.groups, &groups);
        self.groups = groups;
        self.generation += 1;
        let touched = self.take(&leaving, &arriving, same);
        let (mut rows, mut gone) = (Vec::new(), Vec::new());
        for prefix in touched {
            match self.row(prefix) {
                Some(row) => rows.push((prefix, row)),
                None => gone.push(prefix),
            }
        }
        Ok(Change { generation: self.generation, slots, freed, rows, gone, machine, renamed, bank: self.bank() })
    }

    /// Refuses a prefix that would lie in more others than the kernel half looks at.
    fn nested(&self, remove: &[Arc<str>], arriving: &[Arc<Rule>]) -> Result<(), SetError> {
        let new: HashSet<Prefix> = arriving.iter().flat_map(|rule| &rule.clients).copied().collect();
        let lengths: BTreeSet<u8> = self.lengths.keys().copied().chain(new.iter().map(|prefix| prefix.len)).collect();
        if lengths.len() <= NESTED as usize || new.is_empty() {
            return Ok(());
        }
        let removed: HashSet<&str> = remove.iter().map(|id| &**id).collect();
        let stays = |users: &Vec<Arc<Rule>>| users.iter().any(|rule| !removed.contains(&*rule.id));
        let around = |prefix: &Prefix| {
            let outer = lengths.range(..prefix.len).map(|len| prefix.cut(*len));
            outer.filter(|outer| new.contains(outer) || self.rows.get(outer).is_some_and(stays)).count()
        };
        // Old ones that lie in a new one count anew; of many new ones all old ones are asked.
        let few = new.len() <= FEW;
        let old =
            self.rows.iter().filter(|(row, users)| (!few || new.iter().any(|new| new.covers(row))) && stays(users));
        let deep = new.iter().chain(old.map(|(row, _)| row)).find(|prefix| around(prefix) >= NESTED as usize);
        deep.map_or(Ok(()), |prefix| Err(SetError::Nested(*prefix)))
    }

    fn leaving(&self, remove: &[Arc<str>]) -> Result<Vec<Arc<Rule>>, SetError> {
        let mut seen = BTreeSet::new();
        remove
            .iter()
            .filter(|id| seen.insert(Arc::clone(id)))
            .map(|id| self.rules.get(id).cloned().ok_or_else(|| SetError::Unknown(Arc::clone(id))))
            .collect()
    }

    fn arriving(&self, remove: &[Arc<str>], add: Vec<Rule>) -> Result<Vec<Arc<Rule>>, SetError> {
        let mut seen = HashSet::new();
        for rule in &add {
            let kept = self.rules.contains_key(&rule.id) && !remove.contains(&rule.id);
            if kept || !seen.insert(Arc::clone(&rule.id)) {
                return Err(SetError::Exists(Arc::clone(&rule.id)));
            }
        }
        Ok(add.into_iter().map(Arc::new).collect())
    }

    /// Takes the rules; returns the prefixes whose rows may differ. `same`: rules that only come anew, and of which
    /// prefixes it is known.
    fn take(
        &mut self,
        leaving: &[Arc<Rule>],
        arriving: &[Arc<Rule>],
        same: HashMap<Arc<str>, Vec<Prefix>>,
    ) -> Vec<Prefix> {
        let mut touched = Vec::new();
        for rule in leaving.iter().chain(arriving).filter(|rule| !same.contains_key(&rule.id)) {
            touched.extend_from_slice(&rule.clients);
        }
        touched.extend(same.into_values().flatten());
        for rule in leaving {
            self.rules.remove(&rule.id);
            self.free.remove(&rule.id);
            if let Some(until) = rule.until {
                self.ends.remove(&(until.monotonic_ns, Arc::clone(&rule.id)));
            }
            for prefix in &rule.clients {
                if let Some(many) = self.lengths.get_mut(&prefix.len) {
                    *many -= 1;
                    if *many == 0 {
                        self.lengths.remove(&prefix.len);
                    }
                }
                if let Some(users) = self.rows.get_mut(prefix) {
                    users.retain(|user| user.id != rule.id);
                    if users.is_empty() {
                        self.rows.remove(prefix);
                    }
                }
            }
        }
        for rule in arriving {
            self.rules.insert(Arc::clone(&rule.id), Arc::clone(rule));
            if let Some(until) = rule.until {
                self.ends.insert((until.monotonic_ns, Arc::clone(&rule.id)));
            }
            if rule.clients.is_empty() {
                self.free.insert(Arc::clone(&rule.id), Arc::clone(rule));
            }
            for prefix in &rule.clients {
                *self.lengths.entry(prefix.len).or_default() += 1;
                self.rows.entry(*prefix).or_default().push(Arc::clone(rule));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// The row of a prefix. Where rules of one prefix end at different times, the earliest end counts in the kernel half
    /// (it must never drop for too long), and the row is written anew when it comes.
    #[must_use]
    pub fn row(&self, prefix: Prefix) -> Option<AddressRow> {
        let users = self.rows.get(&prefix)?;
        let mut row = AddressRow { len: u32::from(prefix.len), from: self.active(), ..AddressRow::default() };
        for rule in users {
            for shape in shapes(rule, &self.group_bits(rule)) {
                if let Some(slot) = position(&self.slots, &shape) {
                    machine::set(&mut row.slots, slot);
                }
            }
            row.until = match (row.until, rule.end_of(&prefix)) {
                (until, 0) => until,
                (0, end) => end,
                (until, end) => until.min(end),
            };
        }
        Some(row)
    }

    /// Rules whose time is over.
    #[must_use]
    pub fn expired(&self, monotonic_ns: u64) -> Vec<Arc<str>> {
        let over = self.ends.iter().take_while(|(end, _)| *end <= monotonic_ns);
        over.map(|(_, id)| Arc::clone(id)).collect()
    }

    fn group_bits(&self, rule: &Rule) -> GroupBits {
        bits(&self.groups, rule)
    }

    fn bank(&self) -> Bank {
        let (mut any, mut request): (Mask, Mask) = ([0; 4], [0; 4]);
        let (mut identity, mut pairs) = (0, 0);
        for (at, kept) in self.slots.iter().enumerate() {
            let Some(Kept { shape, slot, .. }) = kept else { continue };
            if shape.any_client {
                machine::set(&mut any, at as u16);
            }
            if shape.reads_requests {
                machine::set(&mut request, at as u16);
            }
            identity |= u32::from(slot.client_groups | slot.server_groups != 0);
            pairs |= u32::from(slot.client_groups != 0 && slot.server_groups != 0);
        }
        Bank { any, request, table: self.table, enforce: u32::from(self.mode == Mode::Enforce), identity, pairs }
    }
}

/// Group bits of a rule's two ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GroupBits {
    pub(super) client: u64,
    pub(super) server: u64,
}

fn bits(groups: &[Option<(Who, u32)>], rule: &Rule) -> GroupBits {
    let of = |who: &[Who]| {
        let known = groups.iter().enumerate().filter_map(|(bit, group)| group.as_ref().map(|(who, _)| (bit, who)));
        known.filter(|(_, group)| who.contains(group)).fold(0, |bits, (bit, _)| bits | 1 << bit)
    };
    GroupBits { client: of(&rule.client_who), server: of(&rule.server_who) }
}

/// The slots of a rule.
fn places(slots: &[Option<Kept>], groups: &[Option<(Who, u32)>], rule: &Rule) -> Vec<Option<u16>> {
    shapes(rule, &bits(groups, rule)).iter().map(|shape| position(slots, shape)).collect()
}

/// Prefixes that only one of two rules with the same slots has, or for which they end at different times.
fn differing(old: &Rule, new: &Rule) -> Vec<Prefix> {
    let ends = |rule: &Rule| rule.clients.iter().map(|prefix| (*prefix, rule.end_of(prefix))).collect::<Vec<_>>();
    let (old, new) = (ends(old), ends(new));
    let only = |some: &[(Prefix, u64)], others: &[(Prefix, u64)]| {
        some.iter().filter(|one| others.binary_search(one).is_err()).map(|(prefix, _)| *prefix).collect::<Vec<_>>()
    };
    [only(&old, &new), only(&new, &old)].concat()
}

fn position(slots: &[Option<Kept>], shape: &Shape) -> Option<u16> {
    slots.iter().position(|kept| kept.as_ref().is_some_and(|kept| kept.shape == *shape)).map(|at| at as u16)
}

fn requests(slots: &[Option<Kept>]) -> Vec<(u16, &Conditions)> {
    slots
        .iter()
        .enumerate()
        .filter_map(|(at, kept)| kept.as_ref().map(|kept| (at as u16, kept)))
        .filter(|(_, kept)| kept.shape.reads_requests)
        .map(|(at, kept)| (at, &kept.shape.request))
        .collect()
}

/// Bits that stand for another identity in `new` than in `old`.
fn renamed(old: &[Option<(Who, u32)>], new: &[Option<(Who, u32)>]) -> u64 {
    let who = |group: &Option<(Who, u32)>| group.as_ref().map(|(who, _)| who.clone());
    let pairs = old.iter().zip(new).enumerate();
    pairs.filter(|(_, (old, new))| new.is_some() && who(old) != who(new)).fold(0, |bits, (bit, _)| bits | 1 << bit)
}

/// Slots and groups as they would be.
struct Draft<'a> {
    before: &'a [Option<Kept>],
    slots: Vec<Option<Kept>>,
    groups: Vec<Option<(Who, u32)>>,
    written: Vec<(u16, Slot)>,
}

impl Draft<'_> {
    fn leave(&mut self, rule: &Rule) {
        for shape in shapes(rule, &bits(&self.groups, rule)) {
            if let Some(at) = position(&self.slots, &shape)
                && let Some(kept) = &mut self.slots[usize::from(at)]
            {
                kept.users -= 1;
                if kept.users == 0 {
                    self.slots[usize::from(at)] = None;
                }
            }
        }
        for who in rule.client_who.iter().chain(&rule.server_who) {
            for group in &mut self.groups {
                if let Some((_, users)) = group.as_mut().filter(|(known, _)| known == who) {
                    *users -= 1;
                    if *users == 0 {
                        *group = None;
                    }
                }
            }
        }
    }

    fn arrive(&mut self, rule: &Arc<Rule>) -> Result<(), SetError> {
        for who in rule.client_who.iter().chain(&rule.server_who) {
            if let Some((_, users)) = self.groups.iter_mut().flatten().find(|(known, _)| known == who) {
                *users += 1;
            } else {
                let free = self.groups.iter_mut().find(|group| group.is_none());
                *free.ok_or_else(|| SetError::Groups(Arc::clone(&rule.id)))? = Some((who.clone(), 1));
            }
        }
        for shape in shapes(rule, &bits(&self.groups, rule)) {
            if let Some(at) = position(&self.slots, &shape) {
                if let Some(kept) = &mut self.slots[usize::from(at)] {
                    kept.users += 1;
                }
                continue;
            }
            // The slot of a rule that leaves and comes again stays as it is.
            let before = self.before.iter().zip(&self.slots);
            let same = before
                .into_iter()
                .position(|(old, new)| new.is_none() && old.as_ref().is_some_and(|old| old.shape == shape));
            if let Some(at) = same {
                let slot = shape.slot();
                self.slots[at] = Some(Kept { shape, slot, users: 1 });
                continue;
            }
            // A slot that the old generation still reads is not written.
            let both = self.slots.iter().zip(self.before);
            let free = both.into_iter().position(|(new, old)| new.is_none() && old.is_none());
            let free = free.ok_or_else(|| SetError::Slots(Arc::clone(&rule.id)))?;
            let slot = shape.slot();
            self.slots[free] = Some(Kept { shape, slot, users: 1 });
            self.written.push((free as u16, slot));
        }
        Ok(())
    }

    fn freed(&self) -> Vec<u16> {
        let pairs = self.before.iter().zip(&self.slots).enumerate();
        pairs.filter(|(_, (old, new))| old.is_some() && new.is_none()).map(|(at, _)| at as u16).collect()
    }
}
