//! What processes read: which thread takes which request.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::errand;

/// `tcp:tcp_rcv_space_adjust`: a thread has copied bytes out of a socket, whose lock it holds.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub(crate) fn weir_rcv_space(ctx: BtfTracePointContext) -> i32 {
    errand::reads(ctx.arg(0));
    0
}
