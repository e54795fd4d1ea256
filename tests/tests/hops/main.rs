//! What stands between a client and its server: proxies that are trusted or not, load balancers, address translation.

mod claims;
mod nat;
mod proxies;
mod stage;
