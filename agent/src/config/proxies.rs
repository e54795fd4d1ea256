//! Proxies that are trusted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use crate::policy::proxies::{Header, Proxies};

/// A header that names a call's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WrittenHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Proxies and load balancers whose word on a call's client counts: it is told as `client.address`. What others say is
/// ignored, and counted. Drop rules go by the connection's own address in any case.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenProxies {
    /// Their addresses, alone or with a prefix length: `10.0.0.0/8`. Of the hops that they name, the nearest that is
    /// not among these is the client.
    pub trusted: Vec<String>,
    /// What they may say it by: `x-forwarded-for`, `forwarded`; the PROXY protocol always counts. A header that they do
    /// not write themselves does not belong here: clients could. Two that contradict each other are ignored.
    pub headers: Vec<WrittenHeader>,
}

impl Default for WrittenProxies {
    fn default() -> Self {
        Self { trusted: Vec::new(), headers: vec![WrittenHeader::XForwardedFor, WrittenHeader::Forwarded] }
    }
}

impl Check<'_> {
    pub(super) fn proxies(&mut self, written: &WrittenProxies) -> Proxies {
        let mut trusted = Vec::new();
        for (index, text) in written.trusted.iter().enumerate() {
            match text.parse() {
                Ok(prefix) => trusted.push(prefix),
                Err(error) => {
                    self.wrong_at(&format!("proxies.trusted.{index}"), &format!("`proxies.trusted`: {error}"));
                }
            }
        }
        let headers = written.headers.iter().map(|header| match header {
            WrittenHeader::XForwardedFor => Header::XForwardedFor,
            WrittenHeader::Forwarded => Header::Forwarded,
        });
        Proxies { trusted, headers: headers.collect() }
    }
}
