//! Network namespaces with their cables and rules, removed when dropped.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::place;
use crate::process;

/// Longest that a command of network set-up may take.
const COMMAND: Duration = Duration::from_secs(10);

/// A network namespace with its loopback up.
#[derive(Debug)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// Makes one; `role` is part of its name.
    pub fn new(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-{role}-{}-{serial}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let made = Self { name };
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Programs inside ask this name server: `ip netns exec` shows them a `/etc/resolv.conf` of their own.
    pub fn resolver(&self, address: &str) -> Result<()> {
        let folder = self.files();
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        fs::write(folder.join("resolv.conf"), format!("nameserver {address}\n"))?;
        Ok(())
    }

    fn files(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.name)
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(place::program("ip")?);
        command.args(["netns", "exec", &self.name]).arg(place::program(program)?);
        Ok(command)
    }

    /// `command`, executed inside.
    pub fn enter(&self, command: &Command) -> Result<Command> {
        let mut inside = Command::new(place::program("ip")?);
        inside.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        Ok(inside)
    }

    /// `ip ARGUMENTS` inside.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Runs a program inside to its end, which must be success; arguments are parted at spaces.
    pub fn run(&self, program: &str, arguments: &str) -> Result<String> {
        process::run(self.command(program)?.args(arguments.split(' ')), COMMAND)
    }

    /// Sets a kernel parameter inside (`net.ipv4.ip_forward`).
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        self.run("sysctl", &format!("-qw {name}={value}")).map(drop)
    }

    /// Loads nft rules inside.
    pub fn rules(&self, rules: &str) -> Result<()> {
        let mut command = self.command("nft")?;
        command.arg(rules);
        process::run(&mut command, COMMAND).map(drop)
    }

    /// Runs `act` on a thread that is inside; sockets made there stay inside for their life.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        inside(&self.name, act)
    }

    /// Joins two namespaces by a cable: `first` gets `first_address` on `first_name`, and so on; addresses with prefix.
    pub fn cable(first: (&Self, &str, &[&str]), second: (&Self, &str, &[&str])) -> Result<()> {
        let (one, one_name, one_addresses) = first;
        let (two, two_name, two_addresses) = second;
        one.ip(&format!("link add name {one_name} type veth peer name {two_name} netns {}", two.name))?;
        one.up(one_name, one_addresses)?;
        two.up(two_name, two_addresses)
    }

    /// Gives an interface its addresses and brings it up.
    pub fn up(&self, interface: &str, addresses: &[&str]) -> Result<()> {
        for address in addresses {
            // Without `nodad` an IPv6 address can't be used for the first second.
            let tail = if address.contains(':') { " nodad" } else { "" };
            self.ip(&format!("addr add {address} dev {interface}{tail}"))?;
        }
        self.ip(&format!("link set dev {interface} up"))
    }
}

/// client (10.80.0.1) — router — server (10.81.0.2).
#[derive(Debug)]
pub struct Routed {
    /// Where clients run.
    pub client: NetNs,
    /// What is between them: 10.80.0.254 and 10.81.0.254.
    pub router: NetNs,
    /// Where servers run.
    pub server: NetNs,
}

impl Routed {
    /// Lays the cables.
    pub fn new() -> Result<Self> {
        let (client, router, server) = (NetNs::new("client")?, NetNs::new("router")?, NetNs::new("server")?);
        NetNs::cable((&client, "eth0", &["10.80.0.1/24"]), (&router, "left", &["10.80.0.254/24"]))?;
        NetNs::cable((&server, "eth0", &["10.81.0.2/24"]), (&router, "right", &["10.81.0.254/24"]))?;
        client.ip("route add default via 10.80.0.254")?;
        server.ip("route add default via 10.81.0.254")?;
        router.set("net.ipv4.ip_forward", "1")?;
        Ok(Self { client, router, server })
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // Most have no files of their own.
        drop(fs::remove_dir_all(self.files()));
        if let Err(error) = ip(&format!("netns del {}", self.name)) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs `act` on a thread that is inside the namespace of this name.
pub(crate) fn inside<T: Send>(name: &str, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/run/netns/{name}");
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let file = File::open(&path).with_context(|| format!("opening {path}"))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        });
        thread.join().map_err(|_| anyhow!("the thread inside a namespace failed"))?
    })
}

fn ip(arguments: &str) -> Result<()> {
    process::run(Command::new(place::program("ip")?).args(arguments.split(' ')), COMMAND).map(drop)
}
