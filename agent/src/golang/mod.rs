//! Go executables: what the kernel half must know to tell the goroutines of their processes apart
//! (`agent-ebpf/src/goroutine.rs`). Stripped ones too: the table of functions and the version stay in the file.

mod buildinfo;
mod executable;
mod pclntab;
mod place;
mod version;

pub use executable::{Executable, Unknown};
pub use place::{Inode, bias, pids};
