//! What `weir doctor` says of the gate.

use weir_common::verdict::{GRACE_NS, GateSlot};

use super::Blocks;
use crate::app::doctor::{Row, Standing};
use crate::policy::rule::Mode;

/// What follows where the gate is not there.
const REMEDY: &str = "nothing is dropped, all rules only count: mend what the kernel says, then `weir mode enforce`; \
                      it may be a program too many at this cgroup (64 at most), a missing CAP_NET_ADMIN or CAP_BPF, \
                      or a kernel that refuses the program (please report it)";

impl Blocks {
    /// Rows about the gate of a running agent.
    pub(in crate::app) fn doctor(&self) -> Vec<Row> {
        let book = self.book();
        let row = |subject: &str, standing, detail: String, remedy: &str| Row {
            section: "program",
            subject: subject.to_owned(),
            standing,
            detail,
            remedy: remedy.to_owned(),
        };
        let Some(kernel) = book.kernel() else {
            return vec![row("gate", Standing::Unknown, "the kernel half is not loaded yet".to_owned(), "")];
        };
        let (attached, pinned, damaged) =
            kernel.look(|gate| (gate.is_attached(), gate.is_pinned(), gate.count(GateSlot::DAMAGED)));
        let rules = book.set().rules().filter(|rule| rule.mode == Mode::Enforce).count();
        let mut rows = match (&book.refused, attached) {
            (Some(why), _) => vec![row("gate", Standing::Degraded, format!("refused: {why}"), REMEDY)],
            (None, false) => {
                let detail = format!("not attached: the node is in monitor mode; {rules} rules would be enforced");
                vec![row("gate", Standing::Ok, detail, "")]
            }
            (None, true) => vec![row("gate", Standing::Ok, format!("attached; {rules} rules are enforced"), "")],
        };
        if attached && book.set().outlives() && !pinned {
            rows.push(row(
                "gate without an agent",
                Standing::Degraded,
                format!("should the agent die, rules with an end hold for {} s only", GRACE_NS / 1_000_000_000),
                "mount -t bpf -o mode=0700 bpf /sys/fs/bpf (the log says what else is in the way), then `weir mode monitor` and `weir mode enforce`",
            ));
        }
        if damaged > 0 {
            let detail = format!("{damaged} segments passed unjudged because a table could not be read");
            rows.push(row("gate's tables", Standing::Degraded, detail, "please report it, with `weir mode --json`"));
        }
        rows
    }
}
