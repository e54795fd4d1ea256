//! The Prometheus page and health, for scrapers and orchestrators on this node.

mod own;
mod page;
mod server;
mod text;

pub use own::{FeedState, Program, Snapshot};
pub use server::{ListenError, Page, Server};

#[cfg(test)]
mod tests;
