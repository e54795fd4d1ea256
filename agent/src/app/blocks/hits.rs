//! What rules met.

use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::model::json::time;

/// Clients of a rule that are counted one by one; calls of further ones are counted together.
const CLIENTS: usize = 1024;
/// Clients of a rule that are shown.
const SHOWN: usize = 10;

/// What a rule met.
#[derive(Debug, Default)]
pub(super) struct Hits {
    pub(super) calls: u64,
    /// When the last one was, nanoseconds since the Unix epoch.
    pub(super) last_unix_ns: u64,
    clients: HashMap<IpAddr, u64>,
    others: u64,
}

impl Hits {
    /// A call of a client.
    pub(super) fn add(&mut self, client: IpAddr, unix_ns: u64) {
        self.calls += 1;
        self.last_unix_ns = self.last_unix_ns.max(unix_ns);
        if self.clients.len() < CLIENTS || self.clients.contains_key(&client) {
            *self.clients.entry(client).or_default() += 1;
        } else {
            self.others += 1;
        }
    }

    /// Adds it to a rule as it is told.
    pub(super) fn tell(&self, told: &mut Value) {
        let mut top: Vec<_> = self.clients.iter().collect();
        top.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let top = top.iter().take(SHOWN).map(|(client, calls)| json!({ "client": client, "calls": calls }));
        told["hits"] = self.calls.into();
        told["last_hit"] = time(self.last_unix_ns).into();
        told["top_clients"] = top.collect();
        told["calls_of_other_clients"] = self.others.into();
    }
}
