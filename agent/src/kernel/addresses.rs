//! Notice of addresses that come to this network namespace's interfaces and go (`rtnetlink(7)`).

use std::io;
use std::thread;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of `include/uapi/linux/rtnetlink.h`.
const GROUPS: u32 = 0x10 | 0x100;
/// Others that come with one are waited for this long.
const SETTLE: Duration = Duration::from_millis(20);

/// Calls `changed` after each change, on a thread of its own, until it says `false`. What the kernel could not tell for
/// want of room is a change, too.
pub fn follow(mut changed: impl FnMut() -> bool + Send + 'static) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, GROUPS))?;
    thread::Builder::new().name("weir-addresses".to_owned()).spawn(move || {
        let mut buffer = Vec::with_capacity(8192);
        loop {
            buffer.clear();
            match socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!(%error, "new addresses of this node are noticed late");
                    return;
                }
            }
            thread::sleep(SETTLE);
            if !changed() {
                return;
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn an_address_that_comes_is_noticed() {
        let (to, from) = channel();
        follow(move || to.send(()).is_ok()).unwrap();
        let ip = |what: &str| {
            Command::new("ip")
                .args(["address", what, "127.77.0.1/32", "dev", "lo"])
                .status()
                .is_ok_and(|it| it.success())
        };
        if !ip("add") {
            // Without the right to change addresses there is nothing to notice.
            return;
        }
        let noticed = from.recv_timeout(Duration::from_secs(10));
        assert!(ip("del"));
        noticed.unwrap();
    }
}
