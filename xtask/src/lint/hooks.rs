//! One name for a hook everywhere: its program is `weir_` and what the file is called.

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};

use super::{tokens, tree};

/// Attributes that make a function a program of the kernel.
const ATTRIBUTES: &[&str] = &[
    "btf_tracepoint",
    "cgroup_device",
    "cgroup_skb",
    "cgroup_sock",
    "cgroup_sock_addr",
    "cgroup_sockopt",
    "cgroup_sysctl",
    "classifier",
    "fentry",
    "fexit",
    "flow_dissector",
    "iter",
    "kprobe",
    "kretprobe",
    "lsm",
    "lsm_cgroup",
    "perf_event",
    "raw_tracepoint",
    "sk_lookup",
    "sk_msg",
    "sk_skb",
    "sock_ops",
    "socket_filter",
    "stream_parser",
    "stream_verdict",
    "tracepoint",
    "uprobe",
    "uretprobe",
    "xdp",
];

/// Programs whose names do not begin with `weir_`.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for path in tree::rust_files()?.iter().filter(|path| path.starts_with("agent-ebpf/src/")) {
        if let Some(text) = tree::text(path)? {
            let programs = programs(tokens::parse(&text).with_context(|| path.clone())?);
            let strangers = programs.into_iter().filter(|name| !name.starts_with("weir_"));
            broken.extend(strangers.map(|name| format!("{path}: program {name} is not named weir_{name}")));
        }
    }
    Ok(broken)
}

/// Names of the functions that carry such an attribute.
fn programs(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    let mut marked = false;
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if let Some(TokenTree::Group(attribute)) = tokens.peek() {
                    marked |= is_hook(attribute.stream());
                    tokens.next();
                }
            }
            TokenTree::Ident(ident) if ident == "fn" => {
                if let Some(TokenTree::Ident(name)) = tokens.next()
                    && marked
                {
                    found.push(name.to_string());
                }
                marked = false;
            }
            TokenTree::Group(group) => found.extend(programs(group.stream())),
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}

/// The attribute's own name: `cgroup_skb`, or the last of `aya_ebpf::macros::cgroup_skb`.
fn is_hook(attribute: TokenStream) -> bool {
    let path = attribute.into_iter().take_while(|token| !matches!(token, TokenTree::Group(_)));
    let last = path.filter_map(|token| if let TokenTree::Ident(ident) = token { Some(ident) } else { None }).last();
    last.is_some_and(|ident| ATTRIBUTES.iter().any(|name| ident == name))
}

#[cfg(test)]
mod tests {
    use super::programs;
    use crate::lint::tokens::parse;

    #[test]
    fn programs_are_known_by_their_attribute() {
        let text = "
            #[cgroup_skb(ingress)] #[inline(never)] pub fn weir_ingress(ctx: C) -> i32 { helper() }
            #[inline] fn helper() {}
            mod hooks { #[aya_ebpf::macros::tracepoint] fn exec() {} }
        ";
        assert_eq!(programs(parse(text).expect("tokens")), ["weir_ingress", "exec"]);
    }
}
