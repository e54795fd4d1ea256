//! A7: the ways that bytes take in and out of sockets, and the ways that sockets change hands.

use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use weir_tests::agent::Agent;
use weir_tests::netns::NetNs;
use weir_tests::peers::load;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::peers::odd::{self, Odd};
use weir_tests::peers::proxy::{Kind, Proxy};
use weir_tests::place;
use weir_tests::truth::{Row, Sides};
use weir_tests::uring::Ring;

const COUNT: u32 = 20;

#[test]
fn a7_sendfile_of_large_files() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    assert_eq!(load::ab(400, 8, true, &nginx.url("/f/1048576"))?.errors, 0);
    let row = Row::new("GET", "/f/1048576", 200, 0, 1 << 20);
    Sides::of(agent.calls(&[nginx.port()], 800)?).are(&vec![row; 400])?;
    agent.finish()
}

#[test]
fn a7_a_proxy_that_splices() -> Result<()> {
    let nginx = Nginx::plain()?;
    let proxy = Proxy::start(Kind::Splice, nginx.address())?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let url = format!("{}/f/65536", proxy.url());
    assert_eq!(load::ab(1000, 8, true, &url)?.errors, 0);
    assert_eq!(nginx.logged(1000)?.len(), 1000);
    let rows = vec![Row::new("GET", "/f/65536", 200, 0, 65_536); 1000];
    let calls = agent.calls(&[nginx.port(), proxy.port()], 4000)?;
    let (front, back): (Vec<_>, Vec<_>) = calls.into_iter().partition(|call| call.server().port() == proxy.port());
    let (front, back) = (Sides::of(front), Sides::of(back));
    front.are(&rows)?;
    back.are(&rows)?;
    for call in front.server.iter().chain(&back.client) {
        ensure!(call.service.pid == Some(proxy.pid()), "not of {}: {call:?}", proxy.pid());
    }
    agent.finish()
}

/// Every call to an odd server is there, owned by the process that its log names.
fn check(mode: &str, client: &str, netns: Option<&NetNs>) -> Result<()> {
    let server = Odd::start(mode, netns)?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    odd::ask(client, server.port(), COUNT, netns)?;
    let mut calls = agent.calls(&[server.port()], 2 * COUNT as usize)?;
    calls.sort_by(|one, other| one.start.cmp(&other.start));
    let sides = Sides::of(calls);
    let rows = (0..COUNT).map(|i| format!("/{client}/{i}"));
    let rows: Vec<Row> = rows.map(|path| Row::new("GET", &path, 200, 0, path.len() as u64 * 100)).collect();
    sides.are(&rows)?;
    let served = server.served()?;
    for call in &sides.server {
        let pid = served.get(call.attributes.path.as_deref().unwrap_or_default());
        ensure!(call.service.pid.as_ref() == pid, "{mode}: answered by {pid:?}: {call:?}");
    }
    agent.finish()
}

#[test]
fn a7_zero_copy_both_ways() -> Result<()> {
    check("zerocopy", "zerocopy", None)
}

#[test]
fn a7_a_hundred_pieces_in_one_call() -> Result<()> {
    check("writev", "writev", None)
}

#[test]
fn a7_data_with_the_handshake() -> Result<()> {
    check("defer", "plain", None)?;
    let netns = NetNs::new("tfo")?;
    netns.set("net.ipv4.tcp_fastopen", "3")?;
    check("fastopen", "fastopen", Some(&netns))
}

#[test]
fn a7_sockets_that_share_a_port() -> Result<()> {
    check("reuseport", "plain", None)
}

#[test]
fn a7_sockets_passed_to_another_process() -> Result<()> {
    check("rights", "plain", None)
}

#[test]
fn a7_listeners_inherited_over_fork_and_exec() -> Result<()> {
    check("inherited", "plain", None)?;
    check("activated", "plain", None)
}

#[test]
fn a7_nginx_workers_with_a_listener_each() -> Result<()> {
    let nginx = Nginx::start(&Setup { listen: &["127.0.0.1:PORT reuseport"], ..Setup::default() })?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    assert_eq!(load::ab(2000, 16, false, &nginx.url("/s/404"))?.answered, 2000);
    let log = nginx.logged(2000)?;
    assert_eq!(log.len(), 2000);
    let sides = Sides::of(agent.calls(&[nginx.port()], 4000)?);
    sides.are(&vec![Row::new("GET", "/s/404", 404, 0, 4); 2000])?;
    let workers = nginx.workers()?;
    ensure!(sides.server.iter().all(|call| call.service.pid.is_some_and(|pid| workers.contains(&pid))));
    agent.finish()
}

#[test]
fn a7_io_uring_on_both_ends() -> Result<()> {
    const ROUNDS: usize = 50;
    let request = |at: usize| {
        format!("POST /uring/{at} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", at * 100, "u".repeat(at * 100))
    };
    let answer = |at: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", at * 300, "d".repeat(at * 300));
    let listener = TcpListener::bind(("127.0.0.1", place::free_port()?))?;
    let address = listener.local_addr()?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    thread::scope(|scope| -> Result<()> {
        let server = scope.spawn(|| -> Result<()> {
            let (stream, _) = listener.accept()?;
            let mut ring = Ring::new()?;
            for at in 0..ROUNDS {
                ensure!(ring.receive_all(&stream, request(at).len())? == request(at).as_bytes());
                ring.send(&stream, answer(at).as_bytes())?;
            }
            ensure!(ring.receive(&stream, &mut [0])? == 0);
            Ok(())
        });
        let stream = TcpStream::connect(address)?;
        let mut ring = Ring::new()?;
        for at in 0..ROUNDS {
            ring.send(&stream, request(at).as_bytes())?;
            ensure!(ring.receive_all(&stream, answer(at).len())? == answer(at).as_bytes());
        }
        drop(stream);
        server.join().map_err(|_| anyhow!("the server's thread failed"))?
    })?;
    let row = |at: usize| Row::new("POST", &format!("/uring/{at}"), 200, at as u64 * 100, at as u64 * 300);
    let sides = Sides::of(agent.calls(&[address.port()], 2 * ROUNDS)?);
    sides.are(&(0..ROUNDS).map(row).collect::<Vec<_>>())?;
    for call in sides.client.iter().chain(&sides.server) {
        ensure!(call.service.pid == Some(std::process::id()), "{call:?}");
    }
    agent.finish()
}
