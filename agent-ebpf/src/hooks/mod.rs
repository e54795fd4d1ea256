//! The hooks, each with what it needs of the kernel.

/// 5.10: outgoing connections before they are made.
mod cgroup_connect;
/// 5.10: every segment of every socket below the attached cgroup.
mod cgroup_skb;
/// 5.10: birth of sockets.
mod cgroup_sock;
/// 5.10: verdicts.
mod gate;
/// 5.10: requests that goroutines hand over.
mod go_call;
/// 5.11: what processes read.
mod rcv_space;
/// 5.10: processes.
mod sched;
/// 5.10: connections established and closed.
mod sock_ops;
