//! Who is outside: known by a name that DNS gave, or by address.

use std::net::IpAddr;
use std::sync::Arc;

use weir_common::record::Dns;

use super::super::environ::clean;
use super::super::names::{Heard, Named};
use super::ends::End;
use super::{EXTERNALS, Resolver};
use crate::model::{Addresses, Connection, Evidence, Lookup, Role, Service};

impl Resolver {
    /// The service of what is only known by address, or by a name that the wire gave for it (DNS, `Host`, SNI): it is
    /// called `external:` and that, `evidence` says [`Evidence::External`].
    pub fn external(&mut self, name: &str) -> Arc<Service> {
        if let Some(service) = self.externals.get(name) {
            return service.clone();
        }
        let Some(clean) = clean(name) else { return self.unknown.clone() };
        let called = Arc::from(format!("external:{clean}"));
        let service = Arc::new(Service { name: called, evidence: Evidence::External, ..Service::unknown() });
        if self.externals.len() >= EXTERNALS {
            self.externals.clear();
        }
        self.externals.insert(clean, service.clone());
        service
    }

    /// A process of this node asked for the addresses of a name.
    pub fn asked(&mut self, dns: &Dns, lookup: Lookup) {
        self.names.asked(dns.head.conn, dns.netns, dns.tgid, lookup, dns.head.at);
    }

    /// It was answered.
    pub fn answered(&mut self, dns: &Dns, told: &Addresses) -> Heard {
        self.names.answered(dns.head.conn, told, dns.head.at)
    }

    /// The name by which the far end of a connection that was opened here is known, where it is one alone. A connection
    /// is called for its life what it was called when it was opened; one that is older than the agent has no name.
    pub(super) fn outside(&mut self, connection: &Connection) -> Option<Arc<Service>> {
        if connection.role != Role::Client || connection.midway {
            return None;
        }
        let known = self.ends.peek(connection.cookie).and_then(|end| end.outside.clone());
        match known? {
            Named::As(name) => Some(self.external(&name)),
            Named::No | Named::Several => None,
        }
    }

    /// Whether several names could be meant by a connection, by its cookie.
    #[must_use]
    pub fn is_ambiguous(&self, cookie: u64) -> bool {
        self.ends.peek(cookie).is_some_and(|end| end.outside == Some(Named::Several))
    }

    /// A connection was opened from here, or could not be.
    pub(super) fn calls(&mut self, cookie: u64, netns: u64, address: IpAddr, tgid: u32, at: u64) {
        let outside = self.names.of(netns, address, tgid, at);
        if outside != Named::No {
            self.ends.get_or(cookie, End::default).outside = Some(outside);
        }
    }

    /// A connection was never established, and so not announced.
    pub fn failed(&mut self, connection: &Connection) {
        let Connection { cookie, netns, remote, owner, opened_at, role, .. } = connection;
        if *role == Role::Client {
            self.calls(*cookie, *netns, remote.ip(), owner.tgid, *opened_at);
        }
    }
}
