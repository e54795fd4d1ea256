//! The kernel, from user space: facts (what it can do) → plan (what to load) → load → read.

pub mod addresses;
mod batch;
pub mod cgroup;
pub mod decode;
pub mod destroy;
pub mod facts;
pub mod gate;
pub mod goroutines;
pub mod layout;
pub mod level;
mod link;
pub mod load;
pub mod plan;
pub mod ring;
pub mod tables;
