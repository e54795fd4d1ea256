//! What an interpreter runs: the script, module, class or archive, rather than `python3` or `java`.

mod tests;

use std::sync::Arc;

use super::environ::clean;

/// How an interpreter's command line is read.
struct Interpreter {
    /// Its executable's name, version digits at the end left off.
    names: &'static [&'static str],
    /// Options with a value in the next argument.
    valued: &'static [&'static str],
    /// Options after which there is no script: code on the command line, a server of its own.
    inline: &'static [&'static str],
    /// Options whose value is what it runs.
    target: &'static [&'static str],
    /// Sub-commands before the script.
    verbs: &'static [&'static str],
    /// Single-letter options may be joined (`-bm mod`), with their value too (`-mmod`).
    joined: bool,
}

const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: &["python", "pypy"],
        valued: &["-W", "-X", "--check-hash-based-pycs"],
        inline: &["-c"],
        target: &["-m"],
        verbs: &[],
        joined: true,
    },
    Interpreter {
        names: &["node", "nodejs"],
        valued: &["-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions"],
        inline: &["-e", "--eval", "-p", "--print", "-pe", "-i", "--test"],
        target: &[],
        verbs: &[],
        joined: false,
    },
    Interpreter {
        names: &["deno", "bun"],
        valued: &["-c", "--config", "--import-map", "-r", "--preload", "--cwd"],
        inline: &["eval", "repl", "-e", "--eval"],
        target: &[],
        verbs: &["run", "serve"],
        joined: false,
    },
    Interpreter {
        names: &["java"],
        valued: &[
            "-cp",
            "-classpath",
            "--class-path",
            "-p",
            "--module-path",
            "--upgrade-module-path",
            "--add-modules",
            "--add-exports",
            "--add-opens",
            "--add-reads",
            "--patch-module",
            "--limit-modules",
            "--source",
        ],
        inline: &[],
        target: &["-jar", "-m", "--module"],
        verbs: &[],
        joined: false,
    },
    Interpreter {
        names: &["ruby", "jruby", "truffleruby"],
        valued: &["-I", "-r", "-C", "-E"],
        inline: &["-e"],
        target: &[],
        verbs: &[],
        joined: true,
    },
    Interpreter { names: &["perl"], valued: &["-I"], inline: &["-e", "-E"], target: &[], verbs: &[], joined: true },
    Interpreter {
        names: &["php", "php-cgi"],
        valued: &["-d", "-c", "-z"],
        inline: &["-r", "-S", "-B", "-a"],
        target: &["-f"],
        verbs: &[],
        joined: false,
    },
    Interpreter {
        names: &["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"],
        valued: &["-o", "+o", "-O", "+O", "--rcfile", "--init-file"],
        inline: &["-c", "-s", "-i"],
        target: &[],
        verbs: &[],
        joined: true,
    },
    Interpreter {
        names: &["dotnet"],
        valued: &["--fx-version", "--runtimeconfig", "--depsfile", "--additionalprobingpath", "--roll-forward"],
        inline: &["run", "build", "test", "watch"],
        target: &[],
        verbs: &["exec"],
        joined: false,
    },
    Interpreter { names: &["lua", "luajit"], valued: &["-l"], inline: &["-e"], target: &[], verbs: &[], joined: false },
    Interpreter { names: &["Rscript"], valued: &[], inline: &["-e"], target: &[], verbs: &[], joined: false },
];

/// Servers and task runners that are started with the application's module.
const LAUNCHERS: &[&str] = &["gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve"];

/// The name of what `executable` (a file name) runs with the command line `args` (NUL between arguments); `None` if it
/// is no interpreter, or runs no file.
pub(super) fn script(executable: &str, args: &[u8]) -> Option<Arc<str>> {
    let base = executable.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let interpreter = INTERPRETERS.iter().find(|interpreter| interpreter.names.contains(&base))?;
    let args = args.strip_suffix(b"\0").unwrap_or(args);
    let args: Vec<&str> =
        args.split(|&byte| byte == 0).skip(1).map_while(|arg| std::str::from_utf8(arg).ok()).collect();
    let (target, rest) = interpreter.target(&args)?;
    // A file handed over as a descriptor has no name of its own.
    if ["/dev/fd/", "/dev/stdin", "/proc/"].iter().any(|place| target.starts_with(place)) {
        return None;
    }
    if base == "java" {
        return java(target);
    }
    let name = stem(target)?;
    if LAUNCHERS.contains(&name)
        && let Some(app) = rest.iter().find_map(|arg| application(arg))
    {
        return clean(app);
    }
    if name == "bundle" && rest.first() == Some(&"exec") {
        return rest.get(1).and_then(|program| clean(stem(program)?));
    }
    clean(name)
}

impl Interpreter {
    /// The script, module or archive, and the arguments behind it.
    fn target<'a, 'b>(&self, args: &'b [&'a str]) -> Option<(&'a str, &'b [&'a str])> {
        let mut verbs = self.verbs;
        let mut rest = args;
        while let Some((&arg, behind)) = rest.split_first() {
            rest = behind;
            if self.inline.contains(&arg) || arg == "-" {
                return None;
            }
            if verbs.contains(&arg) {
                verbs = &[];
            } else if self.target.contains(&arg) {
                let (&target, behind) = rest.split_first()?;
                return Some((target, behind));
            } else if self.valued.contains(&arg) {
                rest = rest.split_first()?.1;
            } else if arg == "--" {
                let (&target, behind) = rest.split_first()?;
                return Some((target, behind));
            } else if self.joined && arg.len() > 2 && arg.starts_with('-') && !arg.starts_with("--") {
                match self.letters(arg) {
                    Letters::Flags => {}
                    Letters::Value => rest = rest.split_first()?.1,
                    Letters::Inline => return None,
                    Letters::Target("") => {
                        let (&target, behind) = rest.split_first()?;
                        return Some((target, behind));
                    }
                    Letters::Target(target) => return Some((target, rest)),
                }
            } else if !arg.starts_with(['-', '+', '@']) && !arg.is_empty() {
                return Some((arg, rest));
            }
        }
        None
    }

    fn letters<'a>(&self, arg: &'a str) -> Letters<'a> {
        for (at, letter) in arg.char_indices().skip(1) {
            let behind = arg.get(at + letter.len_utf8()..).unwrap_or("");
            let is = |list: &[&str]| {
                list.iter().any(|option| option.strip_prefix('-') == arg.get(at..at + letter.len_utf8()))
            };
            if is(self.inline) {
                return Letters::Inline;
            } else if is(self.target) {
                return Letters::Target(behind);
            } else if is(self.valued) {
                return if behind.is_empty() { Letters::Value } else { Letters::Flags };
            }
        }
        Letters::Flags
    }
}

/// What a word of joined single-letter options asks for.
enum Letters<'a> {
    /// Nothing more.
    Flags,
    /// The next argument is a value.
    Value,
    /// There is no script.
    Inline,
    /// This, or the next argument if empty, is what runs.
    Target(&'a str),
}

/// A file's name without folder and extension; of a file that is only an entry (`index.js`, `__main__.py`), its
/// folder's.
fn stem(path: &str) -> Option<&str> {
    const EXTENSIONS: &[&str] = &[
        "py", "pyc", "pyz", "js", "mjs", "cjs", "ts", "mts", "rb", "pl", "php", "phar", "sh", "bash", "dll", "lua", "R",
    ];
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let name = match file.rsplit_once('.') {
        Some((name, extension)) if EXTENSIONS.contains(&extension) && !name.is_empty() => name,
        _ => file,
    };
    if matches!(name, "__main__" | "index") {
        let folder = folder.trim_end_matches('/');
        let folder = folder.rsplit_once('/').map_or(folder, |(_, folder)| folder);
        if !matches!(folder, "" | "." | ".." | "src" | "dist" | "build" | "lib") {
            return Some(folder);
        }
    }
    (!name.is_empty()).then_some(name)
}

/// `shop.wsgi:app` → `shop`; `shop.main:create_app()` → `shop`; `main:app` → `main`.
fn application(target: &str) -> Option<&str> {
    let (module, object) = target.split_once(':')?;
    let word = |text: &str| text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    if !word(object) || !module.split('.').all(word) || module.contains(['/', '-']) {
        return None;
    }
    Some(match module.rsplit_once('.') {
        Some((package, "wsgi" | "asgi" | "main" | "app" | "application" | "server")) => package,
        _ => module,
    })
}

/// An archive's name without version (`shop-1.2.3-SNAPSHOT.jar` → `shop`), a module's name, or a full class name.
fn java(target: &str) -> Option<Arc<str>> {
    let file = target.rsplit_once('/').map_or(target, |(_, file)| file);
    if let Some((archive, "jar" | "war" | "java")) = file.rsplit_once('.') {
        let version = archive
            .match_indices('-')
            .find(|(at, _)| archive.get(at + 1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())));
        return clean(version.and_then(|(at, _)| archive.get(..at)).filter(|name| !name.is_empty()).unwrap_or(archive));
    }
    clean(target.split_once('/').map_or(target, |(module, _)| module))
}
