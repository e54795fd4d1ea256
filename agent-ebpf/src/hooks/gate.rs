//! The gate's programs: one entry a way, and the steps that it goes on with. Each is one piece: as a call it would take stack
//! that there is not, and the verifier would not know that it says nothing but 0 or 1.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use weir_common::record::Way;

use crate::gate::{self, decide, read};

/// What servers on this node receive.
#[cgroup_skb(ingress)]
#[inline(always)]
pub(crate) fn weir_gate_in(ctx: SkBuffContext) -> i32 {
    gate::admit(ctx.as_ptr().cast(), Way::IN)
}

/// What clients on this node send.
#[cgroup_skb(egress)]
#[inline(always)]
pub(crate) fn weir_gate_out(ctx: SkBuffContext) -> i32 {
    gate::admit(ctx.as_ptr().cast(), Way::OUT)
}

/// Judges connections that were received.
#[cgroup_skb(ingress)]
#[inline(always)]
pub(crate) fn weir_stand_in(ctx: SkBuffContext) -> i32 {
    gate::stand(ctx.as_ptr().cast(), Way::IN)
}

/// Judges connections that were opened from here.
#[cgroup_skb(egress)]
#[inline(always)]
pub(crate) fn weir_stand_out(ctx: SkBuffContext) -> i32 {
    gate::stand(ctx.as_ptr().cast(), Way::OUT)
}

/// Reads heads of what is received.
#[cgroup_skb(ingress)]
#[inline(always)]
pub(crate) fn weir_read_in(ctx: SkBuffContext) -> i32 {
    read::read::<false>(ctx.as_ptr().cast(), Way::IN)
}

/// Reads heads of what is sent.
#[cgroup_skb(egress)]
#[inline(always)]
pub(crate) fn weir_read_out(ctx: SkBuffContext) -> i32 {
    read::read::<false>(ctx.as_ptr().cast(), Way::OUT)
}

/// Decides about a request that is received.
#[cgroup_skb(ingress)]
#[inline(always)]
pub(crate) fn weir_decide_in(ctx: SkBuffContext) -> i32 {
    decide::decide::<false>(ctx.as_ptr().cast(), Way::IN)
}

/// Decides about a request that is sent.
#[cgroup_skb(egress)]
#[inline(always)]
pub(crate) fn weir_decide_out(ctx: SkBuffContext) -> i32 {
    decide::decide::<false>(ctx.as_ptr().cast(), Way::OUT)
}

/// Reads heads of what a listener receives for a connection that has no socket yet.
#[cgroup_skb(ingress)]
#[inline(always)]
pub(crate) fn weir_early_read(ctx: SkBuffContext) -> i32 {
    read::read::<true>(ctx.as_ptr().cast(), Way::IN)
}

/// Decides about such a request.
#[cgroup_skb(ingress)]
#[inline(always)]
pub(crate) fn weir_early_decide(ctx: SkBuffContext) -> i32 {
    decide::decide::<true>(ctx.as_ptr().cast(), Way::IN)
}
