//! Inside a worker: reads requests from the pipe that was its standard input, does them with llama.cpp, answers.
//!
//! Owns: the process's own set-up (priority, limits, where prints go, ending with its parent) and the jobs. It does not
//! know who asked or why. Entry point: [`worker_main`]. Two threads: one reads frames, for ever, so that a closed pipe is
//! seen even while llama.cpp computes; the first one computes.

mod answer;
mod bench;
mod generate;
mod jobs;
mod make;
mod measure;
mod outbox;
mod profile;
mod quality;
mod quantize;
mod trace;

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};

use crate::wire::{FromWorker, ToWorker, from_worker::Reply, to_worker::Request};
use crate::{ffi, frame, wire};
use outbox::Outbox;

/// Runs a worker in this process: a program that was started with [`WORKER_ARGUMENT`](crate::WORKER_ARGUMENT) calls this
/// before anything else and exits with what it returns.
pub fn worker_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("engine worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let outbox = Outbox::take_stdout()?;
    apply_arguments()?;
    let requests = read_requests();
    ffi::start(backends_folder().as_deref()).map_err(io::Error::other)?;
    let Ok(first) = requests.recv() else { return Ok(()) };
    let id = first.id;
    let reply = match first.request {
        Some(Request::Devices(wire::Devices {})) => Ok(jobs::devices()),
        Some(Request::Size(request)) => jobs::size(&request),
        Some(Request::Quantize(request)) => quantize::run(&request, id, &outbox),
        Some(Request::Quality(request)) => quality::run(&request, id, &outbox),
        Some(Request::Profile(request)) => profile::run(&request, id, &outbox),
        Some(Request::Bench(request)) => bench::run(&request, id, &outbox),
        Some(Request::Load(request)) => return generate::run(&request, id, &outbox, &requests),
        Some(Request::MakeModel(request)) => make::run(&request),
        Some(Request::Abort(wire::Abort {})) => {
            ffi::abort();
            Ok(Reply::Done(wire::Done {}))
        }
        Some(Request::Chat(_) | Request::Cancel(_) | Request::Measure(_)) | None => {
            Err("no model is loaded".to_owned())
        }
    };
    let reply = reply.unwrap_or_else(|reason| Reply::Refused(wire::Refused { reason, internal: false }));
    outbox.send(&FromWorker { id, reply: Some(reply) })
}

/// Reads frames on a thread of its own. When the pipe ends, whoever started this process is gone or wants it gone: it then
/// ends at once, in the middle of whatever it computes.
///
/// The kernel's parent-death signal is not used: it fires when the *thread* that started the process ends, which an
/// asynchronous runtime may do at any time.
fn read_requests() -> Receiver<ToWorker> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut pipe = io::stdin().lock();
        while let Ok(Some(request)) = frame::read::<ToWorker>(&mut pipe) {
            if send.send(request).is_err() {
                break;
            }
        }
        end_now();
    });
    receive
}

/// Ends this process without running any destructor: other threads may be computing.
fn end_now() -> ! {
    #[cfg(unix)]
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

/// `--nice=N` and `--memory-limit=BYTES`, which the parent appends; anything else is the program's own.
fn apply_arguments() -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        // A core dump would hold prompts. The limit alone does not keep the kernel from piping one to a collector.
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        #[cfg(target_os = "linux")]
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
        for argument in std::env::args() {
            let invalid = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{argument} is not a number"));
            if let Some(nice) = argument.strip_prefix("--nice=") {
                rustix::process::nice(nice.parse().map_err(invalid)?)?;
            } else if let Some(limit) = argument.strip_prefix("--memory-limit=") {
                let limit = Some(limit.parse().map_err(invalid)?);
                setrlimit(Resource::As, Rlimit { current: limit, maximum: limit })?;
            }
        }
    }
    Ok(())
}

/// With plugins, the folder beside the executable that carries them, and never another: ggml would otherwise look in the
/// current directory too.
fn backends_folder() -> Option<std::path::PathBuf> {
    if !cfg!(feature = "dynamic-backends") {
        return None;
    }
    Some(std::env::current_exe().ok()?.parent()?.join("backends"))
}
