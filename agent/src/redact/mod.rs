//! What of a call may leave the process, and the name of its endpoint.
//!
//! Every call passes [`Redactor::apply`] before it is kept, shown or exported. Three levels:
//!
//! | | strict (default) | standard, inspect |
//! |---|---|---|
//! | method, status, sizes, times, peers | kept | kept |
//! | route template | set | set |
//! | target | emptied | path; of the query, values of allowed keys; no user information, no fragment |
//! | host | of a client's call, where it is a host's name: it is the peer's | kept, no user information |
//! | user agent | removed | kept where `privacy.headers` names it |
//! | command line | removed | kept |
//!
//! Levels `standard` and `inspect` differ only in what is read of bodies.
//!
//! **Templates.** A path that fits a configured template is shown under it, the first one that fits. Other paths get one
//! by their shape: segments that look like values (numbers, UUIDs, dates, digests, tokens, addresses, anything long or
//! percent-encoded) become `{id}`. What is left is bounded for each service and method: a place in the path with more
//! than 64 different words becomes `{*}`, and beyond the limit of templates every further path is `/{*}`. Only hashes of
//! path segments are remembered, never their text.

#![forbid(unsafe_code)]

mod learned;
mod patterns;
mod redactor;
mod shape;
mod target;
#[cfg(test)]
mod tests;

pub use patterns::{BadTemplate, Patterns};
pub use redactor::{Level, Redactor, Settings};
