//! What the tests on the real kernel share: the agent under test, real peers, and the truth to compare with.
//!
//! Everything is a black box: the `weir` binary is started as its user would start it and asked through its own
//! doors; the truth comes from the applications' side (their logs, their counters, the bytes on their sockets).

pub mod agent;
pub mod backends;
pub mod bpf;
pub mod call;
pub mod cgroup;
pub mod cluster;
pub mod collector;
pub mod crowd;
pub mod dns;
pub mod kubernetes;
pub mod ledger;
pub mod netns;
pub mod peers;
pub mod place;
pub mod process;
pub mod receiver;
pub mod rules;
pub mod script;
pub mod shop;
pub mod tmux;
pub mod truth;
pub mod tun;
pub mod uring;
pub mod wait;
pub mod wire;
