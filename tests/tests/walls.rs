//! Who may know whom, and other rules that no compiler keeps (`ARCHITECTURE.md`, "Walls").

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Every Rust file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lines of code: without comments, and without what stands after one.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = read(path);
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim_start()));
    lines.filter(|(_, line)| !line.starts_with("//")).map(|(number, line)| (number, line.to_owned())).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// What a crate depends on, for its program or (`dev`) only for its tests.
fn dependencies(folder: &str, table: &str) -> BTreeSet<String> {
    let manifest: toml::Table = read(&root().join(folder).join("Cargo.toml")).parse().expect("a manifest");
    let names = |table: &toml::Value| table.as_table().expect("a table").keys().cloned().collect::<Vec<_>>();
    let mut found: BTreeSet<String> = manifest.get(table).map(names).unwrap_or_default().into_iter().collect();
    for (_, target) in manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten() {
        found.extend(target.get(table).map(names).unwrap_or_default());
    }
    found
}

#[test]
fn crates_know_only_those_below_them() {
    let allowed: [(&str, &[&str]); 6] = [
        ("proto", &[]),
        ("engine", &["muster-proto"]),
        ("reports", &["muster-proto"]),
        ("agent", &["muster-proto", "muster-engine", "muster-reports"]),
        ("controller", &["muster-proto", "muster-engine", "muster-reports"]),
        ("tests", &["muster-proto", "muster-engine", "muster-reports", "muster-agent", "muster-controller"]),
    ];
    for (folder, allowed) in allowed {
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in dependencies(folder, table).iter().filter(|name| name.starts_with("muster-")) {
                assert!(allowed.contains(&name.as_str()), "{folder} may not know {name} ({table})");
            }
        }
    }
    let workspace: toml::Table = read(&root().join("Cargo.toml")).parse().expect("a manifest");
    let members = workspace["workspace"]["members"].as_array().expect("members").len();
    assert_eq!(members, 6, "a new crate needs its place in the walls");
}

#[test]
fn reports_and_the_domain_do_no_io() {
    for name in dependencies("reports", "dependencies") {
        let io = ["tokio", "hyper", "hyper-util", "axum", "tonic", "rusqlite", "rustix", "tempfile", "sysinfo"];
        assert!(!io.contains(&name.as_str()), "reports depends on {name}");
    }
    let words = [
        "std::fs",
        "std::net",
        "std::process",
        "std::io::stdin",
        "std::env",
        "SystemTime::now",
        "Instant::now",
        "println!(",
        "print!(",
    ];
    for folder in ["reports/src", "proto/src"] {
        for path in sources(&root().join(folder)) {
            for (number, line) in code(&path) {
                for word in words {
                    assert!(!line.contains(word), "{}:{number} does I/O: {line}", shown(&path));
                }
            }
        }
    }
}

#[test]
fn deciding_is_pure() {
    let source = root().join("controller/src");
    let mut pure: Vec<PathBuf> = Vec::new();
    for name in ["plan", "check", "rollout"] {
        let (file, folder) = (source.join(format!("{name}.rs")), source.join(name));
        pure.extend(file.is_file().then_some(file));
        pure.extend(folder.is_dir().then(|| sources(&folder)).into_iter().flatten());
    }
    assert!(pure.iter().any(|path| path.ends_with("plan.rs") || path.ends_with("plan/mod.rs")), "no planner: {pure:?}");
    for path in pure {
        for (number, line) in code(&path) {
            let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            if let Some(used) = line.strip_prefix("use ") {
                let allowed = [
                    "std::",
                    "muster_proto::",
                    "muster_engine::speed",
                    "super::",
                    "crate::plan",
                    "crate::check",
                    "proptest::",
                ];
                assert!(allowed.iter().any(|prefix| used.starts_with(prefix)), "{}:{number}: {line}", shown(&path));
            }
            for word in [
                "std::fs",
                "std::net",
                "std::env",
                "std::process",
                "std::thread",
                "SystemTime",
                "Instant",
                "rand::",
                "async fn",
                "tokio",
                "tracing",
            ] {
                assert!(!line.contains(word), "{}:{number} is not pure: {line}", shown(&path));
            }
        }
    }
}

#[test]
fn unsafe_code_is_at_the_border_to_c_alone() {
    let mut found = BTreeSet::new();
    for folder in ["proto", "engine", "reports", "agent", "controller", "tests"] {
        for path in sources(&root().join(folder)) {
            let word = ["un", "safe "].concat();
            if code(&path).iter().any(|(_, line)| line.contains(&word)) {
                found.insert(shown(&path));
            }
        }
    }
    found.retain(|path| path != "engine/src/ffi.rs" && !path.starts_with("engine/src/ffi/"));
    assert_eq!(found, BTreeSet::new());
}

#[test]
fn tests_wait_for_states_and_are_never_ignored() {
    let (nap, ignored) = (["sle", "ep("].concat(), ["#[ign", "ore"].concat());
    for folder in ["proto", "engine", "reports", "agent", "controller", "tests"] {
        for path in sources(&root().join(folder)) {
            let name = shown(&path);
            // A module's own tests stand at its end.
            let whole_file = name.contains("/tests/") || name.starts_with("tests/");
            let mut in_tests = whole_file;
            for (number, line) in code(&path) {
                in_tests |= line.starts_with("#[cfg(test)]");
                assert!(!line.contains(&ignored), "{name}:{number}: {line}");
                // The one place that lets time pass, and says so in its header.
                if in_tests && name != "tests/src/wait.rs" {
                    assert!(!line.contains(&nap), "{name}:{number}: {line}");
                }
            }
        }
    }
}

#[test]
fn there_is_no_drawer_for_everything() {
    for folder in ["proto", "engine", "reports", "agent", "controller", "tests"] {
        for path in sources(&root().join(folder)) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            assert!(!["util", "utils", "helper", "helpers", "common", "misc"].contains(&stem), "{}", shown(&path));
        }
    }
}
