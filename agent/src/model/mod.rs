//! The vocabulary: what a call is, who makes it, and over what connection.

mod call;
mod connection;
mod endpoint;
mod event;
#[cfg(test)]
pub(crate) mod example;
mod exchange;
mod filter;
mod forwarded;
mod hosts;
pub mod json;
mod lookup;
mod pattern;
#[cfg(test)]
pub(crate) mod sample;
pub mod semconv;
mod service;
pub mod shown;

pub use call::{Call, End, Http, Message, Method, Operation, Stamp, Thread, TraceContext, Version};
pub use connection::{Connection, EndedConnection, OpenConnection, Role, Visibility};
pub use endpoint::Endpoint;
pub use event::Event;
pub use exchange::{Exchange, Ids, Kind, Link, Verdict};
pub use filter::{Filter, FilterError, Statuses};
pub use forwarded::{Forwarded, HOPS, Hops};
pub use hosts::Hosts;
pub use lookup::{Addresses, Lookup};
pub use pattern::fits;
pub use service::{Evidence, Process, Service};
