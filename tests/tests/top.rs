//! `weir top` on a real terminal: what it shows of known traffic, its keys, and how it leaves.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use weir_tests::agent::{self, Agent};
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::place::{self, Scratch, program};
use weir_tests::process::{self, Process};
use weir_tests::tmux::{Screen, Tmux};
use weir_tests::wait;

const LIMIT: Duration = Duration::from_secs(15);

/// Requests by status, all of curl: seven calls, of which two are errors for the server and four for the client.
const ASKED: [(&str, u32); 4] = [("200", 3), ("404", 2), ("500", 1), ("503", 1)];

/// An agent that has seen both ends of [`ASKED`].
fn asked() -> Result<(Nginx, Agent)> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&[])?;
    for (status, count) in ASKED {
        load::curls(count, &nginx.url(&format!("/s/{status}")))?;
    }
    let calls = agent.calls(&[nginx.port()], 14)?;
    ensure!(calls.len() == 14, "{} calls", calls.len());
    Ok((nginx, agent))
}

/// The line that is typed to start it; what it ended with is said after it.
fn line(socket: &Path, variables: &str) -> Result<String> {
    let weir = place::weir()?;
    Ok(format!("WEIR_CONTROL__SOCKET={} {variables} {} top; echo ended $?", socket.display(), weir.display()))
}

/// Starts it on a terminal of 80×24, waits for its first page.
fn top(agent: &Agent) -> Result<Tmux> {
    let tmux = Tmux::start(80, 24)?;
    tmux.type_in(&line(&agent.socket(), "NO_COLOR=1")?)?;
    tmux.press(&["Enter"])?;
    tmux.until("the services", |screen| screen.has("Services: ") && screen.has("F1 Help"))?;
    Ok(tmux)
}

/// It ended with 0, and the terminal is as it was: screen, cursor, echo, lines.
fn ended(tmux: &Tmux) -> Result<()> {
    tmux.until("its end", |screen| screen.has("ended 0"))?;
    ensure!(!tmux.is_alternate()?, "the alternate screen is left on");
    ensure!(tmux.has_cursor()?, "the cursor is hidden");
    tmux.type_in("clear; stty -a | grep -cwE -e '-(icanon|echo|isig|icrnl|opost)'; echo a$((1+1))")?;
    tmux.press(&["Enter"])?;
    let screen = tmux.until("the shell's answer", |screen| screen.0.iter().any(|line| line == "a2"))?;
    ensure!(screen.0.first().is_some_and(|line| line == "0"), "the terminal is raw: {screen:?}");
    Ok(())
}

/// Words of the rows whose first words are these.
fn rows(screen: &Screen, first: &[&str]) -> Vec<Vec<String>> {
    let words = screen.0.iter().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words.filter(|words| words.iter().take(first.len()).eq(first.iter().copied())).collect()
}

/// The only such row.
fn row(screen: &Screen, first: &[&str]) -> Result<Vec<String>> {
    let rows = rows(screen, first);
    ensure!(rows.len() == 1, "{} rows of {first:?}:\n{}", rows.len(), screen.0.join("\n"));
    rows.into_iter().next().context("no row")
}

fn word(row: &[String], place: usize) -> &str {
    row.get(place).map_or("", String::as_str)
}

/// Goes to a page by its key; only rows with `filter` are shown.
fn page(tmux: &Tmux, key: &str, title: &str, filter: &str) -> Result<Screen> {
    tmux.press(&[key])?;
    tmux.until(title, |screen| screen.has(&format!("{title}: ")) && !screen.has("asking the agent"))?;
    tmux.press(&["/"])?;
    tmux.type_in(filter)?;
    tmux.press(&["Enter"])?;
    tmux.until(filter, |screen| screen.has(&format!("with \"{filter}\"")) && screen.has("F1 Help"))
}

#[test]
fn every_page_has_exact_names_and_counts() -> Result<()> {
    let (nginx, agent) = asked()?;
    let port = nginx.port().to_string();
    let mut open = TcpStream::connect(nginx.address())?;
    open.write_all(b"GET /s/200 HTTP/1.1\r\nHost: x\r\n\r\n")?;
    ensure!(open.read(&mut [0; 4096])? > 0, "no answer");
    let local = open.local_addr()?.port().to_string();
    ensure!(agent.calls(&[nginx.port()], 16)?.len() == 16, "the open connection's call");
    let rule =
        ["block", "add", "--id", "scan", "--client", "203.0.113.0/24", "--port", &port, "--reason", "x", "--ttl", "1h"];
    ensure!(agent.say(&rule)?.code == 0, "no rule");
    let tmux = top(&agent)?;

    let screen = tmux.until("both ends", |screen| screen.row(&["nginx", "8"]) && screen.row(&["curl", "0"]))?;
    // SERVICE, IN, IN/S, IN ERR, AVG, OUT, OUT/S, OUT ERR
    let server = row(&screen, &["nginx"])?;
    ensure!([1, 3, 5, 7].map(|place| word(&server, place)) == ["8", "2", "0", "0"], "{server:?}");
    let client = row(&screen, &["curl"])?;
    ensure!([1, 3, 5, 7].map(|place| word(&client, place)) == ["0", "0", "7", "4"], "{client:?}");
    ensure!(screen.0.len() == 24 && screen.0.iter().all(|line| line.chars().count() <= 80), "{screen:?}");

    // SERVICE, SIDE, METHOD, ROUTE, CALLS, PER S, ERR
    let screen = page(&tmux, "2", "Endpoints", "/s/{id}")?;
    let endpoint = row(&screen, &["nginx", "server", "GET", "/s/{id}", "8"])?;
    ensure!(word(&endpoint, 6) == "2", "{endpoint:?}");
    let endpoint = row(&screen, &["curl", "client", "GET", "/s/{id}", "7"])?;
    ensure!(word(&endpoint, 6) == "4", "{endpoint:?}");

    // CLIENT, SERVER, PORT, PROTO, CALLS, PER S, ERR
    let screen = page(&tmux, "3", "Edges", &port)?;
    let edge = row(&screen, &["curl", "nginx", &port, "http", "7"])?;
    ensure!(word(&edge, 6) == "2", "{edge:?}");

    let screen = page(&tmux, "4", "Connections", &local)?;
    let ends = rows(&screen, &["nginx", "server"]);
    ensure!(ends.len() == 1 && screen.has("of") && screen.has(&format!(":{local} ")), "{screen:?}");

    let screen = page(&tmux, "5", "Drops", "scan")?;
    let rule = row(&screen, &["scan", "deny", "monitor", "0"])?;
    ensure!(screen.has("mode is monitor"), "{rule:?} {screen:?}");

    tmux.press(&["6"])?;
    let screen = tmux.until("the ledger", |screen| screen.row(&["seen"]) && screen.row(&["delivered"]))?;
    ensure!(row(&screen, &["lost", "ring_full", "0"]).is_ok(), "{screen:?}");
    tmux.press(&["End"])?;
    tmux.until("the programs", |screen| screen.has("weir_") && screen.has("attached"))?;
    // Past the last tab comes the first.
    tmux.press(&["Tab"])?;
    tmux.until("the services", |screen| screen.has("Services: "))?;
    tmux.press(&["q"])?;
    ended(&tmux)?;
    agent.finish()
}

#[test]
fn keys_filter_sort_open_and_go_back() -> Result<()> {
    let (nginx, agent) = asked()?;
    let tmux = top(&agent)?;
    // As it is typed.
    tmux.press(&["/"])?;
    tmux.type_in("ngin")?;
    let screen = tmux.until("the filter", |screen| screen.has("/ngin_") && screen.row(&["nginx", "7"]))?;
    ensure!(rows(&screen, &["curl"]).is_empty(), "{screen:?}");
    tmux.type_in("ot")?;
    tmux.until("nothing", |screen| screen.has("no row has this text"))?;
    tmux.press(&["Escape"])?;
    tmux.until("everything", |screen| screen.row(&["curl"]) && screen.row(&["nginx"]))?;
    tmux.press(&["S"])?;
    tmux.until("the order", |screen| screen.has("by IN reversed"))?;
    tmux.press(&["F6"])?;
    tmux.until("the next column", |screen| screen.has("by IN/S"))?;
    tmux.press(&["F1"])?;
    tmux.until("help", |screen| screen.has("rows with this text; Enter keeps, Esc clears it"))?;
    tmux.press(&["F1"])?;

    // Service, edge, calls.
    page(&tmux, "1", "Services", "nginx")?;
    tmux.press(&["Enter"])?;
    let screen = tmux.until("the service", |screen| screen.has("Services › nginx: 2") && screen.has("Edges"))?;
    row(&screen, &["nginx", "server", "GET", "/s/{id}", "7"])?;
    row(&screen, &["curl", "nginx", &nginx.port().to_string(), "http", "7"])?;
    tmux.press(&["Down", "Enter"])?;
    let way = format!("Services › nginx › curl → nginx:{}: 7", nginx.port());
    let screen = tmux.until("the calls", |screen| screen.has(&way))?;
    for (status, count) in ASKED {
        let found =
            screen.0.iter().filter(|line| line.contains(" GET ") && line.contains(&format!(" {status} "))).count();
        ensure!(found == usize::try_from(count)?, "{found} calls with {status}: {screen:?}");
    }
    tmux.press(&["Escape"])?;
    tmux.until("the service", |screen| screen.has("Services › nginx: 2"))?;
    tmux.press(&["Escape"])?;
    tmux.until("the services", |screen| screen.has("with \"nginx\""))?;

    // What is read stays while it is paused.
    tmux.press(&["Space"])?;
    tmux.until("the pause", |screen| screen.has("PAUSED"))?;
    load::curls(2, &nginx.url("/s/200"))?;
    ensure!(agent.calls(&[nginx.port()], 18)?.len() == 18, "two more calls");
    std::thread::sleep(Duration::from_millis(2500));
    ensure!(tmux.screen()?.row(&["nginx", "7"]), "{:?}", tmux.screen()?);
    tmux.press(&["Space"])?;
    tmux.until("the news", |screen| screen.row(&["nginx", "9"]))?;

    tmux.resize(200, 50)?;
    tmux.until("a larger screen", |screen| screen.0.get(49).is_some_and(|line| line.starts_with("F1 Help")))?;
    tmux.resize(40, 10)?;
    // What tmux left of the larger one has a foot there too.
    tmux.until("a smaller screen", |screen| {
        screen.row(&["nginx", "9"]) && screen.0.get(9).is_some_and(|line| line.starts_with("F1 Help"))
    })?;
    tmux.press(&["F10"])?;
    tmux.resize(80, 24)?;
    ended(&tmux)?;
    agent.finish()
}

#[test]
fn colours_unless_no_color() -> Result<()> {
    let (_nginx, agent) = asked()?;
    for (variable, wanted) in [("NO_COLOR=", true), ("NO_COLOR=1", false)] {
        let tmux = Tmux::start(80, 24)?;
        tmux.type_in(&line(&agent.socket(), variable)?)?;
        tmux.press(&["Enter"])?;
        tmux.until("the services", |screen| screen.row(&["nginx", "7"]))?;
        let painted = tmux.painted()?;
        // Of every sequence the numbers that are colours.
        let colour =
            |number: &str| number.parse::<u8>().is_ok_and(|number| (30..=48).contains(&number) && number != 39);
        let sequences = painted.split('\x1b').filter_map(|part| part.strip_prefix('[')?.split_once('m'));
        let colours = sequences.filter(|(numbers, _)| numbers.split(';').any(colour)).count();
        ensure!((colours > 0) == wanted, "{variable}: {colours} colours in {painted:?}");
        tmux.press(&["C-c"])?;
        ended(&tmux)?;
    }
    agent.finish()
}

#[test]
fn an_agent_that_goes_is_waited_for() -> Result<()> {
    let (nginx, mut agent) = asked()?;
    let tmux = top(&agent)?;
    tmux.until("the counts", |screen| screen.row(&["nginx", "7"]))?;
    agent.kill()?;
    let away = format!("no agent at {}", agent.socket().display());
    let screen = tmux.until("that it is gone", |screen| screen.has(&away))?;
    ensure!(screen.row(&["nginx", "7"]), "what was told is gone: {screen:?}");
    agent.again()?;
    load::curls(5, &nginx.url("/s/200"))?;
    tmux.until("the new one", |screen| screen.row(&["nginx", "5"]) && !screen.has("no agent"))?;
    tmux.press(&["q"])?;
    ended(&tmux)?;
    agent.stop()
}

#[test]
fn a_signal_gives_the_terminal_back() -> Result<()> {
    let (_nginx, agent) = asked()?;
    let scratch = Scratch::new("signal")?;
    let file = scratch.join("pid");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let tmux = Tmux::start(80, 24)?;
        let (weir, socket) = (place::weir()?, agent.socket());
        tmux.type_in(&format!(
            "WEIR_CONTROL__SOCKET={} sh -c 'echo $$ > {}; exec {} top'; echo ended $?",
            socket.display(),
            file.display(),
            weir.display()
        ))?;
        tmux.press(&["Enter"])?;
        tmux.until("the services", |screen| screen.row(&["nginx", "7"]))?;
        let pid = std::fs::read_to_string(&file)?.trim().parse().ok().and_then(Pid::from_raw).context("no pid")?;
        kill_process(pid, signal)?;
        ended(&tmux).with_context(|| format!("{signal:?}"))?;
    }
    agent.finish()
}

#[test]
fn names_that_a_terminal_would_obey_are_shown() -> Result<()> {
    let agent = Agent::start(&[])?;
    let scratch = Scratch::new("hostile")?;
    let port = place::free_port()?;
    let mut command = Command::new(program("python3")?);
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]).current_dir(scratch.path());
    command.env("OTEL_SERVICE_NAME", "evil\x1b[2J\x1b]0;owned\x07end");
    let _server = Process::start(command, "server", &scratch)?;
    wait::listening(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LIMIT)?;
    load::curls(3, &format!("http://127.0.0.1:{port}/"))?;
    ensure!(agent.calls(&[port], 6)?.len() == 6, "six calls");
    let tmux = top(&agent)?;
    let name = "evil\u{fffd}[2J\u{fffd}]0;owned\u{fffd}end";
    let screen = tmux.until("the name", |screen| screen.row(&[name, "3"]))?;
    ensure!(screen.has("1 Services") && screen.has("F1 Help"), "{screen:?}");
    tmux.press(&["q"])?;
    ended(&tmux)?;
    agent.finish()
}

#[test]
fn without_a_terminal_or_an_agent() -> Result<()> {
    let _node = Agent::none()?;
    let scratch = Scratch::new("top")?;
    let socket = scratch.join("nobody.sock");
    let said = process::say(agent::command(&socket)?.arg("top"), LIMIT)?;
    ensure!(said.code == 2 && said.out.is_empty() && said.err.contains("needs a terminal"), "{said:?}");
    let tmux = Tmux::start(80, 24)?;
    tmux.type_in(&line(&socket, "")?)?;
    tmux.press(&["Enter"])?;
    let screen = tmux.until("its end", |screen| screen.has("ended 3"))?;
    ensure!(screen.has("no agent answers at"), "{screen:?}");
    Ok(())
}
