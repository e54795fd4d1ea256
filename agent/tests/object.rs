//! The kernel half as an object: what older kernels' verifiers would say to it, without such a kernel.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use aya_obj::{Function, Object};

static OBJECT: &[u8] = include_bytes!(env!("WEIR_EBPF_OBJECT"));

/// `BPF_CLASS`, `BPF_OP` and their values (`include/uapi/linux/bpf_common.h`, `bpf.h`).
const JMP: u8 = 5;
const JMP32: u8 = 6;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Discovered,
    Explored,
}

/// Where control may go from an instruction, and whether it may go back there: as `visit_insn` of Linux 5.10 and 6.1.
fn edges(function: &Function, at: usize) -> Vec<(usize, bool)> {
    let Some(insn) = function.instructions.get(at) else { return Vec::new() };
    let (class, op) = (insn.code & 7, insn.code & 0xf0);
    let jump = at.wrapping_add_signed(isize::from(insn.off) + 1);
    match (class, op) {
        (JMP, EXIT) => vec![],
        (JMP, CALL) => vec![(at + 1, false)],
        (JMP, 0) => vec![(jump, true)],
        (JMP | JMP32, _) => vec![(at + 1, true), (jump, true)],
        _ => vec![(at + 1, false)],
    }
}

/// The instruction from which a function falls into the head of a loop that it is in, if there is one.
fn falls_back(function: &Function) -> Option<usize> {
    let mut states = vec![State::New; function.instructions.len() + 1];
    let mut path = vec![(0, edges(function, 0).into_iter())];
    states[0] = State::Discovered;
    while let Some((at, ways)) = path.last_mut() {
        let at = *at;
        match ways.next() {
            None => {
                states[at] = State::Explored;
                path.pop();
            }
            Some((to, may_return)) => match states.get(to) {
                Some(State::New) => {
                    states[to] = State::Discovered;
                    path.push((to, edges(function, to).into_iter()));
                }
                Some(State::Discovered) if !may_return => return Some(at),
                _ => {}
            },
        }
    }
    None
}

/// Bytes of stack that a function uses, rounded up as `check_max_stack_depth` of Linux 5.10 and 6.1 does.
fn stack(function: &Function) -> usize {
    const FRAME: u8 = 10;
    /// `dst = src` and `dst += number`, of 64 bits.
    const COPY: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let mut deepest = 0;
    for (at, insn) in function.instructions.iter().enumerate() {
        let copied = |register: u8| {
            let before = at.checked_sub(1).and_then(|at| function.instructions.get(at));
            before
                .is_some_and(|before| before.code == COPY && before.src_reg() == FRAME && before.dst_reg() == register)
        };
        let offset = match insn.code & 7 {
            1 if insn.src_reg() == FRAME => i32::from(insn.off),
            2 | 3 if insn.dst_reg() == FRAME => i32::from(insn.off),
            _ if insn.code == ADD && copied(insn.dst_reg()) => insn.imm,
            _ => 0,
        };
        deepest = deepest.max(offset.min(0).unsigned_abs() as usize);
    }
    deepest.max(1).next_multiple_of(32)
}

#[test]
fn a_program_and_what_it_calls_fit_on_the_stack() -> Result<()> {
    let object = Object::parse(OBJECT)?;
    let called = object.functions.values().filter(|function| {
        !object.programs.values().any(|program| program.function_key() == (function.section_index.0, function.address))
    });
    let called = called.map(stack).max().context("no function is called")?;
    let mut deepest = 0;
    for (name, program) in &object.programs {
        let function = object.functions.get(&program.function_key()).with_context(|| name.clone())?;
        // A call within the object; helpers have their own stack.
        let calls = function.instructions.iter().any(|insn| insn.code == (JMP | CALL) && insn.src_reg() == 1);
        let depth = stack(function) + if calls { called } else { 0 };
        ensure!(depth <= 512, "{name} and what it calls take {depth} bytes of stack");
        deepest = deepest.max(depth);
    }
    ensure!(deepest > 256, "the deepest takes {deepest} bytes");
    Ok(())
}

#[test]
fn no_loop_is_entered_again_by_falling_into_it() -> Result<()> {
    let object = Object::parse(OBJECT)?;
    let bad: BTreeMap<&str, usize> = object
        .functions
        .values()
        .filter_map(|function| Some((function.name.as_str(), falls_back(function)?)))
        .collect();
    ensure!(bad.is_empty(), "Linux 5.10 and 6.1 would refuse: {bad:?}");
    for name in ["weir_ingress", "weir_egress", "weir_read_in"] {
        let program = object.programs.get(name).context(name)?;
        let length = object.functions.get(&program.function_key()).map_or(0, |function| function.instructions.len());
        ensure!(length > 1, "{name} has {length} instructions");
    }
    Ok(())
}
