//! Containers and units, by the cgroup paths that their managers give them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weir_tests::agent::Agent;
use weir_tests::cgroup::Cgroup;
use weir_tests::place::Scratch;

use crate::stage::{answers_as, port, python, rows_of, scripts, start};

const ID: &str = "4f1c0b6e2d9a83755fbb0c4e8a91d27636c5e0f1a2b3c4d5e6f708192a3b4c5d";
const POD: &str = "0f4d9a54-1d0c-4a0e-9a53-6b2f1b7c8d9e";

/// Who is expected in a group.
struct Expected {
    path: String,
    name: &'static str,
    by: &'static str,
    container: Option<&'static str>,
    runtime: Option<&'static str>,
    pod: Option<&'static str>,
    unit: Option<&'static str>,
}

fn unit(path: &str, name: &'static str, unit: &'static str) -> Expected {
    let path = path.to_owned();
    Expected { path, name, by: "systemd unit", container: None, runtime: None, pod: None, unit: Some(unit) }
}

fn container(path: String, container: &'static str, runtime: Option<&'static str>) -> Expected {
    Expected { path, name: "resident", by: "script", container: Some(container), runtime, pod: None, unit: None }
}

fn pod(path: String, runtime: Option<&'static str>) -> Expected {
    Expected { pod: Some(POD), ..container(path, ID, runtime) }
}

/// Starts a server inside the group and compares everything that the group tells.
fn check(agent: &Agent, folder: &Scratch, group: &Cgroup, expected: &Expected) -> Result<()> {
    let (text, port) = port()?;
    let server = start(group.command(&python(folder, "resident.py", &[&text])?), port, folder)?;
    let pids = answers_as(agent, port, 2, expected.name, expected.by)?;
    ensure!(pids == [server.pid()], "{pids:?}");
    let calls = agent.calls_now(&[port])?;
    let rows = rows_of(agent, server.pid())?;
    let [row] = rows.as_slice() else { anyhow::bail!("{rows:?}") };
    let told = |key: &str| row["service"].get(key).cloned().unwrap_or(Value::Null);
    let found = json!({
        "container": told("container.id"), "runtime": told("container.runtime.name"),
        "pod": told("k8s.pod.uid"), "unit": row["unit"],
    });
    let wanted = json!({
        "container": expected.container, "runtime": expected.runtime, "pod": expected.pod, "unit": expected.unit,
    });
    ensure!(found == wanted, "{}: {found}, expected {wanted}", expected.path);
    ensure!(calls.len() == 4, "{} calls", calls.len());
    Ok(())
}

#[test]
fn units_name_what_runs_in_them() -> Result<()> {
    let folder = scripts(&[("resident.py", "serve(listen(sys.argv[1]))")])?;
    let agent = Agent::start(&[])?;
    let user = "/user.slice/user-1000.slice/user@1000.service";
    for expected in [
        unit("/system.slice/shop-orders.service", "shop-orders", "shop-orders.service"),
        unit("/system.slice/system-worker.slice/worker@7.service", "worker", "worker@7.service"),
        unit("/system.slice/one\\x2dtwo.service", "one-two", "one\\x2dtwo.service"),
        unit(&format!("{user}/app.slice/feeds.service"), "feeds", "feeds.service"),
        unit(
            &format!("{user}/app.slice/app-org.gnome.Maps@12.service"),
            "org.gnome.Maps",
            "app-org.gnome.Maps@12.service",
        ),
        // A login session says nothing about what runs in it.
        Expected { by: "script", unit: None, ..unit("/user.slice/user-1000.slice/session-3.scope", "resident", "") },
    ] {
        let group = Cgroup::v2(&expected.path)?;
        check(&agent, &folder, &group, &expected)?;
    }
    agent.finish()
}

#[test]
fn containers_are_known_by_every_form_of_path() -> Result<()> {
    let folder = scripts(&[("resident.py", "serve(listen(sys.argv[1]))")])?;
    let agent = Agent::start(&[])?;
    let uid = POD.replace('-', "_");
    let slices = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice");
    for expected in [
        container(format!("/docker/{ID}"), ID, Some("docker")),
        container(format!("/system.slice/docker-{ID}.scope"), ID, Some("docker")),
        container(format!("/libpod_parent/libpod-{ID}"), ID, Some("podman")),
        container(format!("/machine.slice/libpod-{ID}.scope/container"), ID, Some("podman")),
        container("/k8s.io/t1".to_owned(), "t1", Some("containerd")),
        pod(format!("/kubepods/burstable/pod{POD}/{ID}"), None),
        pod(format!("/kubepods/pod{POD}/{ID}"), None),
        pod(format!("{slices}/cri-containerd-{ID}.scope"), Some("containerd")),
        pod(format!("{slices}/crio-{ID}.scope"), Some("cri-o")),
        // kubelet's cgroupfs driver with a runtime that uses systemd's names.
        pod(format!("/kubepods/besteffort/pod{POD}/crio-{ID}.scope"), Some("cri-o")),
        // A service manager inside a container names what runs under it.
        Expected {
            unit: Some("feeds.service"),
            name: "feeds",
            by: "systemd unit",
            ..container("/lxc.payload.web/system.slice/feeds.service".to_owned(), "web", Some("lxc"))
        },
    ] {
        let group = Cgroup::v2(&expected.path)?;
        check(&agent, &folder, &group, &expected)?;
    }
    agent.finish()
}

/// Hybrid machines: the runtime knows only v1 hierarchies, and v2 is at its root.
#[test]
fn containers_of_cgroup_v1_are_known() -> Result<()> {
    let folder = scripts(&[("resident.py", "serve(listen(sys.argv[1]))")])?;
    let agent = Agent::start(&[])?;
    let expected = container(format!("/docker/{ID}"), ID, Some("docker"));
    let group = Cgroup::v1("pids", &expected.path)?;
    check(&agent, &folder, &group, &expected)?;
    drop(group);
    let expected = pod(format!("/kubepods/burstable/pod{POD}/{ID}"), None);
    let group = Cgroup::v1("freezer", &expected.path)?;
    check(&agent, &folder, &group, &expected)?;
    drop(group);
    agent.finish()
}

/// What a process's environment says of it stands above its unit, and a rule of the configuration above both.
#[test]
fn the_strongest_of_what_is_said_decides() -> Result<()> {
    let folder = scripts(&[("resident.py", "serve(listen(sys.argv[1]))")])?;
    let rules = "identity: { rules: [ { unit: ruled.service, name: by-rule, namespace: prod } ] }\n";
    let agent = Agent::configured(Some(rules), &[])?;
    let attributes = "service.name=by-attributes,service.version=1.2,deployment.environment.name=stage";
    for (path, variables, name, by) in [
        ("/system.slice/ruled.service", vec![("OTEL_SERVICE_NAME", "by-name")], "by-rule", "rule"),
        (
            "/system.slice/other.service",
            vec![("OTEL_SERVICE_NAME", "by-name"), ("OTEL_RESOURCE_ATTRIBUTES", attributes)],
            "by-name",
            "OTEL_SERVICE_NAME",
        ),
        (
            "/system.slice/other.service",
            vec![("OTEL_RESOURCE_ATTRIBUTES", attributes)],
            "by-attributes",
            "OTEL_RESOURCE_ATTRIBUTES",
        ),
        (
            "/system.slice/other.service",
            vec![("OTEL_RESOURCE_ATTRIBUTES", "service.name=%zz")],
            "other",
            "systemd unit",
        ),
    ] {
        let (text, port) = port()?;
        let group = Cgroup::v2(path)?;
        let mut command = group.command(&python(&folder, "resident.py", &[&text])?);
        command.envs(variables);
        let server = start(command, port, &folder)?;
        answers_as(&agent, port, 2, name, by)?;
        if name == "by-attributes" {
            let rows = rows_of(&agent, server.pid())?;
            ensure!(rows.iter().all(|row| row["service"]["service.version"] == "1.2"), "{rows:?}");
        }
        drop((server, group));
    }
    agent.finish()
}
