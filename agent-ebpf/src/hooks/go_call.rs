//! Requests of Go's HTTP client: whose they are.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;

use crate::goroutine;

/// Places of the x86-64 registers RAX and R14 in `struct pt_regs`, in words. Go passes the receiver in the one and keeps
/// the running goroutine in the other (`src/cmd/compile/abi-internal.md`).
const RAX: usize = 10;
const R14: usize = 1;

/// `net/http.(*persistConn).roundTrip`: a goroutine has a connection to itself, and waits for the answer.
#[uprobe]
pub(crate) fn weir_go_call(ctx: ProbeContext) -> u32 {
    let regs: *const u64 = ctx.as_ptr().cast();
    // SAFETY: both are inside the registers that the kernel hands over.
    let (connection, g) = unsafe { (regs.add(RAX).read(), regs.add(R14).read()) };
    goroutine::calls(connection, g);
    0
}
