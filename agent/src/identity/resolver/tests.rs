#![cfg(test)]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io::Read, io::Write};

use weir_common::conn::{Known, Owner};
use weir_common::record::{ARGS, Exec, Exit, Head, Kind};

use super::{Counts, Resolver};
use crate::clock::monotonic_ns;
use crate::identity::{Rule, Settings, When};
use crate::model::{Evidence, Service, Thread};

/// A number that no process has: above the kernel's largest.
const NOBODY: u32 = 1 << 29;

fn resolver() -> Resolver {
    Resolver::new(Settings { eager: 0, ..Settings::default() }).unwrap()
}

fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    let cut = name.len().min(15);
    comm[..cut].copy_from_slice(&name.as_bytes()[..cut]);
    comm
}

fn owner(pid: u32, name: &str, known: Known) -> Owner {
    Owner { tgid: pid, tid: pid, uid: 0, known: known.0, comm: comm(name), ..Owner::default() }
}

fn head(kind: Kind, at: u64) -> Head {
    Head { kind: kind.0, flags: 0, lost: 0, conn: 0, at }
}

/// The kernel's record of an exec.
fn exec(resolver: &mut Resolver, pid: u32, ppid: u32, name: &str, line: &str, at: u64) {
    let args = line.replace(' ', "\0") + "\0";
    let kept = args.len().min(ARGS);
    let owner = owner(pid, name, Known::NO);
    let record = Exec { head: head(Kind::EXEC, at), owner, ppid, len: kept as u32, args: [0; ARGS] };
    resolver.exec(&record, &args.as_bytes()[..kept]);
}

fn exit(resolver: &mut Resolver, pid: u32, at: u64) {
    resolver.exit(&Exit { head: head(Kind::EXIT, at), tgid: pid, reserved: 0 });
}

fn ask(resolver: &mut Resolver, pid: u32, name: &str, at: u64) -> Arc<Service> {
    resolver.resolve(&owner(pid, name, Known::SENDER), Thread::default(), at, None)
}

fn named(service: &Service) -> (&str, Evidence) {
    (&service.name, service.evidence)
}

/// A child of the test, ended with it.
struct Running(Child);

impl Running {
    fn new(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Self(child)
    }
    fn pid(&self) -> u32 {
        self.0.id()
    }
    /// A line that it prints.
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        let out = self.0.stdout.as_mut().unwrap();
        while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether `pid` has finished its exec of `name`: the kernel notes the start of its code last.
fn runs(pid: u32, name: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (head, rest) = stat.rsplit_once(") ").unwrap();
    head.ends_with(&format!("({name}")) && rest.split(' ').nth(23) != Some("0")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_running_process_is_read_once() {
    let child = Running::new(
        Command::new("sleep")
            .arg("60")
            .env("OTEL_SERVICE_NAME", "sleepy")
            .env("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=night,service.version=1%2B2"),
    );
    let mut resolver = resolver();
    let first = ask(&mut resolver, child.pid(), "sleep", monotonic_ns());
    assert_eq!(named(&first), ("sleepy", Evidence::OtelServiceName));
    assert_eq!(first.namespace.as_deref(), Some("night"));
    assert_eq!(first.attributes, [(Arc::from("service.version"), Arc::from("1+2"))]);
    let process = first.process.as_ref().unwrap();
    assert_eq!(
        (process.pid, process.ppid, process.uid),
        (child.pid(), std::process::id(), Some(rustix::process::getuid().as_raw()))
    );
    assert_eq!(process.command_line.as_deref(), Some("sleep 60"));
    assert_eq!(process.executable_name.as_deref(), Some("sleep"));
    for _ in 0..1000 {
        let again = ask(&mut resolver, child.pid(), "sleep", monotonic_ns());
        assert!(Arc::ptr_eq(&first, &again));
    }
    assert_eq!(resolver.counts(), Counts { read: 1, processes: 1, ..Counts::default() });
    let seen: Vec<_> = resolver.services().map(|seen| seen.processes).collect();
    assert_eq!(seen, [1]);
}

#[test]
fn scripts_are_named_by_what_they_run() {
    let folder = std::env::temp_dir().join(format!("weir-scripts-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let script = folder.join("orders.py");
    fs::write(&script, "import sys\nsys.stdin.read()\n").unwrap();
    let mut resolver = resolver();
    let python = Running::new(Command::new("/usr/bin/python3").arg(&script));
    let service = ask(&mut resolver, python.pid(), "python3", monotonic_ns());
    assert_eq!(named(&service), ("orders", Evidence::Script));

    let executable = folder.join("loop-with-a-long-name.sh");
    fs::write(&executable, "#!/bin/sh\nread x\n").unwrap();
    let mut permissions = fs::metadata(&executable).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&executable, permissions).unwrap();
    let shell = Running::new(&mut Command::new(&executable));
    let service = ask(&mut resolver, shell.pid(), "loop-with-a-lon", monotonic_ns());
    assert_eq!(named(&service), ("loop-with-a-long-name", Evidence::Script));
    assert_eq!(service.process.as_ref().unwrap().executable_name.as_deref(), Some("dash"));

    let inline = Running::new(Command::new("/usr/bin/python3").args(["-c", "input()"]));
    let service = ask(&mut resolver, inline.pid(), "python3", monotonic_ns());
    assert_eq!(service.evidence, Evidence::Executable);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_deleted_executable_keeps_its_name() {
    let path = std::env::temp_dir().join(format!("weir-gone-{}", std::process::id()));
    fs::copy("/bin/sleep", &path).unwrap();
    let child = Running::new(Command::new(&path).arg("60"));
    fs::remove_file(&path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let service = ask(&mut resolver(), child.pid(), name, monotonic_ns());
    assert_eq!(named(&service), (name, Evidence::Executable));
    assert_eq!(service.process.as_ref().unwrap().executable_path.as_deref(), path.to_str());
}

#[test]
fn a_short_lived_process_is_named_from_its_exec_record() {
    let mut resolver = resolver();
    let url = format!("http://shop.test/{}", "x".repeat(600));
    exec(&mut resolver, NOBODY, 7, "curl", &format!("/usr/bin/curl -s {url}"), 100);
    exit(&mut resolver, NOBODY, 200);
    let service = ask(&mut resolver, NOBODY, "curl", 150);
    assert_eq!(named(&service), ("curl", Evidence::Executable));
    let process = service.process.as_ref().unwrap();
    assert_eq!((process.ppid, process.uid), (7, Some(0)));
    let line = format!("/usr/bin/curl -s {url}");
    assert_eq!(process.command_line.as_deref(), Some(&line[..ARGS]));

    exec(&mut resolver, NOBODY, 7, "job.py", "/usr/bin/python3 /opt/job.py", 300);
    exit(&mut resolver, NOBODY, 310);
    let service = ask(&mut resolver, NOBODY, "job.py", 305);
    assert_eq!(named(&service), ("job", Evidence::Script));
    // A name of 15 bytes may be cut: only comm is proven.
    exec(&mut resolver, NOBODY, 7, "a-fifteen-bytes", "renamed x", 400);
    exit(&mut resolver, NOBODY, 410);
    assert_eq!(named(&ask(&mut resolver, NOBODY, "a-fifteen-bytes", 405)), ("a-fifteen-bytes", Evidence::Comm));
    // The earlier one is still told apart by time.
    assert_eq!(&*ask(&mut resolver, NOBODY, "curl", 150).name, "curl");
}

#[test]
fn a_chain_of_execs_is_told_apart_by_time() {
    let mut child = Running::new(Command::new("sh").args(["-c", "echo up; read x; exec sleep 60"]));
    assert_eq!(child.line(), "up");
    let mut resolver = resolver();
    let sh_at = monotonic_ns();
    exec(&mut resolver, child.pid(), 1, "sh", "sh -c echo", sh_at);
    // Unread yet; the second exec happens before its record is handled.
    child.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    until("exec", || runs(child.pid(), "sleep"));
    let early = ask(&mut resolver, child.pid(), "sh", sh_at);
    assert_eq!(named(&early), ("sh", Evidence::Executable));
    assert_eq!(early.process.as_ref().unwrap().executable_path, None, "what /proc shows is another image's");
    let sleep_at = monotonic_ns();
    exec(&mut resolver, child.pid(), 1, "sleep", "sleep 60", sleep_at);
    let late = ask(&mut resolver, child.pid(), "sleep", sleep_at);
    assert_eq!(named(&late), ("sleep", Evidence::Executable));
    assert_eq!(&*ask(&mut resolver, child.pid(), "sh", sh_at).name, "sh");
}

#[test]
fn a_lost_exec_record_is_noticed_by_the_name() {
    let mut child = Running::new(Command::new("sh").args(["-c", "echo up; read x; exec sleep 60"]));
    assert_eq!(child.line(), "up");
    let mut resolver = resolver();
    assert_eq!(&*ask(&mut resolver, child.pid(), "sh", monotonic_ns()).name, "dash");
    child.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    until("exec", || runs(child.pid(), "sleep"));
    let service = ask(&mut resolver, child.pid(), "sleep", monotonic_ns());
    assert_eq!(named(&service), ("sleep", Evidence::Executable));
}

#[test]
fn a_renamed_process_keeps_its_service() {
    let code =
        "import ctypes,sys\nctypes.CDLL(None).prctl(15,b'worker',0,0,0)\nprint('up',flush=True)\nsys.stdin.read()";
    let mut child = Running::new(Command::new("/usr/bin/python3").args(["-c", code]));
    assert_eq!(child.line(), "up");
    let mut resolver = resolver();
    exec(&mut resolver, child.pid(), 1, "python3", &format!("python3 -c {code}"), monotonic_ns());
    let first = ask(&mut resolver, child.pid(), "worker", monotonic_ns());
    assert_eq!(first.evidence, Evidence::Executable);
    let reads = resolver.counts().read;
    let again = ask(&mut resolver, child.pid(), "worker", monotonic_ns());
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(resolver.counts().read, reads, "the new name is known now");
}

#[test]
fn a_forked_child_is_its_parents_service() {
    // The parent overwrites nothing, the child is forked without exec and renames itself.
    let code = "import os,sys,ctypes\nr,w=os.pipe()\np=os.fork()\nif p==0:\n os.close(w)\n ctypes.CDLL(None).prctl(15,b'kid',0,0,0)\n os.read(r,1)\n os._exit(0)\nprint(p,flush=True)\nsys.stdin.read()";
    let folder = std::env::temp_dir().join(format!("weir-fork-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let script = folder.join("prefork.py");
    fs::write(&script, code).unwrap();
    let mut parent = Running::new(Command::new("/usr/bin/python3").arg(&script));
    let kid: u32 = parent.line().parse().unwrap();
    let mut resolver = resolver();
    exec(&mut resolver, parent.pid(), 1, "python3", &format!("python3 {}", script.display()), monotonic_ns());
    let service = ask(&mut resolver, kid, "kid", monotonic_ns());
    assert_eq!(named(&service), ("prefork", Evidence::Script));
    assert_eq!(service.process.as_ref().unwrap().ppid, parent.pid());
    // A connection of the listener that the parent opened, answered by the child.
    let listener = owner(parent.pid(), "python3", Known::LISTENER);
    let answering =
        resolver.resolve(&listener, Thread { tgid: kid, tid: kid, ..Thread::default() }, monotonic_ns(), None);
    assert!(Arc::ptr_eq(&service, &answering));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn before_its_exec_a_child_runs_its_parents_image_only_if_all_fits() {
    let mut resolver = resolver();
    exec(&mut resolver, NOBODY, 1, "bash", "bash job.sh", 100);
    exec(&mut resolver, NOBODY + 1, NOBODY, "curl", "curl x", 300);
    let fork = ask(&mut resolver, NOBODY + 1, "bash", 250);
    assert_eq!(named(&fork), ("job", Evidence::Script));
    assert_eq!(fork.process.as_ref().map(|process| (process.pid, process.ppid)), Some((NOBODY + 1, NOBODY)));
    exec(&mut resolver, NOBODY + 2, NOBODY, "curl", "curl x", 300);
    assert_eq!(named(&ask(&mut resolver, NOBODY + 2, "other", 250)), ("other", Evidence::Comm));
    assert_eq!(&*ask(&mut resolver, NOBODY + 1, "curl", 300).name, "curl");
}

#[test]
fn a_reused_number_is_another_process() {
    let mut resolver = resolver();
    exec(&mut resolver, NOBODY, 1, "first", "first", 1_000_000);
    exit(&mut resolver, NOBODY, 2_000_000);
    exec(&mut resolver, NOBODY, 1, "second", "second", 2_500_000);
    assert_eq!(&*ask(&mut resolver, NOBODY, "first", 1_500_000).name, "first");
    assert_eq!(&*ask(&mut resolver, NOBODY, "second", 2_600_000).name, "second");
    // Between exit and exec: some forked child of which nothing but its name is known.
    assert_eq!(named(&ask(&mut resolver, NOBODY, "shell", 2_400_000)), ("shell", Evidence::Comm));
    // A running process that started after the record can't be meant by it.
    let child = Running::new(Command::new("sleep").arg("60"));
    let service = ask(&mut resolver, child.pid(), "long-gone", 1_000);
    assert_eq!(named(&service), ("long-gone", Evidence::Comm));
    assert_eq!(service.process.as_ref().unwrap().executable_path, None);
    assert_eq!(&*ask(&mut resolver, child.pid(), "sleep", monotonic_ns()).name, "sleep");
}

#[test]
fn a_listener_is_named_by_a_holder_that_fits_or_not_at_all() {
    let mut resolver = resolver();
    let ask = |resolver: &mut Resolver, name: &str, at| {
        resolver.resolve(&owner(NOBODY, name, Known::LISTENER), Thread::default(), at, None).name.to_string()
    };
    exec(&mut resolver, NOBODY, 1, "httpd", "httpd -k start", 100);
    assert_eq!(ask(&mut resolver, "httpd", 200), "httpd");
    // It ended and left the socket to its children; then its number is another's.
    exit(&mut resolver, NOBODY, 300);
    assert_eq!(ask(&mut resolver, "httpd", 400), "httpd");
    exec(&mut resolver, NOBODY, 1, "cron", "cron", 500);
    assert_eq!(ask(&mut resolver, "httpd", 600), "httpd");
    assert_eq!(ask(&mut resolver, "sshd", 600), "unknown");
    let owner = owner(NOBODY, "sshd", Known::LISTENER);
    let by = Thread { tgid: NOBODY, tid: 0, ..Thread::default() };
    assert_eq!(resolver.resolve(&owner, by, 600, None).evidence, Evidence::Unknown, "no thread, no proof");
    // Socket activation: opened by one program, handed on by exec.
    exec(&mut resolver, NOBODY, 1, "server", "server", 700);
    assert_eq!(ask(&mut resolver, "cron", 800), "server");
    // systemd listens for others.
    exec(&mut resolver, NOBODY, 1, "systemd", "/lib/systemd/systemd --user", 900);
    assert_eq!(ask(&mut resolver, "systemd", 1000), "unknown");
    // sshd twice, systemd.
    assert_eq!(resolver.counts().unproven, 3);
}

#[test]
fn rules_come_first_and_may_ask_for_the_port() {
    let rule = |when: When, name: &str| Rule { when, name: Some(Arc::from(name)), namespace: Some(Arc::from("ns")) };
    let port = When { executable: Some("sleep".into()), port: Some(8080), ..When::default() };
    let line = When { command_line: Some("sleep 6?".into()), ..When::default() };
    let child = Running::new(Command::new("sleep").arg("60").env("OTEL_SERVICE_NAME", "env"));
    let mut resolver = resolver();
    let owner = owner(child.pid(), "sleep", Known::SENDER);
    let ask = |resolver: &mut Resolver, port| {
        let service = resolver.resolve(&owner, Thread::default(), monotonic_ns(), port);
        (service.name.to_string(), service.evidence)
    };
    assert_eq!(ask(&mut resolver, Some(8080)), ("env".into(), Evidence::OtelServiceName));
    let rules = vec![rule(port, "port"), rule(line, "line")];
    resolver.set(Settings { rules, ..Settings::default() }).unwrap();
    assert_eq!(ask(&mut resolver, Some(8080)), ("port".into(), Evidence::Rule));
    assert_eq!(ask(&mut resolver, Some(8081)), ("line".into(), Evidence::Rule));
    assert_eq!(ask(&mut resolver, None), ("line".into(), Evidence::Rule));
    assert_eq!(resolver.counts().read, 1);
    let listed = |resolver: &Resolver| {
        resolver.services().map(|seen| (seen.service.name.to_string(), seen.processes)).collect::<Vec<_>>()
    };
    assert_eq!(listed(&resolver), [("port".into(), 1), ("line".into(), 1)], "under each name once");
    resolver.set(Settings::default()).unwrap();
    assert_eq!(ask(&mut resolver, Some(8081)), ("env".into(), Evidence::OtelServiceName));
    assert_eq!(listed(&resolver), [("env".into(), 1)]);
}

#[test]
fn an_ended_process_is_forgotten_after_the_grace_period() {
    let second = 1_000_000_000;
    let mut resolver =
        Resolver::new(Settings { eager: 0, grace: Duration::from_secs(2), ..Settings::default() }).unwrap();
    exec(&mut resolver, NOBODY, 1, "used", "used", second);
    exec(&mut resolver, NOBODY + 1, 1, "unused", "unused", second);
    exit(&mut resolver, NOBODY, 2 * second);
    exit(&mut resolver, NOBODY + 1, 2 * second);
    assert_eq!(&*ask(&mut resolver, NOBODY, "used", 2 * second).name, "used");
    exec(&mut resolver, NOBODY + 2, 1, "tick", "tick", 3 * second);
    assert_eq!(resolver.counts().processes, 3);
    exec(&mut resolver, NOBODY + 2, 1, "tick", "tick", 5 * second);
    assert_eq!(resolver.counts().processes, 1);
}

#[test]
fn the_table_is_bounded_and_a_flood_of_execs_is_cheap() {
    let mut resolver = Resolver::new(Settings { processes: 1024, ..Settings::default() }).unwrap();
    for pid in 0..10_000 {
        exec(&mut resolver, NOBODY + pid, 1, "flood", "flood", u64::from(pid));
    }
    let counts = resolver.counts();
    assert!(counts.processes <= 1024);
    assert_eq!(counts.processes + counts.evicted, 10_000);
    // Read at once within the budget of a second, the others are left.
    assert_eq!(counts.gone, 200);
}

#[test]
fn a_process_read_at_exec_is_known_by_its_environment_when_it_is_gone() {
    let mut child = Running::new(Command::new("sleep").arg("60").env("OTEL_SERVICE_NAME", "brief"));
    let mut resolver = Resolver::new(Settings::default()).unwrap();
    let at = monotonic_ns();
    exec(&mut resolver, child.pid(), 1, "sleep", "sleep 60", at);
    child.end();
    exit(&mut resolver, child.pid(), monotonic_ns());
    assert_eq!(named(&ask(&mut resolver, child.pid(), "sleep", at + 1)), ("brief", Evidence::OtelServiceName));
}

#[test]
fn hostile_processes_are_read_safely() {
    let mut resolver = resolver();
    let child = Running::new(
        Command::new("sleep")
            .arg0("a\nb\x1b[31m")
            .arg("60")
            .env("PAD", "x".repeat(120_000))
            .envs((0..8).map(|i| (format!("PAD{i}"), "y".repeat(120_000))))
            .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=line\nbreak"),
    );
    let service = ask(&mut resolver, child.pid(), "sleep", monotonic_ns());
    assert_eq!(named(&service), ("line\u{fffd}break", Evidence::OtelResourceAttributes));
    let line = service.process.as_ref().unwrap().command_line.clone();
    assert_eq!(line.as_deref(), Some("a\u{fffd}b\u{fffd}[31m 60"));
}

#[test]
fn a_socket_without_owner_is_known_by_its_group_or_not_at_all() {
    let mut resolver = resolver();
    let service = resolver.resolve(&Owner::default(), Thread::default(), 5, None);
    assert_eq!(*service, Service::unknown());
    assert_eq!(resolver.counts(), Counts::default());
}

#[test]
fn what_is_outside_goes_by_its_address() {
    let mut resolver = resolver();
    let service = resolver.external("203.0.113.7:443");
    assert_eq!(named(&service), ("external:203.0.113.7:443", Evidence::External));
    assert!(Arc::ptr_eq(&service, &resolver.external("203.0.113.7:443")));
    assert_eq!(resolver.external(" ").evidence, Evidence::Unknown);
    for i in 0..10_000 {
        resolver.external(&format!("host-{i}"));
    }
    assert!(resolver.externals.len() <= 4096);
}
