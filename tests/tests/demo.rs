//! The demo as a user runs it: it ends well, ends on Ctrl-C, says what failed, and leaves nothing behind.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use muster_tests::{PATIENCE, Process, binaries, children, say, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// What the demo may take after the build on two cores.
const ONE_MINUTE: Duration = Duration::from_mins(1);
/// A machine that runs other tests beside it is slower; a hang is longer than this.
const AT_MOST: Duration = Duration::from_mins(3);

/// Where one demo runs: the folder that it takes for the machine's temporary one, and its log beside.
struct Place {
    home: TempDir,
}

impl Place {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("mt-").tempdir().expect("a temporary folder");
        fs::create_dir(home.path().join("t")).expect("a folder");
        Self { home }
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("t")
    }

    fn demo(&self) -> Command {
        binaries();
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster-demo"));
        command.env("TMPDIR", self.folder()).env_remove("ONCE").env("RUST_LOG", "info");
        command
    }

    fn start(&self, command: Command) -> Process {
        Process::spawn(command, "demo", &self.home.path().join("demo.log"))
    }

    /// Programs of this demo, by the folder in their command lines.
    fn programs(&self) -> Vec<u32> {
        processes(self.folder().to_str().expect("UTF-8"))
    }

    #[track_caller]
    fn nothing_left(&self) {
        let left: Vec<_> =
            fs::read_dir(self.folder()).expect("our own folder").flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        wait_for("every process to be gone", PATIENCE, || {
            let running = self.programs();
            if running.is_empty() { Ok(()) } else { Err(format!("{running:?}")) }
        });
    }
}

/// Processes that have `word` in their command line.
fn processes(word: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let named = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    };
    pids.filter(named).collect()
}

#[test]
fn once_shows_every_step_and_leaves_nothing_behind() {
    let place = Place::new();
    let started = Instant::now();
    let said = say(place.demo().env("ONCE", "1"), AT_MOST);
    let took = started.elapsed();
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    place.nothing_left();
    for word in [
        "listening on 127.0.0.1:",
        "is online after",
        "PREFILL",
        "Q4_K_M",
        "sha256:",
        "came over mutual TLS",
        "answer:",
        "DEVIATION",
        "Try next",
        "chat/completions",
    ] {
        assert!(said.out.contains(word), "no {word:?} in:\n{}", said.out);
    }
    assert!(!said.out.contains('\u{1b}'), "colours in a pipe:\n{}", said.out);
    let wide: Vec<&str> =
        said.out.lines().filter(|line| line.chars().count() > 80 && !line.contains("muster1-")).collect();
    assert!(wide.is_empty(), "wider than 80 columns: {wide:#?}");
    // Alone on the machine it is under a minute; here other tests may take half of each core.
    assert!(took < ONE_MINUTE * 2, "it took {took:?}");
}

#[test]
fn ctrl_c_stops_both_programs_and_removes_everything() {
    let place = Place::new();
    let mut show = place.start(place.demo());
    show.line("Try next", AT_MOST);
    assert!(place.programs().len() >= 2, "both programs should run");
    show.signal(Signal::INT);
    assert_eq!(show.wait(PATIENCE).code(), Some(0), "{}", show.log_tail());
    place.nothing_left();
}

#[test]
fn ctrl_c_in_the_middle_of_a_step_leaves_nothing_behind() {
    let place = Place::new();
    let mut show = place.start(place.demo());
    wait_for("the agent to run", PATIENCE, || {
        let agents = children(show.pid(), "--endpoint");
        if agents.is_empty() { Err(show.log_tail()) } else { Ok(()) }
    });
    show.signal(Signal::INT);
    show.wait(PATIENCE);
    place.nothing_left();
}

#[test]
fn a_step_that_fails_is_named_and_the_demo_ends_with_an_error() {
    let place = Place::new();
    let mut command = place.demo();
    command.env("ONCE", "1");
    let mut show = place.start(command);
    show.line("2/", PATIENCE);
    let controllers = children(show.pid(), "serve");
    let pid = i32::try_from(controllers[0]).expect("a process id");
    kill_process(Pid::from_raw(pid).expect("not zero"), Signal::KILL).expect("a process of this test");
    let status = show.wait(AT_MOST);
    let said = show.log();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("failed") && said.contains("end of") && said.contains("error: step "), "{said}");
    place.nothing_left();
}
