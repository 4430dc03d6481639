//! A benchmark that the desk's owner, the battery or the heat ends: at once, with what it has, and without a trace.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use muster_proto::Benchmark;
use muster_tests::{Agent, PATIENCE, Process, Surroundings, children, wait_for};

/// The lowest priority that there is.
const LOWEST: i32 = 19;
/// What the benchmark says when llama.cpp has measured its first model.
const SECOND_STEP: &str = "muster-61m Q4_K_M";

/// One at a time: each wants all of the processor at the lowest priority, beside whatever other tests run.
static ALONE: Mutex<()> = Mutex::new(());

/// A benchmark on a made-up desk.
struct Desk {
    surroundings: Surroundings,
    agent: Agent,
    bench: Process,
    // After the rest: fields drop in this order.
    _alone: MutexGuard<'static, ()>,
}

impl Desk {
    /// Begins to measure.
    fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut surroundings = Surroundings::new();
        let agent = surroundings.around(Agent::new());
        // The models are made anew each time; nobody else's are there.
        assert!(!agent.state().exists());
        let bench =
            Process::spawn(agent.command(&["bench", "--full", "--wait", "600", "--json"]), "bench", &agent.log());
        surroundings.count(bench.pid());
        Self { surroundings, agent, bench, _alone: alone }
    }

    /// Until llama.cpp is at its second model: it has measured the first.
    fn until_measured(self) -> Self {
        // The thorough kind does not end by itself as soon as it has one, however slow the machine is.
        wait_for("a point", 3 * PATIENCE, || {
            if self.bench.log().contains(SECOND_STEP) { Ok(()) } else { Err(self.bench.log_tail()) }
        });
        self
    }

    /// The agent's child that measures, once it has given way to everybody else.
    fn child(&mut self, kind: &str, priority: i32) -> u32 {
        let agent = self.bench.pid();
        wait_for(&format!("{kind} at priority {priority}"), PATIENCE, || {
            let found: Vec<(u32, Option<i32>)> =
                children(agent, kind).into_iter().map(|pid| (pid, nice(pid))).collect();
            let low = found.iter().find(|(_, nice)| *nice == Some(priority)).map(|(pid, _)| *pid);
            low.ok_or_else(|| format!("{found:?}, {}", self.bench.log_tail()))
        })
    }

    /// Does it, and returns the benchmark that came of it: whole but for what ended it, with nothing left behind.
    fn stopped_by(mut self, what: &str, event: impl FnOnce(&Surroundings)) -> Benchmark {
        let workers = children(self.bench.pid(), "engine-worker");
        assert_eq!(workers.len(), 1, "{workers:?}");
        let began = Instant::now();
        event(&self.surroundings);
        wait_for("the worker's end", PATIENCE, || if runs(workers[0]) { Err("it runs") } else { Ok(()) });
        let worker = began.elapsed().as_secs_f64();
        let status = self.bench.wait(PATIENCE);
        let all = began.elapsed().as_secs_f64();
        eprintln!("{what}: the worker was gone after {worker:.2} s, the benchmark after {all:.2} s");
        assert!(status.success(), "{}", self.bench.log_tail());
        assert!(!self.agent.state().join("scratch").exists(), "models were left behind");
        let out: String = self
            .bench
            .log()
            .lines()
            .filter_map(|line| line.strip_prefix("stdout: ").map(|line| format!("{line}\n")))
            .collect();
        let said: Benchmark = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}:\n{out}"));
        let kept = fs::read(self.agent.state().join("benchmark.json")).expect("it is kept");
        assert_eq!(serde_json::from_slice::<Benchmark>(&kept).expect("JSON"), said);
        assert!(!said.points.is_empty() && !said.parts.is_empty(), "what was measured is lost: {said:?}");
        said
    }
}

/// The priority of a process: field 19 of `/proc/PID/stat` (proc(5)).
fn nice(pid: u32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok()
}

/// One that nobody has waited for yet has ended too.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A program that computes until it is dropped.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        Self(command.spawn().expect("a shell"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_owner_who_returns_ends_a_benchmark_that_gave_way_all_along() {
    let mut desk = Desk::start();
    let parts = desk.child("bench-parts", LOWEST);
    let worker = desk.child("engine-worker", LOWEST);
    assert_ne!(parts, worker);
    let desk = desk.until_measured();
    // Several, because other tests may want the processor too.
    let mut busy = Vec::new();
    let benchmark = desk.stopped_by("the owner", |surroundings| {
        for _ in 0..4 {
            let program = Busy::start();
            surroundings.owner(program.0.id());
            busy.push(program);
        }
    });
    let reason = benchmark.conditions.stopped_by.as_deref().expect("a reason");
    assert!(reason.contains("other programs began to work"), "{reason}");
    assert_eq!(benchmark.conditions.on_mains, Some(true));
}

#[test]
fn the_owner_who_draws_ends_a_benchmark() {
    let benchmark = Desk::start().until_measured().stopped_by("the owner's picture", Surroundings::draw);
    let reason = benchmark.conditions.stopped_by.as_deref().expect("a reason");
    assert!(reason.contains("other programs began to use a GPU"), "{reason}");
}

#[test]
fn the_battery_ends_a_benchmark() {
    let benchmark =
        Desk::start().until_measured().stopped_by("the battery", |surroundings| surroundings.on_mains(false));
    assert_eq!(benchmark.conditions.stopped_by.as_deref(), Some("the battery took over"));
    assert_eq!(benchmark.conditions.on_mains, Some(true), "it was measured on mains");
}

#[test]
fn heat_ends_a_benchmark() {
    let benchmark = Desk::start().until_measured().stopped_by("the heat", |surroundings| surroundings.heat(94));
    let reason = benchmark.conditions.stopped_by.as_deref().expect("a reason");
    assert!(reason.contains("6 °C below critical"), "{reason}");
    assert_eq!(benchmark.conditions.temperature_celsius, Some(94.0));
}
