//! The house holds: imports run down only, pure floors stay pure, and some crates have one place.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each floor may import of this crate. A floor not listed here fails the test.
const FLOORS: &[(&str, &[&str])] = &[
    ("cluster", &[]),
    ("config", &["cluster"]),
    ("io", &["cluster", "config"]),
    ("ha", &["cluster", "config"]),
    ("api", &["cluster", "config", "io", "dcs::DcsError"]),
    ("postgres", &["cluster", "config", "io"]),
    ("dcs", &["cluster", "config", "io"]),
    ("agent", &["cluster", "config", "io", "ha", "api", "postgres", "dcs"]),
    // Of its neighbours the demo takes the command line, and the pure part of `topology`.
    (
        "demo",
        &["cluster", "config", "io", "dcs", "agent::cli", "ctl::commands::list", "ctl::context::Groups", "ctl::render"],
    ),
    // Of the PostgreSQL floor the CLI takes the way to a server, for SQL typed by a person.
    ("ctl", &["cluster", "config", "io", "api", "dcs", "agent::cli", "postgres::tls", "postgres::wire"]),
];

/// Names that must not appear in the floors that decide.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "Instant",
    "SystemTime",
    "rand::",
    "HashMap",
    "HashSet",
    "tracing",
    "println!",
];

/// Crates with one place.
const PLACES: &[(&str, &[&str])] = &[
    ("etcd_client", &["dcs/etcd3", "dcs/embedded"]),
    ("reqwest", &["api/client", "io/tls"]),
    ("comfy_table", &["ctl/render"]),
    ("indicatif", &["ctl/ui", "demo"]),
    ("console::", &["ctl/ui", "ctl/pager", "ctl/render", "demo"]),
];

fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut queue: Vec<PathBuf> = vec![root.clone()];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.insert(name, code(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}

/// The text without comments and without the unit tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn floor(file: &str) -> Option<&str> {
    file.split_once('/').map(|(floor, _)| floor).filter(|floor| *floor != "bin")
}

/// What the text names of this crate: the paths behind `crate::`, those in braces one by one.
fn own_paths(text: &str) -> Vec<&str> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    text.match_indices("crate::")
        .flat_map(|(at, found)| {
            let rest = &text[at + found.len()..];
            let paths = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap(),
                None => rest.split(|c| !is_path(c)).next().unwrap(),
            };
            paths.split(',')
        })
        .map(|path| path.trim().split(|c| !is_path(c)).next().unwrap().trim_end_matches(':'))
        .filter(|path| !path.is_empty())
        .collect()
}

#[test]
fn imports_run_down_only() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        // A test's double may be built from any floor.
        let Some(floor) = floor(&file).filter(|_| !file.ends_with("/fake.rs")) else { continue };
        let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == floor) else {
            panic!("{file}: the floor {floor} has no place in the house");
        };
        for path in own_paths(&text) {
            let target = path.split("::").next().unwrap();
            let is_item = target.starts_with(char::is_uppercase);
            let is_own = target == floor || is_item;
            if !is_own && !allowed.iter().any(|allowed| path.starts_with(allowed)) {
                broken.push(format!("{file}: crate::{path}"));
            }
        }
    }
    assert!(broken.is_empty(), "imports that run up or sideways:\n{}", broken.join("\n"));
}

#[test]
fn floors_that_decide_are_pure() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        if matches!(floor(&file), Some("cluster" | "config" | "ha")) && !file.ends_with("tests.rs") {
            broken.extend(IMPURE.iter().filter(|name| text.contains(**name)).map(|name| format!("{file}: {name}")));
        }
    }
    assert!(broken.is_empty(), "impure names:\n{}", broken.join("\n"));
}

#[test]
fn some_crates_have_one_place() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        for (name, places) in PLACES {
            if text.contains(name) && !places.iter().any(|place| file.starts_with(place)) {
                broken.push(format!("{file}: {name}"));
            }
        }
    }
    assert!(broken.is_empty(), "crates outside their place:\n{}", broken.join("\n"));
}

#[test]
fn every_test_file_is_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut forgotten = Vec::new();
    for entry in fs::read_dir(&root).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.is_dir() || !(dir.join("main.rs").exists() || dir.join("mod.rs").exists()) {
            continue;
        }
        let main =
            ["main.rs", "mod.rs"].iter().filter_map(|name| fs::read_to_string(dir.join(name)).ok()).collect::<String>();
        for file in fs::read_dir(&dir).unwrap() {
            let path = file.unwrap().path();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let is_module = path.extension().is_some_and(|e| e == "rs") && stem != "main" && stem != "mod";
            if is_module && !main.contains(&format!("mod {stem};")) {
                forgotten.push(path.display().to_string());
            }
        }
    }
    assert!(forgotten.is_empty(), "test files that nothing includes:\n{}", forgotten.join("\n"));
}
