//! A server and a client on loopback, for machines where nobody calls anybody.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(500);

/// What is asked for, in turn: a hit, another, a miss.
const REQUESTS: &[&str] = &["GET /orders/17", "POST /orders", "GET /nowhere"];

/// Sends requests for as long as `goes_on` says so.
pub(crate) fn run(goes_on: impl Fn() -> bool) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on loopback")?;
    let address = listener.local_addr()?;
    eprintln!("run: demo traffic from and to http://{address}");
    thread::spawn(move || serve(&listener));
    for request in REQUESTS.iter().cycle() {
        if !goes_on() {
            break;
        }
        call(address, request)?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        // A connection that breaks is the client's business; it says so.
        let _ = stream.and_then(|stream| answer(&stream));
    }
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let status = if request.contains("/orders") { "200 OK" } else { "404 Not Found" };
    let mut stream = stream;
    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{{}}\n").as_bytes())
}

fn call(address: SocketAddr, request: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).context("connecting to the demo server")?;
    let length = if request.starts_with("POST") { "Content-Length: 0\r\n" } else { "" };
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: {address}\r\n{length}\r\n").as_bytes())?;
    stream.read_to_string(&mut String::new()).context("reading the demo server's answer")?;
    Ok(())
}
