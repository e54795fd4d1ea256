//! What the kernel half must know of a Go process to tell its goroutines apart.

/// Functions that a process may start such goroutines with.
pub const SERVES: usize = 4;

/// A Go process, as it lies in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoProcess {
    /// Where functions begin whose goroutines serve one connection each; 0: no further one.
    pub serves: [u64; SERVES],
    /// Bytes from the thread's base to the address of the goroutine that it runs.
    pub running: i32,
    /// Offset of `runtime.g.goid`.
    pub id: u32,
    /// Offset of `runtime.g.startpc`.
    pub start: u32,
    /// Offset of `net/http.persistConn.conn`.
    pub conn: u32,
}
