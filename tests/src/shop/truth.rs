//! What the shop's programs wrote themselves of what they called.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::{PLACES, STREET, Shop, place, read_log};

/// Who calls whom.
pub type Pair = (String, String);

/// What is known of calls between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// Of them, those answered with 500 or more.
    pub errors: u64,
    /// Connections to a store.
    pub connections: u64,
}

/// The whole truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// By caller and called.
    pub edges: BTreeMap<Pair, Counts>,
    /// Called services by order and caller.
    pub called: BTreeMap<(u64, String), String>,
}

/// The name that an agent has for whom it knows by address only.
#[must_use]
pub fn external(address: std::net::Ipv4Addr) -> String {
    format!("external:{address}")
}

impl Truth {
    /// Reads the logs; the customers' orders must all be in them.
    pub fn of(shop: &Shop) -> Result<Self> {
        let mut truth = Self::default();
        let [a, _] = &shop.hosts;
        let nginx = a.nginx.as_ref().context("no nginx")?;
        for line in nginx.logged(usize::try_from(shop.ordered())?)? {
            let order = line.target.strip_prefix("/orders/").and_then(|order| order.parse().ok());
            let order: u64 = order.with_context(|| format!("nginx was asked for {}", line.target))?;
            truth.call(&external(STREET), "nginx", line.status);
            truth.call("nginx", "cart", line.status);
            truth.called.insert((order, "nginx".to_owned()), "cart".to_owned());
        }
        for place in PLACES {
            let path = shop.log(place.name);
            // Stores write none.
            let text = if path.exists() { read_log(&path)? } else { continue };
            for line in text.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                match words.as_slice() {
                    [_, store] => truth.edge(place.name, store).connections += 1,
                    [order, called, status] => {
                        truth.call(place.name, called, status.parse()?);
                        let key = (order.parse()?, place.name.to_owned());
                        let twice = truth.called.insert(key, (*called).to_owned());
                        ensure!(twice.is_none(), "{} called twice for order {order}", place.name);
                    }
                    _ => anyhow::bail!("{} logged {line:?}", place.name),
                }
            }
        }
        Ok(truth)
    }

    fn edge(&mut self, from: &str, to: &str) -> &mut Counts {
        self.edges.entry((from.to_owned(), to.to_owned())).or_default()
    }

    fn call(&mut self, from: &str, to: &str, status: u16) {
        let edge = self.edge(from, to);
        edge.calls += 1;
        edge.errors += u64::from(status >= 500);
    }

    /// Orders that nginx took.
    #[must_use]
    pub fn orders(&self) -> Vec<u64> {
        self.called.keys().filter(|(_, caller)| caller == "nginx").map(|(order, _)| *order).collect()
    }

    /// Calls between services, by pair: what spans can tell.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Pair, u64> {
        let calls = self.edges.iter().filter(|(_, counts)| counts.calls > 0);
        calls.map(|(pair, counts)| (pair.clone(), counts.calls)).collect()
    }

    /// Of [`Self::calls`], those whose caller is a service of the shop.
    #[must_use]
    pub fn inner_calls(&self) -> BTreeMap<Pair, u64> {
        let mut calls = self.calls();
        calls.retain(|(caller, _), _| place(caller).is_ok());
        calls
    }
}
