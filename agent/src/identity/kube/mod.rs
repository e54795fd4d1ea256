//! Who a pod is, and who answers under an address, told by the API server of Kubernetes.
//!
//! A task watches the pods of this node, and the cluster's Services and endpoints; what it makes of them goes
//! through a bounded channel to whoever asks [`Book`]. The one who asks never waits: without permission, without an API
//! server, or when that is slow, what was last heard holds, and processes are named as on any other node.

mod addresses;
mod book;
mod documents;
mod follow;
mod owner;
mod pod;
mod policy;
mod reach;
mod state;
mod tests;

mod watch;

pub(super) use book::Book;
pub(super) use pod::Pod;
pub use policy::{Pen, Policies, Policy, PolicyEvent, PolicyName};
pub use reach::Reach;
pub use state::{Kind, Kinds, State, Trouble};
pub use watch::{Change, Settings, Watch, start};
