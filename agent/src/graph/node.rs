//! Who stands at the ends of an edge.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::Equivalent;

use crate::model::semconv::{self, Host};
use crate::model::{Connection, Evidence, Exchange, Kind, Role, Service};

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A service of this node, or one that is proven.
    Service(Arc<str>, Option<Arc<str>>),
    /// Somebody else, by address.
    Address(IpAddr),
    /// Somebody else, by the name that DNS gave, or that its client used.
    Host(Arc<str>),
    /// A process of this node of which nothing is known.
    Unknown,
}

/// A [`Node`], borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NodeRef<'a> {
    Service(&'a Arc<str>, Option<&'a Arc<str>>),
    Address(IpAddr),
    Host(&'a str),
    Unknown,
}

impl Node {
    pub(super) fn borrow(&self) -> NodeRef<'_> {
        match self {
            Self::Service(name, namespace) => NodeRef::Service(name, namespace.as_ref()),
            Self::Address(address) => NodeRef::Address(*address),
            Self::Host(name) => NodeRef::Host(name),
            Self::Unknown => NodeRef::Unknown,
        }
    }
}

impl<'a> NodeRef<'a> {
    /// A process of this node.
    pub(super) fn own(service: &'a Service) -> Self {
        Self::known(service).unwrap_or(Self::Unknown)
    }

    fn known(service: &'a Service) -> Option<Self> {
        match service.evidence {
            Evidence::Unknown => None,
            Evidence::External => service.name.strip_prefix("external:").map(Self::Host),
            _ => Some(Self::Service(&service.name, service.namespace.as_ref())),
        }
    }

    /// The other end of a call: proven, or by the name that DNS gave, or that the client used, or by its address.
    pub(super) fn peer(exchange: &'a Exchange) -> Self {
        if let Some(known) = exchange.peer.as_deref().and_then(Self::known) {
            return known;
        }
        let address = exchange.connection.remote.ip();
        if exchange.kind == Kind::Client
            && let Host::Name(name) = semconv::server(exchange).address
            && name.parse::<IpAddr>().is_err()
        {
            return Self::Host(name);
        }
        Self::Address(address)
    }

    /// By what the client called the server, where that was translated.
    pub(super) fn via(exchange: &'a Exchange) -> Option<Self> {
        Self::known(exchange.via.as_deref()?)
    }

    /// The other end of a connection: proven, or by the name that DNS gave, or that the TLS client asked for, or by its
    /// address.
    pub(super) fn end(peer: Option<&'a Service>, connection: &Connection, server_name: Option<&'a str>) -> Self {
        let asked = server_name.filter(|_| connection.role == Role::Client).map(Self::Host);
        peer.and_then(Self::known).or(asked).unwrap_or(Self::Address(connection.remote.ip()))
    }

    /// Whether it says more than an address.
    pub(super) fn is_service(self) -> bool {
        matches!(self, Self::Service(..))
    }

    pub(super) fn owned(self) -> Node {
        match self {
            Self::Service(name, namespace) => Node::Service(Arc::clone(name), namespace.cloned()),
            Self::Address(address) => Node::Address(address),
            Self::Host(name) => Node::Host(name.into()),
            Self::Unknown => Node::Unknown,
        }
    }
}

/// What an edge is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub client: Node,
    pub server: Node,
    pub protocol: &'static str,
    pub port: u16,
}

/// A [`Key`], borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyRef<'a> {
    pub client: NodeRef<'a>,
    pub server: NodeRef<'a>,
    pub protocol: &'static str,
    pub port: u16,
}

impl Key {
    pub(super) fn borrow(&self) -> KeyRef<'_> {
        KeyRef { client: self.client.borrow(), server: self.server.borrow(), protocol: self.protocol, port: self.port }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl KeyRef<'_> {
    pub(super) fn owned(self) -> Key {
        Key { client: self.client.owned(), server: self.server.owned(), protocol: self.protocol, port: self.port }
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.borrow()
    }
}
