//! Paths that a source file names, read from its tokens: comments and strings can't be mistaken for code, and the
//! inside of macro calls counts.

use std::iter::Peekable;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, LexError, TokenStream, TokenTree, token_stream};

/// A path below the crate's root, such as `model::Exchange`, and the line that names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

/// Reads a file's tokens.
pub(crate) fn parse(text: &str) -> Result<TokenStream> {
    text.parse().map_err(|error: LexError| anyhow!("line {}: {error}", error.span().start().line))
}

/// All paths below the crate's root that a module names: by `crate::`, by `super::` often enough, or by the
/// crate's own name. `module` is the module's own path.
pub(crate) fn named(tokens: TokenStream, crate_name: &str, module: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    walk(tokens, crate_name, module, &mut found);
    found
}

/// Whether a name or keyword stands anywhere in the code.
pub(crate) fn has_ident(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == word,
        TokenTree::Group(group) => has_ident(group.stream(), word),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

type Tokens = Peekable<token_stream::IntoIter>;

fn walk(tokens: TokenStream, crate_name: &str, module: &[String], found: &mut Vec<Named>) {
    let mut tokens = tokens.into_iter().peekable();
    // How many colons stand right before: behind two of them a path goes on and does not begin.
    let mut colons_before = 0;
    while let Some(token) = tokens.next() {
        let begins = colons_before < 2;
        colons_before = if is_colon(&token) { colons_before + 1 } else { 0 };
        match token {
            TokenTree::Ident(ident) if begins && (ident == "crate" || ident == crate_name) => {
                if colons(&mut tokens) {
                    tree(&mut tokens, Vec::new(), found);
                }
            }
            TokenTree::Ident(ident) if begins && ident == "super" => {
                if colons(&mut tokens) {
                    tree(&mut tokens, parent(module), found);
                }
            }
            TokenTree::Ident(ident) if ident == "mod" => {
                if let Some(TokenTree::Ident(name)) = tokens.next()
                    && let Some(TokenTree::Group(body)) = tokens.next_if(|next| matches!(next, TokenTree::Group(_)))
                {
                    walk(body.stream(), crate_name, &[module, &[name.to_string()]].concat(), found);
                }
            }
            TokenTree::Group(group) => walk(group.stream(), crate_name, module, found),
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// What follows `base::`: a name, more names, a group of such trees in braces, or a star.
fn tree(tokens: &mut Tokens, base: Vec<String>, found: &mut Vec<Named>) {
    let Some(token) = tokens.peek() else { return };
    let line = token.span().start().line;
    match token {
        TokenTree::Ident(ident) => {
            let path = match ident.to_string().as_str() {
                "super" => parent(&base),
                "self" => base,
                name => [base, vec![name.to_owned()]].concat(),
            };
            tokens.next();
            if colons(tokens) {
                tree(tokens, path, found);
            } else {
                found.push(Named { path, line });
            }
        }
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
            let mut inner = group.stream().into_iter().peekable();
            tokens.next();
            while inner.peek().is_some() {
                tree(&mut inner, base.clone(), found);
                // To behind the next comma, over `as name`.
                while inner.next().is_some_and(|token| !matches!(token, TokenTree::Punct(p) if p.as_char() == ',')) {}
            }
        }
        TokenTree::Punct(punct) if punct.as_char() == '*' => {
            found.push(Named { path: [base, vec!["*".to_owned()]].concat(), line });
            tokens.next();
        }
        // A turbofish: the caller walks its inside.
        TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => found.push(Named { path: base, line }),
    }
}

fn parent(path: &[String]) -> Vec<String> {
    path.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default()
}

fn is_colon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':')
}

/// Takes `::` if that comes next.
fn colons(tokens: &mut Tokens) -> bool {
    tokens.next_if(is_colon).is_some() && tokens.next_if(is_colon).is_some()
}

#[cfg(test)]
mod tests {
    use super::{named, parse};

    fn paths(module: &[&str], text: &str) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
        let tokens = parse(text).expect("tokens");
        named(tokens, "weir", &module).into_iter().map(|named| named.path.join("::")).collect()
    }

    #[test]
    fn nested_use_trees_are_taken_apart() {
        let text = "use crate::{model::{Exchange, peer::{self, Peer as P}}, kernel::*, clock};";
        assert_eq!(
            paths(&["flow"], text),
            ["model::Exchange", "model::peer", "model::peer::Peer", "kernel::*", "clock"]
        );
    }

    #[test]
    fn paths_inside_code_macros_and_types_count() {
        let text = "fn f(x: crate::model::Exchange) -> Vec<crate::meter::Meter> { info!(a = crate::kernel::load::<crate::clock::Ns>()) }";
        assert_eq!(paths(&["flow"], text), ["model::Exchange", "meter::Meter", "kernel::load", "clock::Ns"]);
    }

    #[test]
    fn comments_strings_and_visibility_do_not_count() {
        let text = "//! use crate::kernel;\n/* crate::kernel::x */ pub(crate) fn f() { g(\"crate::kernel::y\") }";
        assert_eq!(paths(&["flow"], text), Vec::<String>::new());
    }

    #[test]
    fn super_is_followed_to_the_root() {
        assert_eq!(
            paths(&["flow", "table"], "use super::{super::kernel::Ring, pair::Pair};"),
            ["kernel::Ring", "flow::pair::Pair"]
        );
        assert_eq!(paths(&["flow"], "mod tests { use super::super::kernel::Ring; }"), ["kernel::Ring"]);
        assert_eq!(paths(&["flow"], "mod tests { use super::Table; }"), ["flow::Table"]);
    }

    #[test]
    fn the_name_of_the_crate_is_a_root_only_at_the_beginning_of_a_path() {
        assert_eq!(paths(&["main"], "weir::app::run(); other::weir::x(); weir_common::y();"), ["app::run"]);
    }

    #[test]
    fn the_line_is_known() {
        let tokens = parse("use std::fs;\n\nuse crate::kernel::Ring;\n").expect("tokens");
        assert_eq!(named(tokens, "weir", &[])[0].line, 3);
    }
}
