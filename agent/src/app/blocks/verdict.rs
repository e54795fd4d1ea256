//! What the kernel half refused.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use weir_common::conn::Role;
use weir_common::verdict::{VERDICT_AMBIGUOUS, VERDICT_CONNECTION, VERDICT_LIMITED, VERDICT_RESET};

use super::Blocks;
use crate::clock;
use crate::kernel::destroy::Victim;
use crate::model::{Service, Verdict};
use crate::policy::rule::Action;

impl Blocks {
    /// Takes a verdict that the kernel half carried out: counts it, ends the connection where the rule asks for it, and
    /// says what to call the request. `unix_ns`: when it was; `sender`: whose call was refused where it was sent.
    pub(in crate::app) fn refused(
        &self,
        told: &weir_common::verdict::Verdict,
        unix_ns: u64,
        sender: Option<&Service>,
    ) -> Verdict {
        if told.flags & VERDICT_RESET != 0
            && let Some(destroyer) = &self.destroyer
            && !destroyer.end(Victim::of(told))
        {
            let left_out = self.in_force.tally().said.line();
            if let Some(left_out) = left_out {
                tracing::warn!(left_out, "too many refused connections wait for their end; what they send is dropped");
            }
        }
        let client = if told.role == Role::SERVER.0 { told.ends.remote } else { told.ends.local };
        let client = IpAddr::from(Ipv6Addr::from(client)).to_canonical();
        // Rules that share a slot ask for the same; the first by name is charged.
        let rule = self.in_force.set().of_slot(told.slot, client).min_by(|a, b| a.id.cmp(&b.id)).map(Arc::clone);
        let Some(rule) = rule else {
            // The rule was removed since.
            return Verdict::Dropped { rule: "removed".into(), reason: "its rule was removed since".into() };
        };
        let mut tally = self.in_force.tally();
        tally.hits.entry(Arc::clone(&rule.id)).or_default().add(client, unix_ns);
        // A limit refuses a part of what everybody sends: that is its purpose.
        if told.role == Role::SERVER.0 && rule.action == Action::Deny {
            tally.breaker.refused(told.ends.local_port, client, &rule.id);
        }
        if let Some(sender) = sender {
            self.failures().refused(&sender.name, &rule.id, clock::monotonic_ns());
        }
        let dropped = Verdict::Dropped { rule: Arc::clone(&rule.id), reason: Arc::clone(&rule.reason) };
        let Some(left_out) = tally.said.line() else { return dropped };
        // Whoever reads the log may be slow; nobody else is to wait for it.
        drop(tally);
        tracing::info!(
            rule = %rule.id,
            reason = %rule.reason,
            %client,
            server.port = if told.role == Role::SERVER.0 { told.ends.local_port } else { told.ends.remote_port },
            what = if told.flags & VERDICT_CONNECTION == 0 { "request" } else { "connection" },
            ambiguous = told.flags & VERDICT_AMBIGUOUS != 0,
            limited = told.flags & VERDICT_LIMITED != 0,
            left_out,
            "dropped"
        );
        dropped
    }
}
