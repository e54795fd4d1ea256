//! Where the runtime keeps what of a goroutine, by version.

/// Offsets in `runtime.g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offsets {
    /// `goid`.
    pub(super) id: u32,
    /// `startpc`.
    pub(super) start: u32,
}

/// Of this version; `None` for one that is not known. The figures are those of DWARF in executables that each minor
/// version's compiler made; patches leave the structure alone, experiments and forks may not.
pub(super) fn offsets(version: &str) -> Option<Offsets> {
    let mut numbers = version.strip_prefix("go1.")?.split('.');
    let minor: u32 = numbers.next()?.parse().ok()?;
    if let Some(patch) = numbers.next() {
        patch.parse::<u32>().ok()?;
    }
    if numbers.next().is_some() {
        return None;
    }
    let (id, start) = match minor {
        20 => (152, 312),
        21 | 22 | 25 => (152, 296),
        23 | 24 => (160, 304),
        26 => (152, 304),
        _ => return None,
    };
    Some(Offsets { id, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_releases_that_were_looked_at() {
        assert_eq!(offsets("go1.22"), Some(Offsets { id: 152, start: 296 }));
        assert_eq!(offsets("go1.26.8"), Some(Offsets { id: 152, start: 304 }));
        let others = ["go1.19.13", "go1.27", "go2.1", "go1.26rc1", "go1.26.8 X:synctest", "go1.26.8-1", "devel", ""];
        for version in others {
            assert_eq!(offsets(version), None, "{version}");
        }
    }
}
