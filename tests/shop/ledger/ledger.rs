//! Books an order in Redis: a thread a connection. It is the last service.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn book(store: &str, order: &str) -> io::Result<()> {
    let mut connection = TcpStream::connect(store)?;
    connection.write_all(format!("SET ledger:{order} booked\r\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer)?;
    if answer == "+OK\r\n" { Ok(()) } else { Err(io::Error::other(format!("redis said {answer:?}"))) }
}

fn serve(stream: TcpStream, name: &str, store: &str, log: &File) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let order = line.split(' ').nth(1).and_then(|path| path.strip_prefix("/orders/")).unwrap_or("0").to_owned();
        while line.trim_end() != "" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        (&*log).write_all(format!("{order} {name}\n").as_bytes())?;
        book(store, &order)?;
        let (status, body) = if order.ends_with("13") { ("503 Service Unavailable", "full") } else { ("200 OK", "booked") };
        let length = body.len();
        (&stream).write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
    }
}

fn main() -> io::Result<()> {
    let setting = |name: &str| env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")));
    let log = File::options().append(true).create(true).open(setting("SHOP_LOG")?)?;
    let store = setting("SHOP_STORE")?;
    let (name, store) = store.split_once('=').ok_or_else(|| io::Error::other("SHOP_STORE is not NAME=ADDRESS:PORT"))?;
    let listener = TcpListener::bind(setting("SHOP_LISTEN")?)?;
    for stream in listener.incoming() {
        let (stream, log) = (stream?, log.try_clone()?);
        let (name, store) = (name.to_owned(), store.to_owned());
        thread::spawn(move || {
            if let Err(error) = serve(stream, &name, &store, &log) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}
