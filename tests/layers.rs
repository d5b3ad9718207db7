//! The direction of the dependencies, and the size of files and functions: read from the source itself.
//!
//! `domain <- observability <- persistence <- messaging <- actors <- http <- app`: a module uses those on its left and
//! itself.

#![expect(clippy::expect_used, reason = "a test fails where it stands")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the crate's root, and its layer. The program itself (start, settings, command line) is the last.
const LAYERS: &[(&str, u8)] = &[
    ("domain", 0),
    ("observability", 1),
    ("persistence", 2),
    ("messaging", 3),
    ("actors", 4),
    ("http", 5),
    ("admin", 6),
    ("app", 6),
    ("cli", 6),
    ("config", 6),
    ("telemetry", 6),
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// A source file: its path below `src`, and its text without comment lines.
struct Source {
    path: String,
    text: String,
    lines: usize,
}

impl Source {
    /// Whether it is the unit tests of another file, in a file of their own.
    fn is_tests(&self) -> bool {
        self.path.ends_with("_tests.rs") || self.path.ends_with("/tests.rs")
    }

    fn new(path: &str, text: &str) -> Self {
        let code = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
        Self { path: path.to_owned(), text: code.collect::<Vec<_>>().join("\n"), lines: text.lines().count() }
    }

    /// The file's module path: `domain/cart.rs` is `["domain", "cart"]`, `actors/mod.rs` is `["actors"]`.
    fn module(&self) -> Vec<&str> {
        let mut parts: Vec<_> = self.path.trim_end_matches(".rs").split('/').collect();
        if matches!(parts.last(), Some(&"mod" | &"lib" | &"main")) {
            parts.pop();
        }
        parts
    }

    /// The root modules that the file names, by `crate::…` or by enough `super::…`.
    fn imports(&self) -> Vec<String> {
        let module = self.module();
        let mut found = Vec::new();
        let compact: String = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        for (start, _) in compact.match_indices("crate::") {
            let whole_word = !compact[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            if whole_word {
                found.extend(first_names(&compact[start + "crate::".len()..]));
            }
        }
        let to_the_root = "super::".repeat(module.len());
        if !module.is_empty() {
            for (start, _) in compact.match_indices(&to_the_root) {
                found.extend(first_names(&compact[start + to_the_root.len()..]));
            }
        }
        found
    }

    /// Functions that are too long: where each begins, and its lines. Relies on the formatter's indentation.
    fn long_functions(&self, most: usize) -> Vec<(usize, usize)> {
        let lines: Vec<_> = self.text.lines().collect();
        let mut long = Vec::new();
        for (start, line) in lines.iter().enumerate() {
            let indent = &line[..line.len() - line.trim_start().len()];
            if !begins_function(line) || line.ends_with([';', '}']) {
                continue;
            }
            let end = lines[start..].iter().position(|line| {
                let at_its_level = line.strip_prefix(indent).is_some_and(|rest| !rest.starts_with(' '));
                at_its_level && (line.trim() == "}" || line.ends_with(';'))
            });
            let length = end.map_or(lines.len() - start, |end| end + 1);
            if length > most {
                long.push((start + 1, length));
            }
        }
        long
    }
}

/// The names that a path may begin with: `a::b` gives `a`, `{a::b, c}` gives `a` and `c`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names, mut part) = (0_usize, Vec::new(), String::new());
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&std::mem::take(&mut part))),
            _ if depth == 0 => part.push(letter),
            _ => {}
        }
    }
    names.push(name(&part));
    names
}

fn begins_function(line: &str) -> bool {
    let words = line.trim_start().split(' ');
    let mut words = words.skip_while(|word| {
        word.starts_with("pub") || matches!(*word, "const" | "async" | "unsafe" | "extern" | "in" | "default")
    });
    words.next() == Some("fn")
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the source") {
            let path: PathBuf = entry.expect("an entry of it").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("below src").to_string_lossy().replace('\\', "/");
                sources.push(Source::new(&name, &fs::read_to_string(&path).expect("a source file")));
            }
        }
    }
    assert!(sources.len() > 20, "the source has been found");
    sources
}

/// What `source` uses that it must not.
fn imports_that_run_back(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(own) = module.first() else { return Vec::new() };
    let Some(own_layer) = layer(own) else { return vec![format!("{}: `{own}` has no layer", source.path)] };
    let names = source.imports().into_iter();
    let back = names.filter(|name| name != own && layer(name).is_some_and(|other| other > own_layer));
    back.map(|name| format!("{} uses {name}", source.path)).collect()
}

/// Words that `source` has and must not have. Its own unit tests may make what a database answers.
fn forbidden_words(source: &Source) -> Vec<String> {
    if source.is_tests() {
        return Vec::new();
    }
    let module = source.module();
    let program = source.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let has = |words: &[&'static str]| {
        let found = words.iter().filter(|word| program.contains(**word));
        found.map(|word| format!("{} has `{word}`", source.path)).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    if module.first() != Some(&"persistence") {
        found.extend(has(&[
            " redis::",
            "(redis::",
            "<redis::",
            " ::redis::",
            "sqlx",
            "\"SELECT ",
            "\"INSERT INTO ",
            "\"UPDATE ",
            "\"DELETE FROM ",
        ]));
    }
    if module.first() == Some(&"domain") {
        found.extend(has(&["SystemTime", "Instant", "::now", "now_utc", "now_v7", "actix", "tokio", "getrandom"]));
        found.extend(has(&["std::fs", "std::net", "std::env", "std::thread", "std::io"]));
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let back: Vec<_> = sources().iter().flat_map(imports_that_run_back).collect();
    assert!(back.is_empty(), "{}", back.join("\n"));
}

#[test]
fn sql_stays_in_persistence_and_the_domain_is_pure() {
    let found: Vec<_> = sources().iter().flat_map(forbidden_words).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        if source.lines > FILE_LINES_MAX {
            long.push(format!("{} has {} lines, {FILE_LINES_MAX} at most", source.path, source.lines));
        }
        for (line, length) in source.long_functions(FUNCTION_LINES_MAX) {
            long.push(format!("{}:{line} is a function of {length} lines", source.path));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn an_import_that_runs_back_is_found() {
    for (path, text) in [
        ("domain/cart.rs", "use crate::persistence::records::Order;"),
        ("domain/cart.rs", "use super::super::http::json;"),
        ("domain/mod.rs", "use super::actors;"),
        ("persistence/sqlite/mod.rs", "use crate::{\n    domain::ids::{CartKey, OrderId},\n    messaging::mail,\n};"),
        ("messaging/mod.rs", "fn f() { crate::actors::shop::g() }"),
        ("http/orders.rs", "use crate::app::App;"),
        ("elsewhere.rs", ""),
    ] {
        assert_eq!(imports_that_run_back(&Source::new(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("domain/cart.rs", "use super::ids::{CartKey};\n// use crate::http;\nuse crate::domain::stock;"),
        ("http/orders.rs", "use crate::{domain::ids, actors::shop};\nuse super::json;"),
        ("lib.rs", "pub mod http;"),
    ] {
        assert_eq!(imports_that_run_back(&Source::new(path, text)), Vec::<String>::new());
    }
}

#[test]
fn a_clock_in_the_domain_and_sql_outside_persistence_are_found() {
    let found = |path: &str, text: &str| forbidden_words(&Source::new(path, text)).len();
    assert_eq!(found("domain/cart.rs", "let now = std::time::SystemTime::now();"), 2);
    assert_eq!(found("domain/cart.rs", "fn at(now: Timestamp)"), 0);
    assert_eq!(found("http/orders.rs", "sqlx::query(\"SELECT 1\")"), 2);
    assert_eq!(found("http/orders.rs", "f();\n\n#[cfg(test)]\nmod tests {\n    sqlx::Error::Protocol;\n}"), 0);
    assert_eq!(found("actors/journal_tests.rs", "sqlx::query(\"SELECT 1\")"), 0);
    assert_eq!(found("persistence/sqlite/orders.rs", "sqlx::query(\"SELECT 1\")"), 0);
}

#[test]
fn a_long_function_is_found() {
    let text = "trait T {\n    fn declared(\n        a: u8,\n    ) -> u8;\n\n    fn f(\n        a: u8,\n    ) {\n        a;\n        if a {\n        }\n    }\n}\n\npub(crate) async fn g() {\n    h();\n}\n";
    assert_eq!(Source::new("x.rs", text).long_functions(6), [(6, 7)]);
    assert_eq!(Source::new("x.rs", text).long_functions(2), [(2, 3), (6, 7), (15, 3)]);
}
