//! `connect()`: an outgoing connection that a rule refuses as a whole fails at once, with `EPERM`.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use weir_common::conn::Ends;

use crate::gate;
use crate::track::{MAPPED, field, put};

/// `IPPROTO_TCP`, `AF_INET`, `AF_INET6`.
const TCP: u32 = 6;
const INET: u16 = 2;
const INET6: u16 = 10;

/// To an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub(crate) fn weir_connect4(ctx: SockAddrContext) -> i32 {
    let to: *mut bpf_sock_addr = ctx.as_ptr().cast();
    connect(to, INET, [0, 0, MAPPED, field!(to, bpf_sock_addr, user_ip4)])
}

/// To an IPv6 address.
#[cgroup_sock_addr(connect6)]
pub(crate) fn weir_connect6(ctx: SockAddrContext) -> i32 {
    let to: *mut bpf_sock_addr = ctx.as_ptr().cast();
    let words = [
        field!(to, bpf_sock_addr, user_ip6, 0),
        field!(to, bpf_sock_addr, user_ip6, 1),
        field!(to, bpf_sock_addr, user_ip6, 2),
        field!(to, bpf_sock_addr, user_ip6, 3),
    ];
    connect(to, INET6, words)
}

#[inline(always)]
fn connect(to: *mut bpf_sock_addr, family: u16, address: [u32; 4]) -> i32 {
    if field!(to, bpf_sock_addr, protocol) != TCP {
        return gate::PASS;
    }
    let mut ends = Ends { family, ..Ends::default() };
    put(&mut ends.remote, address);
    // Network byte order in the lower half.
    ends.remote_port = u16::from_be(field!(to, bpf_sock_addr, user_port) as u16);
    // SAFETY: the context of a sock_addr program; the pointer is checked before use.
    let sk = unsafe { (*to).__bindgen_anon_1.sk };
    if sk.is_null() {
        return gate::PASS;
    }
    gate::connect(to.cast(), sk, &ends)
}
