//! Changes one after the other come to the same rows as all rules at once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use proptest::prelude::*;
use weir_common::verdict::{AddressRow, Slot};

use super::check::{Arrival, Nowhere, check_list};
use super::prefix::Prefix;
use super::rule::{Rule, Source};
use super::set::{Change, RuleSet};
use super::written::WrittenRule;

/// A rule `id` about some of 16 networks of different lengths; `kind` chooses what else it says.
fn rule(id: u8, clients: u16, kind: u8) -> Rule {
    let mut written = serde_json::json!({
        "id": format!("r{id}"), "force": true,
        "server": { "port": 80 + kind % 3 },
        "mode": if kind & 4 == 0 { "monitor" } else { "enforce" },
        "ttl": if kind & 8 == 0 { None } else { Some("1h") },
        "method": if kind & 16 == 0 { None } else { Some("POST") },
    });
    written.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let written: WrittenRule = serde_json::from_value(written).unwrap();
    let arrival = Arrival {
        source: Source::Feed("x".into()),
        author: "t".into(),
        monotonic_ns: u64::from(kind / 32) + 1,
        unix_ns: 1,
        id: "made".into(),
    };
    let bits = (0..16).filter(|bit| clients & 1 << bit != 0);
    let list =
        bits.map(|bit| Prefix::new(Ipv4Addr::new(10, bit / 4, 0, bit % 4).into(), if bit % 4 == 0 { 16 } else { 32 }));
    let mut rule = check_list(&written, list.collect(), &arrival, &Nowhere).unwrap();
    if kind & 64 != 0 {
        rule.ends = rule.clients.iter().map(|prefix| u64::from(prefix.len % 2) + u64::from(clients)).collect();
    }
    rule
}

/// What the kernel half would hold.
#[derive(Default)]
struct Tables {
    slots: BTreeMap<u16, Slot>,
    rows: BTreeMap<Prefix, AddressRow>,
}

impl Tables {
    /// Applies a change as the gate does; gives rows written or removed.
    fn apply(&mut self, change: &Change) -> usize {
        self.slots.extend(change.slots.iter().copied());
        self.rows.extend(change.rows.iter().copied());
        for slot in &change.freed {
            self.slots.remove(slot);
        }
        for prefix in &change.gone {
            self.rows.remove(prefix);
        }
        change.rows.len() + change.gone.len()
    }

    fn agrees(&self, set: &RuleSet) -> Result<(), TestCaseError> {
        let whole = set.whole();
        prop_assert_eq!(&self.slots, &whole.slots.into_iter().collect::<BTreeMap<_, _>>());
        let rows: BTreeMap<_, _> = whole.rows.into_iter().collect();
        prop_assert_eq!(self.rows.keys().collect::<Vec<_>>(), rows.keys().collect::<Vec<_>>());
        for (prefix, row) in &self.rows {
            prop_assert!(row.from <= set.active());
            prop_assert_eq!(&AddressRow { from: rows[prefix].from, ..*row }, &rows[prefix]);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn changes_come_to_what_all_rules_come_to(steps in prop::collection::vec((0..3_u8, any::<u16>(), any::<u8>()), 1..30)) {
        let (mut set, mut tables) = (RuleSet::new().unwrap(), Tables::default());
        for (id, clients, kind) in steps {
            let old: Vec<Arc<str>> = set.get(&format!("r{id}")).map(|rule| Arc::clone(&rule.id)).into_iter().collect();
            let new = if clients == 0 { Vec::new() } else { vec![rule(id, clients, kind)] };
            let change = set.change(&old, new).unwrap();
            tables.apply(&change);
            tables.agrees(&set)?;
        }
    }
}

#[test]
fn a_rule_in_its_own_place_writes_what_differs() {
    let (mut set, mut tables) = (RuleSet::new().unwrap(), Tables::default());
    assert_eq!(tables.apply(&set.change(&[], vec![rule(1, 0xeeee, 4)]).unwrap()), 12);
    let change = set.change(&["r1".into()], vec![rule(1, 0xeee2, 4)]).unwrap();
    assert!(change.slots.is_empty() && change.freed.is_empty() && change.machine.is_none());
    assert_eq!(tables.apply(&change), 2);
    tables.agrees(&set).unwrap();
    // Another condition is another slot, which every row names.
    let change = set.change(&["r1".into()], vec![rule(1, 0xeee2, 5)]).unwrap();
    assert_eq!((change.slots.len(), change.freed.len(), tables.apply(&change)), (1, 1, 10));
    tables.agrees(&set).unwrap();
}

fn about(id: &str, clients: &[&str]) -> Rule {
    let written = serde_json::from_value(serde_json::json!({ "id": id, "force": true })).unwrap();
    let (source, author) = (Source::Feed("x".into()), "t".into());
    let arrival = Arrival { source, author, monotonic_ns: 1, unix_ns: 1, id: "made".into() };
    let clients = clients.iter().map(|text| text.parse().unwrap()).collect();
    check_list(&written, clients, &arrival, &Nowhere).unwrap()
}

#[test]
fn what_the_kernel_half_would_not_look_at_is_refused() {
    let mut set = RuleSet::new().unwrap();
    let outer = |len: u8| format!("10.0.0.0/{len}");
    for len in 17..25 {
        set.change(&[], vec![about(&format!("r{len}"), &[&outer(len)])]).unwrap();
    }
    // A ninth below, above, and between.
    for (id, prefix, deepest) in [
        ("below", "10.0.0.0/32", "10.0.0.0"),
        ("above", "10.0.0.0/16", "10.0.0.0/24"),
        ("again", "10.0.0.1", "10.0.0.1"),
    ] {
        let error = set.change(&[], vec![about(id, &[prefix])]).unwrap_err().to_string();
        assert!(error.contains("more than 8 client prefixes lie around"), "{error}");
        assert!(error.contains(deepest), "{error}");
    }
    set.change(&[], vec![about("beside", &["10.0.1.7", "10.1.0.0/16"])]).unwrap();
    // In the place of one that goes there is room, and a prefix that two rules have is one.
    set.change(&["r20".into()], vec![about("below", &["10.0.0.0/32"])]).unwrap();
    set.change(&[], vec![about("same", &["10.0.0.0/32"])]).unwrap();
    assert!(set.change(&[], vec![about("r20", &["10.0.0.0/20"])]).is_err());
}

#[test]
fn a_million_is_refused_with_the_reason() {
    let mut set = RuleSet::new().unwrap();
    let one = about("r", &["192.0.2.1"]);
    let many = (0..1_000_000).map(|n| Rule { id: format!("r{n}").into(), ..one.clone() }).collect();
    let error = set.change(&[], many).unwrap_err().to_string();
    assert!(error.starts_with("more than 300000 rules: join addresses"), "{error}");
    let prefixes = (0..1_000_000_u32).map(|n| Prefix::new(Ipv4Addr::from(0x0a00_0000 + 2 * n).into(), 32)).collect();
    let error = set.change(&[], vec![Rule { clients: prefixes, ..one }]).unwrap_err().to_string();
    assert!(error.starts_with("more than 262144 client prefixes: join them"), "{error}");
    assert_eq!((set.rules().len(), set.generation()), (0, 0), "nothing of it was taken");
}
