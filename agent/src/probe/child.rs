//! Probes that may hang or crash, each in a process of its own: this very program as `muster-agent probe NAME`.
//!
//! [`ask`] is the parent's side: it starts the process, reads one line of JSON and kills it at the deadline. [`main`] is the
//! child's: it asks one source and prints. Neither knows what the answers mean. A child ends with its parent: end of file on
//! its standard input ends it, in the middle of a driver's call too.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use muster_engine::worker::WorkerCommand;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::raw::{ProbeResult, VulkanAnswers};
use super::{Probe, drm, nvml, nvml_free, nvml_use};
use crate::roots::Roots;

/// The first argument that makes this program a probe.
pub const ARGUMENT: &str = "probe";
/// The most that a probe may say: a server of sixteen cards says a hundredth of it.
const MOST_OUTPUT: u64 = 4 << 20;
/// How long a process may take to be gone after its last word.
const GRACE: Duration = Duration::from_secs(1);

/// Asks the probe `name` in a process of its own, for at most `deadline`. A process that the kernel does not let go, as a
/// driver that hangs does, is not waited for.
pub async fn ask<T: DeserializeOwned>(program: &Path, name: &str, deadline: Duration) -> ProbeResult<T> {
    let mut command = Command::new(program);
    command.arg(ARGUMENT).arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // Layers that programs install for everybody (overlays, recorders) only add ways to crash.
    command.env("VK_LOADER_LAYERS_DISABLE", "~implicit~").kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return ProbeResult::failed(format!("cannot start {}: {error}", program.display())),
    };
    let Some(stdout) = child.stdout.take() else { return ProbeResult::failed("it has no output") };
    let mut said = Vec::new();
    let mut limited = stdout.take(MOST_OUTPUT);
    match timeout(deadline, limited.read_to_end(&mut said)).await {
        Err(_) => ProbeResult::TimedOut { after_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) },
        Ok(Err(error)) => ProbeResult::failed(format!("cannot be heard: {error}")),
        Ok(Ok(_)) => match parse(&said) {
            Some(answer) => {
                // It ends by itself after its answer; one that does not is killed when dropped.
                let _ = timeout(GRACE, child.wait()).await;
                answer
            }
            None => match timeout(GRACE, child.wait()).await {
                Ok(Ok(status)) => ProbeResult::failed(format!("its driver crashed ({status})")),
                _ => ProbeResult::failed("it said nothing and did not end"),
            },
        },
    }
}

/// The answer is the last line: a driver may have written something before it.
fn parse<T: DeserializeOwned>(said: &[u8]) -> Option<ProbeResult<T>> {
    let line = said.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(line).ok()
}

/// Runs the probe that the arguments name, in this process: a program that was started with [`ARGUMENT`] calls this before
/// anything else and exits with what it returns.
pub fn main() -> ExitCode {
    let name = std::env::args().nth(2).unwrap_or_default();
    if name == "machine" {
        return machine();
    }
    // These end with their parent by themselves.
    match name.as_str() {
        nvml_use::NAME => return nvml_use::serve(),
        nvml_free::NAME => return nvml_free::serve(),
        _ => {}
    }
    end_with_parent();
    let printed = match name.as_str() {
        "drm" => print(&drm::ask(false)),
        "drm-gently" => print(&drm::ask(true)),
        "nvml" => print(&nvml::ask()),
        "vulkan" => print(&vulkan()),
        #[cfg(windows)]
        "dxgi" => print(&super::windows::dxgi()),
        #[cfg(windows)]
        "registry" => print(&super::windows::registry()),
        #[cfg(target_os = "macos")]
        "metal" => print(&super::macos::metal()),
        _ => {
            eprintln!("there is no probe {name:?}");
            return ExitCode::from(2);
        }
    };
    if printed.is_err() {
        return ExitCode::FAILURE;
    }
    // Drivers hang in their destructors too, and all is said.
    end_now()
}

/// `muster-agent probe machine` prints what all probes say, as one file that can be looked at elsewhere.
fn machine() -> ExitCode {
    let captured = || -> io::Result<()> {
        let worker = WorkerCommand::this_executable()?;
        let (roots, store) = (Roots::of_this_machine(), std::env::current_dir()?);
        let probe = Probe { roots, store, worker, serving: Arc::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let raw = runtime.block_on(super::capture::capture(&probe));
        let mut stdout = io::stdout().lock();
        serde_json::to_writer_pretty(&mut stdout, &raw)?;
        stdout.write_all(b"\n")
    };
    match captured() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn vulkan() -> ProbeResult<VulkanAnswers> {
    use muster_engine::vulkan::{VulkanError, ask};
    match ask() {
        Ok(answers) => ProbeResult::Ok(answers),
        Err(error @ VulkanError::NoLoader { .. }) => ProbeResult::absent(error.to_string()),
        Err(error @ VulkanError::Refused { .. }) => ProbeResult::failed(error.to_string()),
    }
}

fn print<T: Serialize>(answer: &ProbeResult<T>) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

/// Waits for the end of standard input on a thread of its own: whoever asked is gone then.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(io::stdin().lock().read(&mut byte), Ok(1)) {}
        end_now();
    });
}

/// Ends this process without running any destructor.
pub(super) fn end_now() -> ! {
    #[cfg(unix)]
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_says_before_the_answer_is_skipped() {
        let said = b"MESA: warning\n{\"ok\":7}\n";
        assert_eq!(parse::<u32>(said), Some(ProbeResult::Ok(7)));
        assert_eq!(parse::<u32>(b"{\"ok\":7}"), None, "a line that broke off");
        assert_eq!(parse::<u32>(b"nonsense\n"), None);
    }

    #[tokio::test]
    async fn one_that_hangs_is_given_up_and_one_that_crashes_is_told() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let program = |name: &str, script: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("executable");
            path
        };
        let hangs = program("hangs", "read line");
        let answer: ProbeResult<u32> = ask(&hangs, "nvml", Duration::from_millis(50)).await;
        assert_eq!(answer, ProbeResult::TimedOut { after_ms: 50 });
        let crashes = program("crashes", "kill -SEGV $$");
        let answer: ProbeResult<u32> = ask(&crashes, "nvml", Duration::from_mins(1)).await;
        assert!(matches!(&answer, ProbeResult::Failed { reason, .. } if reason.contains("crashed")), "{answer:?}");
        let answers = program("answers", r#"echo "{\"ok\": 3}""#);
        assert_eq!(ask(&answers, "nvml", Duration::from_mins(1)).await, ProbeResult::Ok(3));
        let flood = program(
            "floods",
            "while echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; do :; done",
        );
        assert!(matches!(ask::<u32>(&flood, "nvml", Duration::from_mins(1)).await, ProbeResult::Failed { .. }));
        let missing: ProbeResult<u32> = ask(&folder.path().join("none"), "nvml", Duration::from_mins(1)).await;
        assert!(matches!(missing, ProbeResult::Failed { .. }));
    }
}
