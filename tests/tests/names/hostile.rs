//! Answers that lie, and floods of them.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::process::Process;
use weir_tests::wait;

use crate::stage::{RESOLVER, Stage};

/// Asks for `want.test` from one socket until the address ends in 31, and connects there.
const CAREFUL: &str = "
import socket, struct, sys
server, port = sys.argv[1:]
question = b'\\x04want\\x04test\\0' + struct.pack('>2H', 1, 1)
ask = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ask.connect((server, 53))
ask.send(struct.pack('>6H', 9, 256, 1, 0, 0, 0) + question)
while True:
    data = ask.recv(65535)
    if data[:2] == b'\\0\\x09' and data[12:].startswith(question) and b'\\x0a\\x5b\\0\\x1f' in data:
        break
for last in (31, 32, 33, 34):
    http = socket.create_connection(('10.91.0.%d' % last, int(port)))
    http.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')
    assert http.recv(100).endswith(b'ok')
";

/// Waits to be told that the flood is over.
const BOUND: &str = "
import socket, sys
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
held.bind(('', 5300))
print('bound', flush=True)
while held.recv(2000) != b'over': pass
";

fn name(text: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.split('.').flat_map(|part| [&[part.len() as u8], part.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

fn address(owner: &[u8], last: u8) -> Vec<u8> {
    [owner, &[0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 10, 91, 0, last]].concat()
}

fn answer(id: u16, question: &str, records: &[Vec<u8>], more: &[Vec<u8>]) -> Vec<u8> {
    let counts = [1, records.len() as u16, 0, more.len() as u16];
    let head: Vec<u8> = [id, 0x8180].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect();
    [head, name(question), vec![0, 1, 0, 1], records.concat(), more.concat()].concat()
}

const ASKED: &[u8] = &[0xc0, 12];

#[test]
fn what_was_not_asked_is_not_believed() -> Result<()> {
    let stage = Stage::new(None, &[])?;
    let socket = stage.outside.inside(|| Ok(UdpSocket::bind((RESOLVER, 53))?))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let liar = thread::spawn(move || -> Result<()> {
        let mut question = [0; 512];
        let (_, who) = socket.recv_from(&mut question)?;
        let own = address(ASKED, 31);
        // Another id, another question, not an answer, cut short, an error, a loop: each with a name for what is ours.
        let mut looped = answer(9, "want.test", &[address(&[0xc0, 27], 32)], &[]);
        looped.splice(27..29, [0xc0, 27]);
        let mut error = answer(9, "want.test", &[address(ASKED, 32)], &[]);
        error[3] |= 3;
        socket.send_to(&answer(8, "want.test", &[address(ASKED, 32)], &[]), who)?;
        socket.send_to(&answer(9, "bank.test", &[address(ASKED, 32)], &[]), who)?;
        socket.send_to(&error, who)?;
        socket.send_to(&looped, who)?;
        // The true one brings lies along, and is as long as a datagram can be.
        let lies = [address(&name("bank.test"), 33), own.clone()];
        let padding = [name("pad.test"), vec![0, 16, 0, 1, 0, 0, 0, 1, 0xe0, 0], vec![1; 0xe000]].concat();
        socket.send_to(&answer(9, "want.test", &lies, &[address(ASKED, 34), padding]), who)?;
        Ok(())
    });
    let script = stage.script("careful.py", CAREFUL)?;
    stage.run("python3", &[&script, RESOLVER, &stage.port.to_string()])?;
    liar.join().ok().context("the server failed")??;
    stage.is(&[
        ("careful", "external:want.test", stage.port, (1, 0)),
        ("careful", "external:10.91.0.32", stage.port, (1, 0)),
        ("careful", "external:10.91.0.33", stage.port, (1, 0)),
        ("careful", "external:10.91.0.34", stage.port, (1, 0)),
    ])?;
    let counted = ["dns_packet_not_asked_for", "dns_answer_not_asked_for", "malformed_dns"].map(|it| stage.counted(it));
    let [packets, answers, malformed] = counted;
    ensure!((packets?, answers?, malformed?) == (1, 1, 1));
    stage.finish()
}

#[test]
fn floods_stay_in_the_kernel() -> Result<()> {
    const PACKETS: u64 = 20_000;
    let stage = Stage::new(None, &[])?;
    let socket = stage.outside.inside(|| Ok(UdpSocket::bind((RESOLVER, 53))?))?;
    let script = stage.script("bound.py", BOUND)?;
    let mut bound = Process::start(stage.command("python3", &[&script])?, "bound", stage.scratch())?;
    wait::until(Duration::from_secs(20), "a socket", || Ok(bound.output()?.contains("bound").then_some(())))?;
    for i in 0..PACKETS {
        let forged = answer(i as u16, "bank.test", &[address(ASKED, 35)], &[]);
        socket.send_to(&forged, ("10.91.0.1", 5300))?;
    }
    socket.send_to(b"over", ("10.91.0.1", 5300))?;
    // What its buffer had no room for has passed the agent all the same; the last word may be among it.
    wait::until(Duration::from_secs(20), "the end", || {
        socket.send_to(b"over", ("10.91.0.1", 5300))?;
        bound.ended()
    })?;
    ensure!(stage.counted("dns_packet_not_asked_for")? == PACKETS);
    stage.run("curl", &["-sf", "-H", "Host:", &stage.url("10.91.0.35")])?;
    stage.is(&[("curl", "external:10.91.0.35", stage.port, (1, 0))])?;
    stage.finish()
}
