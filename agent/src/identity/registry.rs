//! The services that were seen, for `weir services`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::Service;

/// Most services that are listed.
const SERVICES: usize = 4096;
/// Most process ids that are listed of one service.
const PIDS: usize = 64;

/// A service that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The service, as its process that was seen last shows it; `evidence` says which rule named it.
    pub service: Arc<Service>,
    /// Its processes, the first 64.
    pub pids: BTreeSet<u32>,
    /// How many of its processes were seen.
    pub processes: u64,
    /// First and last connection or thread that was resolved to it, `CLOCK_MONOTONIC` nanoseconds.
    pub first: u64,
    /// See `first`.
    pub last: u64,
}

/// Services by name and namespace.
#[derive(Debug, Default)]
pub(super) struct Registry {
    lines: Vec<Seen>,
    by_name: HashMap<(Arc<str>, Option<Arc<str>>), usize>,
    /// Services that are not listed because there are too many.
    pub(super) refused: u64,
}

impl Registry {
    /// Lists a service that a process is resolved to; the number of its line. `lines`: those that the process stands in,
    /// where it is counted once, by however many ports it is named so.
    pub(super) fn enter(&mut self, service: &Arc<Service>, at: u64, lines: &mut Vec<usize>) -> Option<usize> {
        let key = (service.name.clone(), service.namespace.clone());
        let line = match self.by_name.get(&key) {
            Some(&line) => line,
            None if self.lines.len() >= SERVICES => {
                self.refused += 1;
                return None;
            }
            None => {
                self.lines.push(Seen {
                    service: service.clone(),
                    pids: BTreeSet::new(),
                    processes: 0,
                    first: at,
                    last: at,
                });
                self.by_name.insert(key, self.lines.len() - 1);
                self.lines.len() - 1
            }
        };
        let seen = self.lines.get_mut(line)?;
        seen.service = service.clone();
        if !lines.contains(&line) {
            lines.push(line);
            seen.processes += 1;
            if let Some(process) = &service.process
                && seen.pids.len() < PIDS
            {
                seen.pids.insert(process.pid);
            }
        }
        self.touch(line, at);
        Some(line)
    }

    /// A process turned out to be another service's: it is listed there from now on, and a line without any is none.
    pub(super) fn leave(&mut self, line: usize, pid: u32) {
        if let Some(seen) = self.lines.get_mut(line) {
            seen.processes = seen.processes.saturating_sub(1);
            seen.pids.remove(&pid);
        }
    }

    /// Notes that a service was seen again.
    pub(super) fn touch(&mut self, line: usize, at: u64) {
        if let Some(seen) = self.lines.get_mut(line) {
            seen.first = seen.first.min(at);
            seen.last = seen.last.max(at);
        }
    }

    /// All lines, in the order in which they were first seen.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Seen> {
        self.lines.iter().filter(|seen| seen.processes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Process;

    fn service(name: &str, pid: u32) -> Arc<Service> {
        let process = Some(Process { pid, ..Process::default() });
        Arc::new(Service { name: Arc::from(name), process, ..Service::unknown() })
    }

    #[test]
    fn processes_of_one_name_share_a_line() {
        let mut registry = Registry::default();
        let line = registry.enter(&service("a", 7), 20, &mut Vec::new()).unwrap();
        assert_eq!(registry.enter(&service("a", 5), 10, &mut Vec::new()), Some(line));
        assert_eq!(registry.enter(&service("b", 9), 30, &mut Vec::new()), Some(line + 1));
        registry.touch(line, 40);
        let seen = &registry.lines[line];
        assert_eq!((seen.pids.iter().copied().collect::<Vec<_>>(), seen.processes), (vec![5, 7], 2));
        assert_eq!((seen.first, seen.last), (10, 40));
        let mut lines = Vec::new();
        assert_eq!([1, 2].map(|at| registry.enter(&service("c", 11), at, &mut lines)), [Some(line + 2); 2]);
        assert_eq!((registry.lines[line + 2].processes, lines), (1, vec![line + 2]));
    }

    #[test]
    fn a_line_that_lost_its_processes_is_not_told() {
        let mut registry = Registry::default();
        let line = registry.enter(&service("a", 7), 10, &mut Vec::new()).unwrap();
        registry.enter(&service("b", 7), 10, &mut Vec::new()).unwrap();
        registry.leave(line, 7);
        assert_eq!(registry.lines().map(|seen| &*seen.service.name).collect::<Vec<_>>(), ["b"]);
        registry.enter(&service("a", 8), 20, &mut Vec::new()).unwrap();
        let told: Vec<_> = registry.lines().map(|seen| (&*seen.service.name, seen.processes)).collect();
        assert_eq!(told, [("a", 1), ("b", 1)]);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut registry = Registry::default();
        for pid in 0..5000 {
            registry.enter(&service(&format!("s{pid}"), pid), 1, &mut Vec::new());
        }
        assert_eq!((registry.lines.len(), registry.refused), (4096, 904));
        for pid in 0..100 {
            registry.enter(&service("s0", pid), 1, &mut Vec::new());
        }
        assert_eq!((registry.lines[0].pids.len(), registry.lines[0].processes), (64, 101));
    }
}
