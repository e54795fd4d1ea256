//! The kernel, from user space: facts (what it can do) → plan (what to load) → load → read.

pub mod cgroup;
pub mod decode;
pub mod facts;
pub mod layout;
pub mod load;
pub mod plan;
pub mod ring;
pub mod tables;
