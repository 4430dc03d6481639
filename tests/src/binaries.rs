//! Finds the two programs, and builds them once for a test run.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

/// Where the two programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `muster`.
    pub controller: PathBuf,
    /// `muster-agent`.
    pub agent: PathBuf,
}

/// The programs, built from the tree as it is. Under cargo it builds them once for each test program; outside it takes
/// what lies beside this program.
pub fn binaries() -> &'static Binaries {
    static BINARIES: OnceLock<Binaries> = OnceLock::new();
    BINARIES.get_or_init(|| {
        if let Some(cargo) = env::var_os("CARGO") {
            let folder = folder().expect("this program's folder");
            let mut build = Command::new(cargo);
            // The whole workspace, because features are those of everything that is built together: the same as `make` builds.
            build.args(["build", "--quiet", "--workspace", "--bins"]);
            build.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
            build.arg("--target-dir").arg(folder.parent().expect("the target folder"));
            // What `cargo test` tells this program of its own package; build scripts that watch such variables (ring's does) would
            // run again, and everything above them compile again, here and at the next build outside.
            for (name, _) in env::vars_os() {
                if name
                    .to_str()
                    .is_some_and(|name| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.starts_with(own)))
                {
                    build.env_remove(name);
                }
            }
            if folder.ends_with("release") {
                build.arg("--release");
            }
            let status = build.status().expect("cargo runs");
            assert!(status.success(), "cargo build of the two programs: {status}");
        }
        beside_this_program().expect("the two programs")
    })
}

/// The programs in the folder of the running one.
///
/// # Errors
/// When one of them is not there.
pub fn beside_this_program() -> anyhow::Result<Binaries> {
    let folder = folder()?;
    let found = Binaries { controller: folder.join("muster"), agent: folder.join("muster-agent") };
    for program in [&found.controller, &found.agent] {
        if !program.is_file() {
            bail!("{} is not there: build it with `cargo build --workspace`", program.display());
        }
    }
    Ok(found)
}

/// `target/debug` or `target/release`.
fn folder() -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("the path of this program")?;
    let folder = program.parent().context("the folder of this program")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("the folder above deps")? } else { folder };
    Ok(folder.to_owned())
}
