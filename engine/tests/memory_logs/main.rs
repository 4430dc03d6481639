//! Estimates against what llama.cpp allocated in public logs, where the log can be judged by a current build.
//! `examples/memory_figures.rs` prints the same row by row, with the logs that cannot.

mod replay;
mod row;
mod vintage;

use muster_engine::worker::WorkerCommand;

/// A device of a log, and the errors of its two estimates in percent.
struct Judged {
    name: String,
    earlier: f64,
    this_build: f64,
}

/// All devices of the logs with this status that can be replayed, or must be.
async fn devices(status: &str, must: bool) -> Vec<Judged> {
    let command = WorkerCommand::new(env!("CARGO_BIN_EXE_engine-worker"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut all = Vec::new();
    for row in row::all().into_iter().filter(|row| row.text("status") == status) {
        if row.text("engine") == "ik_llama.cpp" {
            continue;
        }
        let replayed = match replay::replay(&command, &row, folder.path()).await {
            Ok(replayed) => replayed,
            Err(reason) if must => panic!("{} {}: {reason}", row.id(), row.text("model_name")),
            Err(_) => continue,
        };
        let logged = row.allocated();
        for (name, logged) in logged.iter().filter(|(name, _)| *name != "Host") {
            let error = |by_device: &std::collections::BTreeMap<String, row::Parts>| {
                (by_device[name].total() / logged.total() - 1.0) * 100.0
            };
            all.push(Judged {
                name: format!("{} {name} in {:?} ({})", row.id(), replayed.took, replayed.notes.join("; ")),
                earlier: error(&replayed.estimated),
                this_build: error(&replayed.this_build),
            });
        }
    }
    all
}

#[tokio::test]
async fn estimates_are_what_public_logs_allocated() {
    let all = devices("judged", true).await;
    assert!(all.len() >= 26, "{}", all.len());
    let mut sizes: Vec<f64> = all.iter().map(|device| device.earlier.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let (median, p90, most) = (sizes[sizes.len() / 2], sizes[sizes.len() * 9 / 10], sizes[sizes.len() - 1]);
    assert!(median <= 0.1, "median {median} %");
    assert!(p90 <= 0.5, "p90 {p90} %");
    assert!(most <= 1.0, "at most {most} %");
    for Judged { name, earlier, this_build } in &all {
        assert!(*earlier >= -0.5, "{name}: {earlier} % under");
        // What this build adds is for larger inputs and longer lives of tensors, never less.
        assert!(*this_build >= earlier - 0.05, "{name}: {this_build} % now, {earlier} % then");
        assert!(*this_build >= -0.5, "{name}: {this_build} % under");
    }
}

#[tokio::test]
async fn logs_of_other_builds_are_met_by_what_is_known_of_those_builds() {
    let all = devices("excluded", false).await;
    let near = all.iter().filter(|device| device.earlier.abs() <= 1.0).count();
    // The others are named in examples/memory_figures.rs.
    assert!(near >= 28 && all.len() - near <= 4, "{near} of {}", all.len());
    let exact = all.iter().filter(|device| device.earlier.abs() <= 0.001).count();
    assert!(exact >= 24, "{exact} of {}", all.len());
}
