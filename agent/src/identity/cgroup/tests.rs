#![cfg(test)]

use super::{Place, unit_name};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const POD: &str = "0123abcd-4567-89ab-cdef-0123456789ab";

/// path, container, runtime, pod, unit; `ID`, `POD` and `P_O_D` (underscores) stand for the long words.
const PATHS: &[(&str, &str, &str, &str, &str)] = &[
    ("/", "", "", "", ""),
    // kubelet, cgroupfs driver
    ("/kubepods/burstable/podPOD/ID", "ID", "", "POD", ""),
    ("/kubepods/besteffort/podPOD/ID", "ID", "", "POD", ""),
    ("/kubepods/podPOD/ID", "ID", "", "POD", ""),
    ("/kubepods/burstable/podPOD", "", "", "POD", ""),
    ("/kubepods/burstable/pod0123456789abcdef0123456789abcdef/ID", "ID", "", "0123456789abcdef0123456789abcdef", ""),
    // kubelet, systemd driver
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_O_D.slice/cri-containerd-ID.scope",
        "ID",
        "containerd",
        "POD",
        "",
    ),
    ("/kubepods.slice/kubepods-podP_O_D.slice/crio-ID.scope", "ID", "cri-o", "POD", ""),
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podP_O_D.slice/docker-ID.scope",
        "ID",
        "docker",
        "POD",
        "",
    ),
    ("/kubepods.slice/kubepods-podP_O_D.slice/crio-conmon-ID.scope", "", "", "POD", ""),
    ("/kubepods.slice/kubepods-podP_O_D.slice/crio-ID.scope/container", "ID", "cri-o", "POD", ""),
    // systemd driver's path under runc's cgroupfs driver
    (
        "/system.slice/containerd.service/kubepods-burstable-podP_O_D.slice:cri-containerd:ID",
        "ID",
        "containerd",
        "POD",
        "",
    ),
    // seen from a container's own cgroup namespace
    ("/../../podPOD/ID", "ID", "", "POD", ""),
    ("/../cri-containerd-ID.scope", "ID", "containerd", "", ""),
    // kind: a node that is a container
    (
        "/docker/ffff456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podP_O_D.slice/cri-containerd-ID.scope",
        "ID",
        "containerd",
        "POD",
        "",
    ),
    // docker, podman, containerd
    ("/docker/ID", "ID", "docker", "", ""),
    ("/system.slice/docker-ID.scope", "ID", "docker", "", ""),
    ("/system.slice/docker.service", "", "", "", "docker.service"),
    ("/docker/ID/system.slice/nginx.service", "ID", "docker", "", "nginx.service"),
    ("/libpod_parent/libpod-ID", "ID", "podman", "", ""),
    ("/machine.slice/libpod-ID.scope", "ID", "podman", "", ""),
    ("/machine.slice/libpod-ID.scope/container", "ID", "podman", "", ""),
    ("/machine.slice/libpod-conmon-ID.scope", "", "", "", ""),
    ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", "ID", "podman", "", ""),
    ("/system.slice/nerdctl-ID.scope", "ID", "containerd", "", ""),
    ("/k8s.io/t1", "t1", "containerd", "", ""),
    (
        "/ecs/55091c13-b8cf-4801-b527-f4601742204d/0123456789abcdef0123456789abcdef-2531612879",
        "0123456789abcdef0123456789abcdef-2531612879",
        "",
        "",
        "",
    ),
    // LXC, nspawn
    ("/lxc.payload.web/system.slice/nginx.service", "web", "lxc", "", "nginx.service"),
    ("/lxc/web/system.slice/nginx.service", "web", "lxc", "", "nginx.service"),
    ("/lxc.monitor.web", "", "", "", ""),
    ("/machine.slice/machine-deb.scope/system.slice/x.service", "deb", "systemd-nspawn", "", "x.service"),
    (
        "/machine.slice/systemd-nspawn@deb.service/payload/system.slice/x.service",
        "deb",
        "systemd-nspawn",
        "",
        "x.service",
    ),
    ("/payload/system.slice/x.service", "", "", "", "x.service"),
    ("/machine.slice/machine-my\\x2dbox.scope/payload", "my-box", "systemd-nspawn", "", ""),
    ("/machine.slice/machine-lxc\\x2d7\\x2dweb.scope", "lxc-7-web", "libvirt-lxc", "", ""),
    ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator", "", "", "", "machine-qemu\\x2d1\\x2dvm.scope"),
    // podman: Quadlet, pods, rootless
    ("/system.slice/web.service/libpod-payload-ID", "ID", "podman", "", "web.service"),
    ("/system.slice/web.service/runtime", "", "", "", "web.service"),
    ("/machine.slice/machine-libpod_pod_ID.slice/libpod-ID.scope", "ID", "podman", "", ""),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_ID.slice/libpod-ID.scope/container",
        "ID",
        "podman",
        "",
        "",
    ),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-ID",
        "ID",
        "podman",
        "",
        "web.service",
    ),
    // CRI-O by cgroupfs, docker by runc's own cgroupfs driver, docker in docker, LXC of a user
    ("/kubepods/burstable/podPOD/crio-ID", "ID", "cri-o", "POD", ""),
    ("/system.slice:docker:ID", "ID", "docker", "", ""),
    ("/docker/ffff456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef/docker/ID", "ID", "docker", "", ""),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/lxc-web-1.scope/lxc.payload.web", "web", "lxc", "", ""),
    ("/lxc/101/ns/system.slice/nginx.service", "101", "lxc", "", "nginx.service"),
    // systemd
    (
        "/system.slice/system-sshd.slice/sshd@1-10.0.0.1:22-10.0.0.2:5022.service",
        "",
        "",
        "",
        "sshd@1-10.0.0.1:22-10.0.0.2:5022.service",
    ),
    ("/system.slice/run-p4711-i4712.service", "", "", "", ""),
    ("/user.slice/user-1000.slice/user@1000.service/tmux-spawn-0f4d9a54.scope", "", "", "", ""),
    ("/system.slice/nginx.service", "", "", "", "nginx.service"),
    ("/system.slice/system-postgresql.slice/postgresql@15-main.service", "", "", "", "postgresql@15-main.service"),
    ("/system.slice/worker.service/delegated/leaf", "", "", "", "worker.service"),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/api.service", "", "", "", "api.service"),
    ("/user.slice/user-1000.slice/user@1000.service/init.scope", "", "", "", ""),
    ("/user.slice/user-1000.slice/session-4.scope", "", "", "", ""),
    ("/user.slice/user-1000.slice/session-c12.scope", "", "", "", ""),
    ("/init.scope", "", "", "", ""),
    ("/system.slice/run-u123.service", "", "", "", ""),
    ("/system.slice/run-r0123456789abcdef0123456789abcdef.scope", "", "", "", ""),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-0f.scope", "", "", "", ""),
    ("/system.slice", "", "", "", ""),
    ("/system.slice/x.mount", "", "", "", ""),
    // look like one, but are none
    ("/podman/x", "", "", "", ""),
    ("/kubepods/burstable/pod-nothing", "", "", "", ""),
    ("/0123", "", "", "", ""),
];

fn fill(text: &str) -> String {
    text.replace("P_O_D", &POD.replace('-', "_")).replace("POD", POD).replace("ID", ID)
}

#[test]
fn every_known_form_is_read() {
    for (path, container, runtime, pod, unit) in PATHS {
        let place = Place::of(&fill(path));
        let word = |text: &Option<std::sync::Arc<str>>| text.as_deref().unwrap_or("").to_owned();
        assert_eq!(
            (word(&place.container), place.runtime.unwrap_or(""), word(&place.pod), word(&place.unit)),
            (fill(container), *runtime, fill(pod), (*unit).to_owned()),
            "{path}"
        );
    }
}

#[test]
fn v1_and_hybrid_hosts_are_read_from_the_line_that_tells() {
    let hybrid = fill("12:pids:/docker/ID\n1:name=systemd:/docker/ID\n0::/system.slice/containerd.service\n");
    let (place, path) = Place::of_proc(&hybrid);
    assert_eq!(place.container.as_deref(), Some(ID));
    assert_eq!(place.unit, None);
    assert_eq!(path.as_deref(), Some("/system.slice/containerd.service"));

    let v1 = "11:memory:/system.slice\n4:cpu,cpuacct:/\n1:name=systemd:/system.slice/nginx.service\n";
    let (place, path) = Place::of_proc(v1);
    assert_eq!(place.unit.as_deref(), Some("nginx.service"));
    assert_eq!(path, None);

    let (place, path) = Place::of_proc("0::/system.slice/gone.service (deleted)\n");
    assert_eq!(place.unit.as_deref(), Some("gone.service"));
    assert_eq!(path.as_deref(), Some("/system.slice/gone.service"));
    assert_eq!(Place::of_proc("garbage\n\n:::\n").0, Place::default());
}

#[test]
fn units_become_names() {
    for (unit, name) in [
        ("nginx.service", "nginx"),
        ("postgresql@15-main.service", "postgresql"),
        ("my\\x2dapp.service", "my-app"),
        ("a\\xzz.service", "a\\xzz"),
        ("app-org.gnome.Terminal-1234.scope", "org.gnome.Terminal"),
        ("app-gnome-org.mozilla.firefox-1234.scope", "org.mozilla.firefox"),
        ("app-flatpak-org.kde.kate@0a1b.service", "org.kde.kate"),
        ("app-my\\x2dtool.service", "my-tool"),
        ("batch.scope", "batch"),
        ("sshd@1-10.0.0.1:22-10.0.0.2:5022.service", "sshd"),
        ("dbus-:1.2-org.freedesktop.problems@0.service", "org.freedesktop.problems"),
        ("snap.firefox.firefox-0f4d9a54-1d0c-4a0e-9a53-000000000159.scope", "snap.firefox.firefox"),
        ("snap.lxd.daemon.service", "snap.lxd.daemon"),
    ] {
        assert_eq!(unit_name(unit).as_deref(), Some(name), "{unit}");
    }
}
