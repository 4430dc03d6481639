//! `make demo`: the whole loop in one terminal, with the very commands that an operator would type.
//!
//! Owns the order of the show and its end: it leaves no process and no file behind, whether it ends by itself
//! (`ONCE=1`), by Ctrl-C or by a failed step. What each step does is in [`steps`], how it looks in [`show`].

mod show;
mod steps;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use muster_tests::{beside_this_program, try_wait_for};

use crate::show::Show;
use crate::steps::{STEPS, Stage};

/// Set by Ctrl-C, SIGTERM and the closing of the terminal.
pub type Interrupted = Arc<AtomicBool>;

fn main() -> ExitCode {
    let once = std::env::args().any(|argument| argument == "--once")
        || std::env::var("ONCE").is_ok_and(|once| !once.is_empty() && once != "0");
    let mut show = Show::new();
    match run(once, &mut show) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show.error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(once: bool, show: &mut Show) -> anyhow::Result<()> {
    let interrupted = Interrupted::default();
    watch_signals(Arc::clone(&interrupted))?;
    let started = Instant::now();
    let mut stage = Stage::new(&beside_this_program()?, Arc::clone(&interrupted))?;
    show.title("Muster: the whole loop on one machine");
    for (number, (title, step)) in STEPS.iter().enumerate() {
        show.step(number + 1, STEPS.len(), title);
        let done = step(&mut stage, show);
        if interrupted.load(Ordering::SeqCst) {
            show.note("interrupted: stopping everything");
            return stage.close();
        }
        if let Err(error) = done {
            show.fail(number + 1, title, &error, &stage.log_tails());
            // The step's error is the one to tell; what closing says would only hide it.
            let _ = stage.close();
            anyhow::bail!("step {} failed: {title}", number + 1);
        }
    }
    show.finished(started.elapsed());
    stage.what_next(show);
    if !once {
        show.note("Both programs keep running. Ctrl-C stops them and removes everything.");
        let forever = Duration::from_secs(u64::MAX / 4);
        let _ = try_wait_for("Ctrl-C", forever, || {
            if interrupted.load(Ordering::SeqCst) || stage.ended() { Ok(()) } else { Err("nothing") }
        });
        if !interrupted.load(Ordering::SeqCst) {
            show.fail(STEPS.len(), "keeping both running", &anyhow::anyhow!("one of them ended"), &stage.log_tails());
            let _ = stage.close();
            anyhow::bail!("one of the two programs ended by itself");
        }
        show.blank();
    }
    stage.close()?;
    show.note("Stopped both; nothing is left behind.");
    Ok(())
}

/// A thread that notes the signals which end a program in a terminal.
fn watch_signals(interrupted: Interrupted) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            // Each arm only waits; losing the others' progress loses nothing.
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        interrupted.store(true, Ordering::SeqCst);
    });
    Ok(())
}
