#![cfg(test)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use weir_common::conn::Known;

use super::{Socket, look};
use crate::model::Role;

fn cookie(socket: &impl AsRawFd) -> u64 {
    let mut cookie = 0_u64;
    let mut length = 8;
    // SAFETY: both pointers are to live variables of the size that the option has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0);
    cookie
}

fn find(sockets: &[Socket], cookie: u64) -> Socket {
    let mut rows = sockets.iter().filter(|socket| socket.cookie == cookie);
    let row = *rows.next().unwrap();
    assert_eq!(rows.next(), None);
    row
}

#[test]
fn both_ends_and_the_listener_are_found() {
    let me = std::process::id();
    for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let target: SocketAddr =
            if address.contains("::1") { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") }
                .parse()
                .unwrap();
        let client = TcpStream::connect(target).unwrap();
        let (server, _) = listener.accept().unwrap();
        let seen = look(Path::new("/proc")).unwrap();
        let (listener, client_row, server_row) = (
            find(&seen.sockets, cookie(&listener)),
            find(&seen.sockets, cookie(&client)),
            find(&seen.sockets, cookie(&server)),
        );
        assert!(listener.listens());
        assert_eq!((client_row.state, server_row.state), (1, 1));
        assert_eq!((listener.role, client_row.role, server_row.role), (Role::Server, Role::Client, Role::Server));
        assert_eq!((client_row.local, client_row.remote), (client.local_addr().unwrap(), target));
        assert_eq!((server_row.local, server_row.remote), (target, client.local_addr().unwrap()));
        assert_eq!(client_row.owner.tgid, me);
        assert_eq!(client_row.owner.known, Known::CREATOR.0);
        assert_eq!(client_row.owner, server_row.owner);
        assert_eq!(client_row.owner.uid, rustix::process::getuid().as_raw());
        assert_ne!(client_row.owner.cgroup, 0);
        assert_ne!(client_row.netns, 0);
        assert_eq!(client_row.netns, listener.netns);
    }
}

#[test]
fn a_socket_whose_listener_is_gone_has_no_role_on_its_side() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let gone = cookie(&listener);
    drop(listener);
    // A test that starts a program at this moment has a copy of it until that program is there.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let seen = loop {
        let seen = look(Path::new("/proc")).unwrap();
        if seen.sockets.iter().all(|socket| socket.cookie != gone) {
            break seen;
        }
        assert!(std::time::Instant::now() < deadline, "the listener stays");
    };
    assert_eq!(find(&seen.sockets, cookie(&client)).role, Role::Unknown);
    assert_eq!(find(&seen.sockets, cookie(&server)).role, Role::Unknown);
}

/// Needs root, to make a network namespace.
#[test]
fn another_network_namespace_is_entered() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let code = "import socket,sys,subprocess\nsubprocess.run(['ip','link','set','lo','up'],check=True)\ns=socket.create_server(('127.0.0.1',8080))\nprint('up',flush=True)\nsys.stdin.read()";
    let mut child = Command::new("unshare")
        .args(["-n", "/usr/bin/python3", "-c", code])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    let own = super::namespaces::own().unwrap();
    let seen = look(Path::new("/proc")).unwrap();
    assert_eq!(super::namespaces::own().unwrap(), own, "the caller stays where it was");
    let row = *seen.sockets.iter().find(|socket| socket.owner.tgid == child.id()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((row.local, row.listens()), ("127.0.0.1:8080".parse().unwrap(), true));
    assert_ne!(row.namespace, own);
    assert_eq!(&row.owner.comm[..8], b"python3\0");
}

#[test]
fn a_socket_shared_by_different_programs_is_nobodys() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let descriptor = listener.as_raw_fd();
    let mut command = Command::new("sleep");
    command.arg("60");
    // SAFETY: fcntl is async-signal-safe; it clears FD_CLOEXEC of a descriptor that is open, in the child alone.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(descriptor, libc::F_SETFD, 0) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let mut child = command.spawn().unwrap();
    let seen = look(Path::new("/proc")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let row = find(&seen.sockets, cookie(&listener));
    assert_eq!((row.owner.tgid, row.owner.known), (0, Known::NO.0));
    assert_ne!(seen.disputed, 0);
}
