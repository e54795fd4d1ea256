//! Who holds a socket: process → container, pod, systemd unit → service.

mod cache;
mod cgroup;
mod cgroupfs;
mod environ;
pub mod kube;
mod lineage;
mod name;
mod names;
mod procfs;
mod registry;
mod resolver;
mod rules;
mod script;
mod sockets;

pub use names::Heard;
pub use registry::Seen;
pub use resolver::{Counts, Resolver};
pub use rules::{Rule, Settings, SettingsError, When};
pub use sockets::{Socket, Sockets, begin, look};
