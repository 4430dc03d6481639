//! Prints how near the estimates of memory come to what llama.cpp allocated in public logs: a row for each device of a
//! log, and the errors over all. `memory_figures WORKER [ID…]` with the path of the program `engine-worker`.

#[path = "../tests/memory_logs/replay.rs"]
mod replay;
#[path = "../tests/memory_logs/row.rs"]
mod row;
#[path = "../tests/memory_logs/vintage.rs"]
mod vintage;

use std::process::ExitCode;
use std::time::Duration;

use muster_engine::worker::WorkerCommand;
use row::Row;

/// Why a log of another machine's CPU differs.
const HOST_DIFFERENCES: &str = "on the CPU the graphs are this build's, whose inputs for mixed batches take three rows of \
    the width more for each token of a micro-batch; which weights are repacked depends on the CPU, and a log that mapped \
    its file counts them twice (CPU_Mapped and CPU_REPACK), where Muster loads them once";

/// Devices of which it is known why they are more than 1 % off: log, device, cause.
const KNOWN: [(&str, &str, &str); 4] = [
    (
        "m052",
        "MTL0",
        "Metal's scratch for fused attention and the mask's place in memory: that build logged nothing but logits and one \
         row of the width at its peak",
    ),
    (
        "m112",
        "CUDA2",
        "the file was quantized in the order of its parts on the hub (layer 9 after 20), in which other layers than today's get \
         more bits: one such layer is on the next device instead",
    ),
    ("m112", "CUDA3", "that layer, see CUDA2"),
    ("m213", "CUDA0", "which layers keep experts on the host (-ot) is not in the log: replayed with all of them there"),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(worker) = arguments.next() else {
        eprintln!("usage: memory_figures WORKER [ID…]");
        return ExitCode::from(2);
    };
    let command = WorkerCommand::new(worker);
    let wanted: Vec<String> = arguments.collect();
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("no temporary folder: {error}");
            return ExitCode::FAILURE;
        }
    };
    let rows: Vec<Row> =
        row::all().into_iter().filter(|row| wanted.is_empty() || wanted.iter().any(|id| id == row.id())).collect();
    let mut all = Vec::new();
    for status in ["judged", "excluded", "host"] {
        println!("## {status}");
        if status == "host" {
            println!("{HOST_DIFFERENCES}");
        }
        let mut errors = Errors::default();
        for row in rows.iter().filter(|row| row.text("status") == status) {
            print_row(&command, row, folder.path(), &mut errors).await;
        }
        println!("{status}: {}", spread(&mut errors.earlier));
        if status != "host" {
            all.extend_from_slice(&errors.earlier);
        }
        println!("{status}: longest dry run with its worker {:.2?}", errors.longest);
        println!("{status}, with the graphs of the build that is linked: {}", spread(&mut errors.this_build));
    }
    println!("logs of all builds, devices: {}", spread(&mut all));
    ExitCode::SUCCESS
}

/// In percent, by whose graphs were sized.
#[derive(Default)]
struct Errors {
    earlier: Vec<f64>,
    this_build: Vec<f64>,
    longest: Duration,
}

/// Prints a log's devices and keeps their errors in percent: on GPUs the total of each, without one the total of the host.
async fn print_row(command: &WorkerCommand, row: &Row, folder: &std::path::Path, errors: &mut Errors) {
    let id = row.id();
    let what =
        format!("{} {}, {} {}", row.text("model_name"), row.text("ftype"), row.text("engine"), row.text("build"));
    if row.text("engine") == "ik_llama.cpp" {
        println!("{id} {what}: another engine, with its own buffers and quantizations: not replayed");
        return;
    }
    let replayed = match replay::replay(command, row, folder).await {
        Ok(replayed) => replayed,
        Err(reason) => {
            println!("{id} {what}: not replayed: {reason}; {}", row.text("status_reason"));
            return;
        }
    };
    errors.longest = errors.longest.max(replayed.took);
    let logged = row.allocated();
    let on_host = logged.keys().all(|name| name == "Host");
    for (name, logged) in &logged {
        let Some(estimated) = replayed.estimated.get(name) else {
            println!("{id} {name}: logged {:.2}, not in the estimate", logged.total());
            continue;
        };
        let error = (estimated.total() / logged.total() - 1.0) * 100.0;
        let now = replayed.this_build.get(name).copied().unwrap_or_default().total();
        let error_now = (now / logged.total() - 1.0) * 100.0;
        let counts = on_host || name != "Host";
        if counts {
            errors.earlier.push(error);
            errors.this_build.push(error_now);
        }
        println!(
            "{id} {name:8} logged {:9.2} = {:9.2} + {:8.2} + {:7.2}  estimated {:9.2} = {:9.2} + {:8.2} + {:7.2}  {error:+7.3} %{}  (this build {error_now:+.3} %)  {what}",
            logged.total(),
            logged.model,
            logged.context,
            logged.compute,
            estimated.total(),
            estimated.model,
            estimated.context,
            estimated.compute,
            if counts { " " } else { " (not counted)" },
        );
    }
    for (_, name, cause) in KNOWN.iter().filter(|(log, ..)| *log == id) {
        println!("    MISS {name}: {cause}");
    }
    for note in &replayed.notes {
        println!("    {note}");
    }
    if row.text("status") == "excluded" {
        println!("    {}", row.text("status_reason"));
    }
}

fn spread(errors: &mut [f64]) -> String {
    errors.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let at = |share: f64| {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let index = ((errors.len() as f64 - 1.0) * share).round() as usize;
        errors.get(index).copied().unwrap_or(f64::NAN)
    };
    let under = errors.iter().copied().fold(0.0_f64, f64::min);
    let within = errors.iter().filter(|error| error.abs() <= 1.0).count();
    format!(
        "{} devices, median {:.3} %, p90 {:.3} %, max {:.3} %, lowest {under:.3} %; {within} within 1 %",
        errors.len(),
        at(0.5).abs(),
        at(0.9).abs(),
        at(1.0).abs(),
    )
}
