//! Where a process lives: container, pod and systemd unit, read from a cgroup path.
//!
//! The path says who made the group: kubelet, containerd, docker, podman, CRI-O, LXC, nspawn or systemd. Forms were
//! taken from running systems; `tests` holds them.

mod tests;

use std::borrow::Cow;
use std::sync::Arc;

/// What a cgroup path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Container id (64 hex digits) or, for LXC and nspawn, its name.
    pub(super) container: Option<Arc<str>>,
    /// Who runs the container: `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `libvirt-lxc`, `systemd-nspawn`; absent where the
    /// path does not tell.
    pub(super) runtime: Option<&'static str>,
    /// Pod uid with dashes, as the API server spells it (static pods: 32 hex digits).
    pub(super) pod: Option<Arc<str>>,
    /// systemd unit of the host, or of the container where one runs systemd inside: the innermost; never one that
    /// only holds a login session, a user manager or a container.
    pub(super) unit: Option<Arc<str>>,
}

impl Place {
    /// The place that `path` tells (`/system.slice/nginx.service`).
    pub(super) fn of(path: &str) -> Self {
        let mut place = Self::default();
        let mut parent = "";
        for part in path.split('/') {
            // A group of another cgroup namespace shows as `/../../x`; cgroupfs escapes reserved names with `_`.
            let part = part.strip_prefix('_').filter(|rest| rest.contains('.')).unwrap_or(part);
            if part.is_empty() || part == ".." {
                continue;
            }
            // `kubepods-pod<uid>.slice:cri-containerd:<id>`: the systemd form under the cgroupfs driver. Units have colons, too
            // (`sshd@1-10.0.0.1:22-10.0.0.2:5022.service`).
            if part.rsplit_once(':').is_some_and(|(_, last)| is_id(last)) {
                for part in part.split(':') {
                    place.step(parent, part);
                    parent = part;
                }
            } else {
                place.step(parent, part);
                parent = part;
            }
        }
        place
    }

    /// The place that all lines of `/proc/PID/cgroup` tell together: the v2 line first, then v1's, the first one that
    /// names a container, else the first one that names a unit.
    pub(super) fn of_proc(text: &str) -> (Self, Option<Arc<str>>) {
        let mut v2 = None;
        let mut best = Self::default();
        let lines = text.lines().filter_map(|line| {
            let (_, line) = line.split_once(':')?;
            let (controllers, path) = line.split_once(':')?;
            Some((controllers, path.strip_suffix(" (deleted)").unwrap_or(path)))
        });
        let rank = |controllers: &str| match controllers {
            "" => 0,
            "name=systemd" => 1,
            _ => 2,
        };
        let mut lines: Vec<_> = lines.take(64).collect();
        lines.sort_by_key(|(controllers, _)| rank(controllers));
        for (controllers, path) in lines {
            if controllers.is_empty() {
                v2 = Some(Arc::from(path));
            }
            let place = Self::of(path);
            if best.container.is_none() && (place.container.is_some() || place.pod.is_some()) {
                best = place;
            } else if best.container.is_none() && best.pod.is_none() && best.unit.is_none() {
                best.unit = place.unit;
            }
        }
        (best, v2)
    }

    fn step(&mut self, parent: &str, part: &str) {
        if let Some(pod) = pod(part) {
            *self = Self { pod: Some(Arc::from(pod)), ..Self::default() };
        } else if let Some(id) = part.strip_prefix("libpod-payload-").filter(|id| is_id(id)) {
            // podman with `--cgroups=split`, as Quadlet has it: the unit is the container's own.
            self.container = Some(Arc::from(id));
            self.runtime = Some("podman");
        } else if let Some((runtime, container)) = container(parent, part) {
            // What follows is the container's own: the unit that holds the container is not the process's.
            self.container = Some(Arc::from(&*container));
            self.runtime = runtime;
            self.unit = None;
        } else if is_unit(part) {
            self.unit = Some(Arc::from(part));
        }
    }
}

/// `pod<uid>`, `kubepods-burstable-pod<uid with underscores>.slice`.
fn pod(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.split_once("kubepods-") {
        // `kubelet-kubepods-…` under kind's own slice.
        Some((_, rest)) => rest.rsplit_once("pod").filter(|(class, _)| class.is_empty() || class.ends_with('-'))?.1,
        None => part.strip_prefix("pod")?,
    };
    let dashed = uid.replace('_', "-");
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let groups: Vec<_> = dashed.split('-').map(str::len).collect();
    let fits = groups == [8, 4, 4, 4, 12] || groups == [32];
    (fits && dashed.split('-').all(hex)).then_some(dashed)
}

/// A container's folder: its runtime and its id or name.
fn container<'a>(parent: &str, part: &'a str) -> Option<(Option<&'static str>, Cow<'a, str>)> {
    const PREFIXES: [(&str, &str); 5] = [
        ("docker-", "docker"),
        ("cri-containerd-", "containerd"),
        ("nerdctl-", "containerd"),
        ("crio-", "cri-o"),
        ("libpod-", "podman"),
    ];
    let stem = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = stem.strip_prefix(prefix) {
            // Helpers of the runtime have folders of their own: `libpod-conmon-<id>.scope`, `crio-conmon-<id>.scope`.
            return is_id(id).then_some((Some(runtime), Cow::Borrowed(id)));
        }
    }
    if is_id(stem) {
        let runtime = match parent {
            "docker" => Some("docker"),
            "cri-containerd" => Some("containerd"),
            "libpod_parent" => Some("podman"),
            "crio" => Some("cri-o"),
            _ => None,
        };
        return Some((runtime, Cow::Borrowed(stem)));
    }
    for prefix in ["lxc.payload.", "lxc-payload."] {
        if let Some(name) = part.strip_prefix(prefix) {
            return Some((Some("lxc"), Cow::Borrowed(name)));
        }
    }
    if parent == "lxc" || parent == "lxc.payload" {
        return Some((Some("lxc"), Cow::Borrowed(part)));
    }
    if parent == "machine.slice"
        && let Some(name) = part
            .strip_prefix("machine-")
            .and_then(|name| name.strip_suffix(".scope"))
            .or_else(|| part.strip_prefix("systemd-nspawn@")?.strip_suffix(".service"))
    {
        // Machines of libvirt stand there, too: one of QEMU is no container of this kernel.
        let name = unescape(name);
        if name.starts_with("qemu-") {
            return None;
        }
        let runtime = if name.starts_with("lxc-") { "libvirt-lxc" } else { "systemd-nspawn" };
        return Some((Some(runtime), Cow::Owned(name)));
    }
    // `ctr run`: /<namespace>/<name>; only the namespaces that are containerd's own by convention are taken for one.
    (matches!(parent, "k8s.io" | "moby") && !part.contains('.')).then_some((Some("containerd"), Cow::Borrowed(part)))
}

/// 64 hex digits (all OCI engines), or 32 and more with dashes (Cloud Foundry, ECS `<32 hex>-<digits>`).
fn is_id(text: &str) -> bool {
    if text.len() == 64 {
        return text.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    text.split_once('-').is_some_and(|(hex, digits)| {
        hex.len() == 32
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// A unit that says what runs in it, not only that something does.
fn is_unit(part: &str) -> bool {
    let Some((stem, kind)) = part.rsplit_once('.') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    // `run-u12`, `run-r<32 hex digits>`, and since systemd 257 `run-p<pid>-i<number>`.
    let generated = |rest: &str| {
        digits(rest.strip_prefix('r').or_else(|| rest.strip_prefix('u')).unwrap_or(""))
            || rest
                .strip_prefix('p')
                .and_then(|rest| rest.split_once("-i"))
                .is_some_and(|(a, b)| digits(a) && digits(b))
    };
    match kind {
        "service" => {
            !stem.is_empty()
                && !stem.starts_with("user@")
                && !stem.strip_prefix("run-").is_some_and(|rest| generated(rest) || rest.starts_with("user-"))
        }
        "scope" => {
            stem != "init"
                && !stem.is_empty()
                && !stem.strip_prefix("session-").is_some_and(digits)
                && !stem.strip_prefix("run-").is_some_and(generated)
                && !stem.starts_with("vte-spawn-")
                && !stem.starts_with("tmux-spawn-")
                && !["libpod-", "crio-", "docker-", "cri-containerd-", "lxc.monitor."]
                    .iter()
                    .any(|p| stem.starts_with(p))
        }
        _ => false,
    }
}

/// A service's name from its unit: without suffix, without a template's instance, unescaped
/// (`systemd-escape(1)`); an application's id for the units of a desktop session
/// (systemd "Desktop Environment Integration": `app[-<launcher>]-<id>[@<random>].service`,
/// `app[-<launcher>]-<id>-<random>.scope`).
pub(super) fn unit_name(unit: &str) -> Option<Arc<str>> {
    let (stem, kind) = unit.rsplit_once('.')?;
    let stem = stem.split_once('@').map_or(stem, |(template, _)| template);
    let stem = if let Some(rest) = stem.strip_prefix("app-") {
        let mut parts = rest.rsplit('-');
        if kind == "scope" && rest.contains('-') {
            parts.next();
        }
        parts.next().unwrap_or(rest)
    } else if let Some(rest) = stem.strip_prefix("dbus-:") {
        // Started for a name of D-Bus: `dbus-:1.2-org.freedesktop.problems@0.service`.
        rest.split_once('-').map_or(stem, |(_, name)| name)
    } else if let Some((name, random)) =
        stem.strip_prefix("snap.").and_then(|_| stem.split_at_checked(stem.len() - 37.min(stem.len())))
        && is_uuid(random.strip_prefix('-').unwrap_or(""))
    {
        // A program of a snap: `snap.firefox.firefox-<uuid>.scope`.
        name
    } else {
        stem
    };
    super::environ::clean(&unescape(stem))
}

fn is_uuid(text: &str) -> bool {
    let groups = text.split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Undoes `systemd-escape`: `\xNN` is a byte.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        let (before, escape) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        if let Some(byte) = escape.get(2..4).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = escape.get(4..).unwrap_or("");
        } else {
            bytes.extend_from_slice(b"\\x");
            rest = escape.get(2..).unwrap_or("");
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}
