//! Who a pod is, and who answers under an address, told by the API server of Kubernetes.
//!
//! A task watches the pods of this node, and the cluster's Services and endpoints; what it makes of them goes
//! through a bounded channel to whoever asks [`Book`]. The one who asks never waits: without permission, without an API
//! server, or when that is slow, what was last heard holds, and processes are named as on any other node.
//!
//! # A cluster of 5 000 nodes
//!
//! What an agent hears must not grow with the cluster, and what all of them ask for must not grow with its square. Pods
//! are asked for by node, so both hold for them. Services and slices go to every node, as they do for kube-proxy; with
//! `kubernetes.cluster` pods and nodes do, too, which is for some hundred nodes: 150 000 pods that change once an hour
//! come to 40 changes a second, each sent 5 000 times by the API server.
//!
//! Beyond that a shared cache takes its place, which is designed here and not built: a Deployment of three, the only ones
//! that follow pods, nodes, Services and slices, keeps `address → (kind, namespace, name, workload, node, version)`, some
//! 100 bytes an address, 40 MB in all. An agent asks it for addresses that it met and does not know, over one
//! connection, a hundred in a question, and keeps the answers, also "nobody", as long as their connections and for a
//! minute (LRU, 16 384); the cache remembers for each connection which addresses it was asked for and tells when one of
//! them is another's. So traffic goes with the peers that a node meets. An agent that gets no answer within 100 ms names
//! the address alone and asks again; one that finds no cache asks the API server as without it. The three are told
//! apart by a hash of the address, so that each holds a third of the questions and two of them can carry all.

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
