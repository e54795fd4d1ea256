//! The rules in force and the rows they come to. A change is checked whole before anything of it is taken, and comes
//! out as the few rows that differ: one address among 100 000 is one row.

mod change;
mod draft;
mod look;
mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weir_common::verdict::{AddressRow, Bank, NESTED, PREFIXES, SLOTS, Slot};

use super::machine::{Machine, MachineError};
use super::prefix::Prefix;
use super::rule::{Mode, Rule, Who};

pub(super) use draft::GroupBits;
use draft::Kept;

/// Rules that a node keeps, all together.
pub const RULES_MAX: usize = 300_000;
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

    /// Sets the node's mode.
    #[must_use]
    pub fn set_mode(&mut self, mode: Mode) -> Change {
        self.mode = mode;
        self.generation += 1;
        Change { generation: self.generation, bank: self.bank(), ..Change::default() }
    }
}
