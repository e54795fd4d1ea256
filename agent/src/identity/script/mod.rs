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
    /// Letters behind which the rest of the word is a value, where options may be joined (`-MData::Dumper`).
    attached: &'static [&'static str],
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
        attached: &[],
        joined: true,
    },
    Interpreter {
        names: &["node", "nodejs"],
        // All that node 20 and 22 take from the next argument; V8's own options take none.
        valued: &[
            "-r",
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "-C",
            "--conditions",
            "--cpu-prof-dir",
            "--cpu-prof-interval",
            "--cpu-prof-name",
            "--debug-port",
            "--diagnostic-dir",
            "--disable-proto",
            "--disable-warning",
            "--dns-result-order",
            "--env-file",
            "--env-file-if-exists",
            "--experimental-default-type",
            "--heap-prof-dir",
            "--heap-prof-interval",
            "--heap-prof-name",
            "--heapsnapshot-near-heap-limit",
            "--heapsnapshot-signal",
            "--icu-data-dir",
            "--input-type",
            "--inspect-port",
            "--inspect-publish-uid",
            "--localstorage-file",
            "--max-http-header-size",
            "--network-family-autoselection-attempt-timeout",
            "--openssl-config",
            "--redirect-warnings",
            "--report-dir",
            "--report-directory",
            "--report-filename",
            "--report-signal",
            "--secure-heap",
            "--secure-heap-min",
            "--title",
            "--tls-cipher-list",
            "--tls-keylog",
            "--tls-max-v1.2",
            "--trace-event-categories",
            "--trace-event-file-pattern",
            "--unhandled-rejections",
            "--use-largepages",
            "--v8-pool-size",
            "--watch-path",
        ],
        inline: &["-e", "--eval", "-p", "--print", "-pe", "-i", "--interactive", "--test", "--run"],
        target: &[],
        verbs: &["inspect"],
        attached: &[],
        joined: false,
    },
    Interpreter {
        names: &["deno"],
        valued: &[
            "-c",
            "--config",
            "--import-map",
            "--lock",
            "--location",
            "--seed",
            "--cert",
            "-L",
            "--log-level",
            "--preload",
            "--host",
            "--port",
        ],
        inline: &["eval", "repl", "task", "test", "bench", "install", "jupyter", "lsp"],
        target: &[],
        verbs: &["run", "serve"],
        attached: &[],
        joined: false,
    },
    Interpreter {
        names: &["bun"],
        valued: &["-c", "--config", "-r", "--preload", "--require", "--import", "--cwd", "--env-file", "--port"],
        inline: &["-e", "--eval", "-p", "--print", "repl", "test", "x", "install"],
        target: &[],
        verbs: &["run"],
        attached: &[],
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
            "--enable-native-access",
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
        attached: &[],
        joined: false,
    },
    Interpreter {
        names: &["ruby", "jruby", "truffleruby"],
        valued: &[
            "-I",
            "-r",
            "-C",
            "-E",
            "--encoding",
            "--external-encoding",
            "--internal-encoding",
            "--enable",
            "--disable",
        ],
        inline: &["-e"],
        target: &[],
        verbs: &[],
        attached: &["-0", "-F", "-i", "-K", "-T", "-W", "-x"],
        joined: true,
    },
    Interpreter {
        names: &["perl"],
        valued: &["-I"],
        inline: &["-e", "-E"],
        target: &[],
        verbs: &[],
        attached: &["-0", "-C", "-d", "-D", "-F", "-i", "-l", "-m", "-M", "-V", "-x"],
        joined: true,
    },
    Interpreter {
        names: &["php", "php-cgi"],
        valued: &["-d", "--define", "-c", "--php-ini", "-z", "--zend-extension", "-t", "--docroot"],
        inline: &[
            "-r",
            "--run",
            "-R",
            "--process-code",
            "-S",
            "--server",
            "-B",
            "--process-begin",
            "-a",
            "--interactive",
        ],
        target: &["-f", "--file", "-F", "--process-file"],
        verbs: &[],
        attached: &[],
        joined: false,
    },
    Interpreter {
        names: &["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"],
        valued: &["-o", "+o", "-O", "+O", "--rcfile", "--init-file"],
        inline: &["-c", "-s", "-i"],
        target: &[],
        verbs: &[],
        attached: &[],
        joined: true,
    },
    Interpreter {
        names: &["dotnet"],
        valued: &["--fx-version", "--runtimeconfig", "--depsfile", "--additionalprobingpath", "--roll-forward"],
        inline: &["run", "build", "test", "watch"],
        target: &[],
        verbs: &["exec"],
        attached: &[],
        joined: false,
    },
    Interpreter {
        names: &["lua", "luajit"],
        valued: &["-l"],
        inline: &["-e"],
        target: &[],
        verbs: &[],
        attached: &[],
        joined: false,
    },
    Interpreter {
        names: &["Rscript"],
        valued: &[],
        inline: &["-e"],
        target: &[],
        verbs: &[],
        attached: &[],
        joined: false,
    },
];

/// Servers and task runners that are started with the application's module.
const LAUNCHERS: &[&str] = &["gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve"];

/// The name of what `executable` (a file name) runs with the command line `args` (NUL between arguments); `None` if it
/// is no interpreter, or runs no file.
pub(super) fn script(executable: &str, args: &[u8]) -> Option<Arc<str>> {
    let base = executable.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let interpreter = INTERPRETERS.iter().find(|interpreter| interpreter.names.contains(&base))?;
    let args = args.strip_suffix(b"\0").unwrap_or(args);
    let trimmed = args.iter().rposition(|&byte| byte != 0).and_then(|end| args.get(..=end)).unwrap_or_default();
    let words: Vec<&str> =
        trimmed.split(|&byte| byte == 0).skip(1).map_while(|arg| std::str::from_utf8(arg).ok()).collect();
    let Some((target, rest)) = interpreter.target(&words) else {
        return if words.is_empty() { title(args) } else { None };
    };
    // A file handed over as a descriptor has no name of its own.
    if ["/dev/fd/", "/dev/stdin", "/proc/"].iter().any(|place| target.starts_with(place)) {
        return None;
    }
    if base == "java" {
        return java(target);
    }
    let name = stem(target)?;
    if LAUNCHERS.contains(&name)
        && let Some(app) = served(rest)
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
            if is(self.attached) {
                return Letters::Flags;
            } else if is(self.inline) {
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

/// The application that a launcher is given: the first one that can't be an option's value, else the last one
/// (`--name x:y --preload shop:app`).
fn served<'a>(args: &[&'a str]) -> Option<&'a str> {
    let mut last = None;
    let mut before = "";
    for arg in args {
        let found = application(arg);
        if found.is_some() && !before.starts_with('-') {
            return found;
        }
        last = found.or(last);
        before = arg;
    }
    last
}

/// What a server wrote over its command line, in brackets at the end: the application (`gunicorn: worker [shop.wsgi:app]`), or
/// the folder that it stands in (`puma: cluster worker 0: 7 [shop]`).
fn title(args: &[u8]) -> Option<Arc<str>> {
    let line = args.split(|&byte| byte == 0).next().and_then(|line| std::str::from_utf8(line).ok())?;
    let is = |known: &str| line.strip_prefix(known).is_some_and(|rest| rest.starts_with([' ', ':']));
    let (_, name) = line.trim_end().strip_suffix(']')?.rsplit_once('[')?;
    if is("gunicorn") { clean(application(name).unwrap_or(name)) } else { is("puma").then(|| clean(name))? }
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
