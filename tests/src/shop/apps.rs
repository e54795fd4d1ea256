//! Starting the shop's programs, each on its host.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Host, PLACES, Place, Shop, place};
use crate::peers::foreign::as_postgres;
use crate::peers::nginx::{Nginx, Setup};
use crate::peers::runtime::build;
use crate::place::{cached, program, sources};
use crate::process::{self, Process};
use crate::wait;

/// Longest that anything may take to start.
const START: Duration = Duration::from_mins(1);

pub(super) fn start(shop: &mut Shop) -> Result<()> {
    let redis = redis(shop)?;
    run(shop, "redis", &redis)?;
    let postgres = postgres(shop)?;
    run(shop, "postgres", &postgres)?;
    // Last first, so that whoever listens can be served.
    for (name, next, store) in [
        ("ledger", None, Some("redis")),
        ("payment", Some("ledger"), None),
        ("stock", Some("payment"), None),
        ("pricing", Some("stock"), Some("postgres")),
        ("cart", Some("pricing"), Some("redis")),
    ] {
        let mut command = service(name)?;
        command.env("SHOP_LISTEN", place(name)?.address().to_string()).env("SHOP_LOG", shop.log(name));
        for (setting, other) in [("SHOP_NEXT", next), ("SHOP_STORE", store)] {
            if let Some(other) = other {
                command.env(setting, format!("{other}={}", place(other)?.address()));
            }
        }
        run(shop, name, &command)?;
    }
    let cart = place("cart")?.address();
    let [a, _] = &mut shop.hosts;
    a.nginx = Some(front(a, &format!("server {cart}; keepalive 8;"))?);
    for place in PLACES {
        let host = shop.hosts.get(place.host).context("a host")?;
        host.netns
            .inside(|| wait::listening(place.address(), START))
            .with_context(|| format!("{}: {}", place.name, outputs(shop)))?;
    }
    Ok(())
}

fn outputs(shop: &Shop) -> String {
    shop.hosts.iter().flat_map(|host| &host.running).map(|process| process.output().unwrap_or_default()).collect()
}

fn run(shop: &mut Shop, name: &str, command: &Command) -> Result<()> {
    let Place { host, .. } = place(name)?;
    let host = shop.hosts.get_mut(host).context("a host")?;
    let command = host.cgroup.command(&host.netns.enter(command)?);
    host.running.push(Process::start(command, name, &shop.scratch)?);
    Ok(())
}

fn redis(shop: &Shop) -> Result<Command> {
    let mut command = Command::new(program("redis-server")?);
    let port = place("redis")?.port.to_string();
    command.args(["--port", &port, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir"]);
    command.arg(shop.scratch.path());
    Ok(command)
}

fn postgres(shop: &Shop) -> Result<Command> {
    let folder = shop.scratch.join("postgres");
    std::fs::create_dir_all(&folder)?;
    process::run(Command::new("chown").arg("postgres").arg(&folder), START)?;
    let data = folder.join("data");
    process::run(as_postgres("initdb")?.args(["-A", "trust", "--no-sync", "-D"]).arg(&data), START)?;
    // Trust beyond loopback: this network is the shop's alone.
    let mut access = std::fs::OpenOptions::new().append(true).open(data.join("pg_hba.conf"))?;
    std::io::Write::write_all(&mut access, b"host all all 10.88.0.0/24 trust\n")?;
    let mut command = as_postgres("postgres")?;
    let address = place("postgres")?.address();
    command.arg("-D").arg(data).args(["-p", &address.port().to_string(), "-h", &address.ip().to_string()]);
    command.args(["-c", "fsync=off", "-c", "autovacuum=off", "-k"]).arg(folder);
    Ok(command)
}

fn service(name: &str) -> Result<Command> {
    let source = sources().join("shop").join(name);
    Ok(match name {
        "cart" => Command::new(built(name, |to| {
            let mut command = Command::new(program("go")?);
            command.args(["build", "-o"]).arg(to.join(name)).arg(".").env("GOFLAGS", "-mod=mod");
            Ok(command)
        })?),
        "ledger" => Command::new(built(name, |to| {
            let mut command = Command::new(program("rustc")?);
            command.args(["-O", "--edition", "2024", "-o"]).arg(to.join(name)).arg("ledger.rs");
            Ok(command)
        })?),
        "payment" => {
            let classes = build("shop/payment", |source, to| {
                let mut command = Command::new(program("javac")?);
                command.current_dir(source).arg("-d").arg(to).arg("Payment.java");
                Ok(command)
            })?;
            let mut command = Command::new(program("java")?);
            // Its server would close a connection that nobody used for 30 s just as the next order comes.
            command.args(["-XX:TieredStopAtLevel=1", "-Xmx64m", "-Dsun.net.httpserver.idleInterval=86400", "-cp"]);
            command.arg(classes).arg("Payment");
            command
        }
        "pricing" => {
            let mut command = Command::new(cached("venv/bin/python")?);
            command.arg(source.join("pricing.py")).env("PYTHONUNBUFFERED", "1");
            command
        }
        _ => {
            let mut command = Command::new(program("node")?);
            command.arg(source.join(format!("{name}.mjs")));
            command
        }
    })
}

fn built(name: &str, command: impl Fn(&std::path::Path) -> Result<Command>) -> Result<PathBuf> {
    let folder = build(&format!("shop/{name}"), |source, to| {
        let mut command = command(to)?;
        command.current_dir(source);
        Ok(command)
    })?;
    Ok(folder.join(name))
}

/// nginx in front, which mints a trace where its client names none.
fn front(host: &Host, upstream: &str) -> Result<Nginx> {
    Nginx::start(&Setup {
        listen: &["0.0.0.0:PORT"],
        port: place("nginx")?.port,
        netns: Some(&host.netns),
        cgroup: Some(&host.cgroup),
        http: &format!(
            "map $request_id $minted {{ \"~^(?<first>.{{16}})\" $first; }}
  map $http_traceparent $trace {{ default $http_traceparent; \"\" \"00-$request_id-$minted-01\"; }}
  upstream cart {{ {upstream} }}"
        ),
        server: "location /orders/ {
      proxy_pass http://cart; proxy_http_version 1.1;
      proxy_set_header Connection \"\"; proxy_set_header traceparent $trace;
    }",
        ..Setup::default()
    })
}
