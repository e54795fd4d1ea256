//! The gate: its tables, and its programs, which are loaded when they are first asked for and attached only while the
//! node enforces.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, ProgramArray};
use aya::programs::{Program, ProgramError};
use weir_common::judge::{Classes, Row};
use weir_common::verdict::{
    Active, AddressRow, AllowRow, Bank, GateSlot, IdentityKey, MASKS, Mask, STATES, SWITCH_ACTIVE, SWITCH_HEARTBEAT,
    Slot, SlotCount,
};

use super::batch;
use super::facts::chain;
use super::link::{self, Place};

/// Where bpffs is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";
/// Names of what is pinned.
const PINS: [&str; 8] = ["link_0", "link_1", "link_2", "link_3", "link_4", "link_5", "steps_in", "steps_out"];

/// What is attached, and the programs that each calls, by their index.
const WAYS: [(&str, &[&str], Place); 2] = [
    (
        "weir_gate_in",
        &["weir_stand_in", "weir_read_in", "weir_decide_in", "weir_early_read", "weir_early_decide"],
        Place::Ingress,
    ),
    ("weir_gate_out", &["weir_stand_out", "weir_read_out", "weir_decide_out"], Place::Egress),
];
/// What refuses to connect.
const CONNECTS: [(&str, Place); 2] = [("weir_connect4", Place::Connect4), ("weir_connect6", Place::Connect6)];

/// Why the gate can't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A table is missing or refuses a row.
    #[error("writing the gate's table {table}: {why}")]
    Table {
        /// Its name.
        table: &'static str,
        /// What the kernel said.
        why: String,
    },
    /// A program was refused.
    #[error("the gate's program {program} was refused: {why}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        why: String,
    },
    /// A pin can't be made.
    #[error("pinning the gate at {}: {source}", path.display())]
    Pin {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

fn refused<E: std::error::Error>(table: &'static str) -> impl Fn(E) -> GateError {
    move |error| GateError::Table { table, why: chain(&error) }
}

/// Tables and links of the gate.
pub struct Gate {
    switch: Array<MapData, u64>,
    banks: Array<MapData, Bank>,
    slots: Array<MapData, Slot>,
    slot_counts: PerCpuArray<MapData, SlotCount>,
    counts: PerCpuArray<MapData, u64>,
    addresses: LpmTrie<MapData, [u8; 16], AddressRow>,
    allowed: LpmTrie<MapData, [u8; 16], AllowRow>,
    identities: HashMap<MapData, IdentityKey, u64>,
    limits: HashMap<MapData, weir_common::verdict::LimitKey, u64>,
    states: OwnedFd,
    classes: Array<MapData, Classes>,
    masks: OwnedFd,
    steps: [ProgramArray<MapData>; 2],
    step_maps: Vec<OwnedFd>,
    links: Vec<OwnedFd>,
    supports: Vec<OwnedFd>,
    loaded: bool,
    pinned: bool,
    unpinnable: bool,
    pins: PathBuf,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("open", &self.is_attached()).finish_non_exhaustive()
    }
}

impl Gate {
    /// Takes its tables out of the object. What an agent that was killed had pinned for this cgroup is removed.
    pub fn take(ebpf: &mut Ebpf, cgroup: &File) -> Result<Self, GateError> {
        fn table<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, GateError> {
            let map = ebpf.take_map(name).ok_or(GateError::Table { table: name, why: "it is missing".to_owned() })?;
            T::try_from(map).map_err(refused(name))
        }
        let written = |ebpf: &Ebpf, name: &'static str| {
            let map = ebpf.map(name).and_then(super::load::fd);
            map.ok_or(GateError::Table { table: name, why: "it is missing".to_owned() })
        };
        let step_maps = ["STEPS_IN", "STEPS_OUT"].iter().filter_map(|name| super::load::fd(ebpf.map(name)?)).collect();
        let inode = cgroup.metadata().map(|data| data.ino()).unwrap_or_default();
        let pins = Path::new(BPFFS).join(format!("weir-{inode}"));
        remove(&pins);
        Ok(Self {
            switch: table(ebpf, "SWITCH")?,
            banks: table(ebpf, "BANKS")?,
            slots: table(ebpf, "SLOTS_OF_RULES")?,
            slot_counts: table(ebpf, "SLOT_COUNTS")?,
            counts: table(ebpf, "GATE_COUNTS")?,
            addresses: table(ebpf, "ADDRESSES")?,
            allowed: table(ebpf, "ALLOWED")?,
            identities: table(ebpf, "IDENTITIES")?,
            limits: table(ebpf, "LIMITS")?,
            states: written(ebpf, "STATES")?,
            classes: table(ebpf, "CLASSES")?,
            masks: written(ebpf, "MASKS")?,
            steps: [table(ebpf, "STEPS_IN")?, table(ebpf, "STEPS_OUT")?],
            step_maps,
            links: Vec::new(),
            supports: Vec::new(),
            loaded: false,
            pinned: false,
            unpinnable: false,
            pins,
        })
    }

    /// Keeps the link of a program that the gate does not drop right without: it outlives the agent with the gate.
    pub(super) fn supports(&mut self, link: Option<OwnedFd>) {
        self.supports.extend(link);
    }

    /// It is attached.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        !self.links.is_empty()
    }

    /// Its programs are loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// It stays attached should the agent die.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Loads its programs, where that was not done yet: a second of a processor's time and more.
    pub fn load(&mut self, ebpf: &mut Ebpf) -> Result<(), GateError> {
        if self.loaded {
            return Ok(());
        }
        for (entry, steps, _) in WAYS {
            steps.iter().chain([&entry]).try_for_each(|name| load(ebpf, name).map(drop))?;
        }
        for (name, _) in CONNECTS {
            // Said where it is missed: see `attach`.
            drop(load(ebpf, name));
        }
        self.loaded = true;
        Ok(())
    }

    /// Attaches it, with programs that [`Gate::load`] has loaded or that are loaded now. Nothing is refused before
    /// [`Gate::activate`].
    pub fn attach(&mut self, ebpf: &mut Ebpf, cgroup: &File) -> Result<(), GateError> {
        if self.is_attached() {
            return Ok(());
        }
        self.activate(0)?;
        let mut links = Vec::new();
        for ((entry, steps, place), to) in WAYS.into_iter().zip(&mut self.steps) {
            for (index, step) in (0..).zip(steps) {
                let fd = load(ebpf, step)?;
                to.set(index, &fd, 0).map_err(refused("STEPS"))?;
            }
            let fd = load(ebpf, entry)?;
            let link = link::create(fd.as_fd(), cgroup, place)
                .map_err(|error| GateError::Program { program: entry, why: format!("attaching it: {error}") })?;
            links.push(link);
        }
        for (name, place) in CONNECTS {
            let link = load(ebpf, name).and_then(|fd| {
                link::create(fd.as_fd(), cgroup, place)
                    .map_err(|error| GateError::Program { program: name, why: format!("attaching it: {error}") })
            });
            match link {
                Ok(link) => links.push(link),
                // Not needed: what it would refuse at once is refused with the first bytes.
                Err(error) => tracing::warn!(%error, "outgoing connections are refused with their first bytes only"),
            }
        }
        self.loaded = true;
        self.links = links;
        Ok(())
    }

    /// Lets everything pass, and detaches it.
    pub fn detach(&mut self) -> Result<(), GateError> {
        let result = self.activate(0);
        self.unpin();
        self.links.clear();
        result
    }

    /// Keeps it attached when the agent dies, so that rules with an end hold until then; or no more.
    pub fn outlive(&mut self, on: bool) -> Result<(), GateError> {
        if on == self.pinned || !self.is_attached() || (on && self.unpinnable) {
            return Ok(());
        }
        if !on {
            self.unpin();
            return Ok(());
        }
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| GateError::Pin { path, source }
        };
        // Said once; tried again when the gate is attached anew.
        self.unpinnable = true;
        folder(&self.pins).map_err(at(&self.pins))?;
        // Steps too: a map of programs is emptied when nobody holds it from outside.
        let pinned = self.named().try_for_each(|(object, name)| {
            let path = self.pins.join(name);
            link::pin(object.as_fd(), &path).map_err(at(&path))
        });
        self.pinned = pinned.is_ok();
        self.unpinnable = pinned.is_err();
        if pinned.is_err() {
            // Half of it would drop without the other half.
            remove(&self.pins);
        }
        pinned
    }

    /// What is pinned, and under which name.
    fn named(&self) -> impl Iterator<Item = (&OwnedFd, &'static str)> {
        let (links, steps) = PINS.split_at(PINS.len() - 2);
        let links = self.links.iter().chain(&self.supports).zip(links.iter().copied());
        links.chain(self.step_maps.iter().zip(steps.iter().copied()))
    }

    fn unpin(&mut self) {
        self.unpinnable = false;
        remove(&self.pins);
        self.pinned = false;
    }

    /// Makes a generation count; 0: nothing is refused.
    pub fn activate(&mut self, active: Active) -> Result<(), GateError> {
        self.switch.set(SWITCH_ACTIVE, active, 0).map_err(refused("SWITCH"))
    }

    /// The agent lives.
    pub fn beat(&mut self, monotonic_ns: u64) -> Result<(), GateError> {
        self.switch.set(SWITCH_HEARTBEAT, monotonic_ns, 0).map_err(refused("SWITCH"))
    }

    /// Writes what all rules of a generation ask for.
    pub fn bank(&mut self, active: Active, bank: Bank) -> Result<(), GateError> {
        self.banks.set((active & 1) as u32, bank, 0).map_err(refused("BANKS"))
    }

    /// Writes a slot; its limits start anew.
    pub fn slot(&mut self, index: u16, slot: Slot) -> Result<(), GateError> {
        self.slots.set(index.into(), slot, 0).map_err(refused("SLOTS_OF_RULES"))
    }

    /// Writes what a client prefix selects.
    pub fn row(&mut self, address: [u8; 16], row: &AddressRow) -> Result<(), GateError> {
        self.addresses.insert(&Key::new(row.len, address), row, 0).map_err(refused("ADDRESSES"))
    }

    /// Removes a client prefix; one that is not there is gone already.
    pub fn no_row(&mut self, address: [u8; 16], len: u8) -> Result<(), GateError> {
        absent(self.addresses.remove(&Key::new(len.into(), address))).map_err(refused("ADDRESSES"))
    }

    /// Forgets every client prefix.
    pub fn no_rows(&mut self) -> Result<(), GateError> {
        let keys: Vec<_> = self.addresses.keys().filter_map(Result::ok).collect();
        keys.iter().try_for_each(|key| absent(self.addresses.remove(key))).map_err(refused("ADDRESSES"))
    }

    /// Writes a compiled table into the half that its number names.
    pub fn machine(&mut self, table: u32, rows: &[Row], classes: &Classes, masks: &[Mask]) -> Result<(), GateError> {
        let half = table & 1;
        batch::write(self.states.as_fd(), half * STATES, rows).map_err(refused("STATES"))?;
        batch::write(self.masks.as_fd(), half * MASKS, masks).map_err(refused("MASKS"))?;
        self.classes.set(half, classes, 0).map_err(refused("CLASSES"))
    }

    /// Puts these entries in the allow-list's place.
    pub fn allow(&mut self, entries: &[([u8; 16], u8, AllowRow)]) -> Result<(), GateError> {
        for (address, len, row) in entries {
            let key = Key::new((*len).into(), *address);
            // Counts go on.
            let hits = self.allowed.get(&key, 0).map_or(0, |known| known.hits);
            self.allowed.insert(&key, AllowRow { hits, ..*row }, 0).map_err(refused("ALLOWED"))?;
        }
        let known: Vec<_> = self.allowed.keys().filter_map(Result::ok).collect();
        for key in known {
            let stays =
                entries.iter().any(|(address, len, _)| u32::from(*len) == key.prefix_len() && *address == key.data());
            if !stays {
                absent(self.allowed.remove(&key)).map_err(refused("ALLOWED"))?;
            }
        }
        Ok(())
    }

    /// Connections that an entry of the allow-list let pass, since it is there.
    #[must_use]
    pub fn saved(&self, address: [u8; 16], len: u8) -> u64 {
        self.allowed.get(&Key::new(len.into(), address), 0).map_or(0, |row| row.hits)
    }

    /// Writes the identity groups of a process, a cgroup or a task name; none: it is forgotten.
    pub fn identity(&mut self, key: IdentityKey, groups: u64) -> Result<(), GateError> {
        if groups == 0 { absent(self.identities.remove(&key)) } else { self.identities.insert(key, groups, 0) }
            .map_err(refused("IDENTITIES"))
    }

    /// Forgets every identity.
    pub fn no_identities(&mut self) -> Result<(), GateError> {
        let keys: Vec<_> = self.identities.keys().filter_map(Result::ok).collect();
        keys.iter().try_for_each(|key| absent(self.identities.remove(key))).map_err(refused("IDENTITIES"))
    }

    /// Takes everybody out of these groups, a bit each.
    pub fn leave_groups(&mut self, groups: u64) -> Result<(), GateError> {
        let keys: Vec<_> = self.identities.keys().filter_map(Result::ok).collect();
        for key in keys {
            let Ok(known) = self.identities.get(&key, 0) else { continue };
            if known & groups != 0 {
                self.identity(key, known & !groups)?;
            }
        }
        Ok(())
    }

    /// Forgets what a slot's limits counted.
    pub fn no_limits(&mut self, slot: u16) -> Result<(), GateError> {
        let keys = self.limits.keys().filter_map(Result::ok).filter(|key| key.slot == u64::from(slot));
        let keys: Vec<_> = keys.collect();
        keys.iter().try_for_each(|key| absent(self.limits.remove(key))).map_err(refused("LIMITS"))
    }

    /// What a slot met, since it was first written.
    #[must_use]
    pub fn met(&self, slot: u16) -> SlotCount {
        let mut sum = SlotCount::default();
        for one in self.slot_counts.get(&slot.into(), 0).iter().flat_map(|values| values.iter()) {
            sum.connections += one.connections;
            sum.requests += one.requests;
            sum.attempts += one.attempts;
            sum.segments += one.segments;
        }
        sum
    }

    /// One of its own counters, over all CPUs.
    #[must_use]
    pub fn count(&self, slot: GateSlot) -> u64 {
        self.counts.get(&slot.0, 0).map_or(0, |values| values.iter().sum())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // An agent that ends in order leaves nothing behind; the links end with their descriptors.
        if self.pinned {
            self.unpin();
        }
    }
}

fn absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Makes the folder of the pins. Where a bpffs is mounted with mode 1777 anybody may have taken its name: in a folder of
/// somebody else's, or behind a link, the gate would be theirs to take away.
fn folder(pins: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(pins) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match holder(pins)? {
            None => Ok(()),
            Some(who) => Err(io::Error::other(format!(
                "user {who} has taken this name; remove it, and mount {BPFFS} with mode=0700"
            ))),
        },
        made => made,
    }
}

/// Who else has the name of the pins' folder. `None`: it is a folder of this user's that nobody else may write to.
fn holder(pins: &Path) -> io::Result<Option<u32>> {
    let found = fs::symlink_metadata(pins)?;
    // SAFETY: no arguments, always succeeds.
    let own = unsafe { libc::geteuid() };
    Ok((!found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0).then(|| found.uid()))
}

/// Removes pins; what is not there is gone already. Of what somebody else put there, no more than a link or an empty
/// folder is removed.
fn remove(pins: &Path) {
    if matches!(holder(pins), Ok(None)) {
        for name in PINS {
            let _ = fs::remove_file(pins.join(name));
        }
    }
    let _ = fs::remove_file(pins).or_else(|_| fs::remove_dir(pins));
}

/// A program that is loaded; it is loaded where it is not yet.
fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::programs::ProgramFd, GateError> {
    let why = |why: String| GateError::Program { program: name, why };
    let Some(program) = ebpf.program_mut(name) else {
        return Err(why("the object has no such program".to_owned()));
    };
    let result = match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    match result {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
        Err(error) => return Err(why(super::load::told(&error))),
    }
    program.fd().and_then(|fd| fd.try_clone().map_err(ProgramError::IOError)).map_err(|error| why(chain(&error)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn pins_go_into_a_folder_of_ones_own_only() {
        let base = std::env::temp_dir().join(format!("weir-pins-{}", std::process::id()));
        fs::create_dir_all(base.join("theirs")).unwrap();
        let pins = base.join("weir-1");
        // New, and left behind by an agent that was killed.
        for _ in 0..2 {
            folder(&pins).unwrap();
            assert_eq!(fs::symlink_metadata(&pins).unwrap().mode() & 0o777, 0o700);
        }
        fs::write(pins.join("link_0"), "").unwrap();
        remove(&pins);
        assert!(!pins.exists());
        // Behind a link: nothing there is touched, and the link gives way.
        fs::write(base.join("theirs/link_0"), "").unwrap();
        symlink(base.join("theirs"), &pins).unwrap();
        assert!(folder(&pins).unwrap_err().to_string().contains("has taken this name"));
        remove(&pins);
        assert!(fs::symlink_metadata(&pins).is_err() && base.join("theirs/link_0").exists());
        // A folder that others may write to.
        fs::create_dir(&pins).unwrap();
        fs::write(pins.join("kept"), "").unwrap();
        fs::set_permissions(&pins, fs::Permissions::from_mode(0o777)).unwrap();
        remove(&pins);
        assert!(folder(&pins).is_err() && pins.join("kept").exists());
        fs::remove_dir_all(&base).unwrap();
    }
}
