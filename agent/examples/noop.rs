//! Attaches the programs that do nothing, for `cargo xtask bench` to know what attaching costs as such. Prints
//! `attached`, and ends with its input.

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Read as _},
};

use aya::{
    EbpfLoader,
    programs::{CgroupSkb, CgroupSkbAttachType, links::CgroupAttachMode},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WEIR_EBPF_OBJECT"));

fn main() -> Result<(), Box<dyn Error>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let root = table
        .lines()
        .find_map(|line| line.split_once(" - cgroup2 ")?.0.split(' ').nth(4))
        .ok_or("cgroup v2 is not mounted")?;
    let root = File::open(root)?;
    // The smallest ring: nothing is put there.
    let mut ebpf = EbpfLoader::new().map_max_entries("RING", 4096).load(OBJECT)?;
    for (name, way) in
        [("weir_noop_ingress", CgroupSkbAttachType::Ingress), ("weir_noop_egress", CgroupSkbAttachType::Egress)]
    {
        let program: &mut CgroupSkb = ebpf.program_mut(name).ok_or("the object has no such program")?.try_into()?;
        program.load()?;
        program.attach(&root, way, CgroupAttachMode::Single)?;
    }
    println!("attached");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
