//! Real servers, clients and load tools, each with its own count of what it did.

pub mod apache;
pub mod bulk;
pub mod chain;
pub mod flood;
pub mod foreign;
pub mod load;
pub mod nginx;
pub mod odd;
pub mod proxy;
pub mod runtime;
