//! The steps of the demo, and the [`Stage`] that they work on: two programs and one folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use muster_engine::bundled::NAME;
use muster_proto::{Bytes, ControllerStatus, Deployment, DeploymentState, Machine, MachineId, Model, Plan};
use muster_tests::{Binaries, Endpoint, Process, Request, send, try_say, try_wait_for, user};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Interrupted;
use crate::show::Show;

/// How long one command, or one wait, may take before the step counts as failed.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long the programs get to end by themselves.
const FAREWELL: Duration = Duration::from_secs(20);
/// What is asked: the bundled model knows the answer.
const QUESTION: &str = "What is Muster?";

/// One step: its title and what it does.
type Step = (&'static str, fn(&mut Stage, &Show) -> anyhow::Result<()>);

/// The show, in its order.
pub const STEPS: [Step; 10] = [
    ("A controller starts, on an embedded store", Stage::start_controller),
    ("A one-time enrolment token", Stage::create_token),
    ("An agent enrols with it and comes online", Stage::enrol),
    ("What this machine is, and how fast llama.cpp is on it", Stage::survey),
    ("The bundled model is imported, checked, quantized and sized", Stage::import),
    ("A policy, and the decision for this machine with its reasons", Stage::decide),
    ("The install: download, verification, loading", Stage::install),
    ("A question to the desk's OpenAI endpoint, answered here", Stage::ask),
    ("Predicted against measured", Stage::compare),
    ("The fleet, as the operator sees it", Stage::overview),
];

/// Two programs and the folder that they live in.
pub struct Stage {
    // Before the folder: fields drop in this order.
    agent: Option<Process>,
    controller: Option<Process>,
    programs: Binaries,
    interrupted: Interrupted,
    address: String,
    token: String,
    endpoint: Option<Endpoint>,
    machine: Option<MachineId>,
    home: Option<TempDir>,
}

impl Stage {
    /// An empty stage in a new temporary folder.
    pub fn new(programs: &Binaries, interrupted: Interrupted) -> anyhow::Result<Self> {
        let home =
            tempfile::Builder::new().prefix("muster-demo-").tempdir().context("cannot make a temporary folder")?;
        Ok(Self {
            agent: None,
            controller: None,
            programs: Binaries { controller: near(&programs.controller), agent: near(&programs.agent) },
            interrupted,
            address: String::new(),
            token: String::new(),
            endpoint: None,
            machine: None,
            home: Some(home),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.as_ref().expect("closed only at the end").path().join(name)
    }

    /// The words of a `muster` command.
    fn muster(&self, arguments: &[&str]) -> Vec<String> {
        words(&self.programs.controller, "--data", &self.path("controller"), arguments)
    }

    /// The words of a `muster-agent` command.
    fn desk(&self, arguments: &[&str]) -> Vec<String> {
        words(&self.programs.agent, "--state", &self.path("agent"), arguments)
    }

    fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> anyhow::Result<T> {
        let out = run(&self.muster(&[arguments, &["--json"]].concat()))?;
        serde_json::from_str(&out).with_context(|| format!("cannot read what `muster {}` says", arguments.join(" ")))
    }

    fn spawn(&self, words: &[String], name: &str) -> Process {
        Process::spawn(command(words), name, &self.path(&format!("{name}.log")))
    }

    /// Waits for a state, and stops waiting when the user does.
    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> anyhow::Result<Result<T, String>>) -> anyhow::Result<T> {
        let outcome = try_wait_for(what, PATIENCE, || {
            if self.interrupted.load(Ordering::SeqCst) {
                return Ok(Err(anyhow!("interrupted")));
            }
            look().map_or_else(|error| Ok(Err(error)), |seen| seen.map(Ok))
        });
        outcome.map_err(|timeout| anyhow!(timeout))?
    }

    /// Runs a command that takes its time, with its own progress bar, which is the one that users know it by; a pipe gets
    /// none. Ctrl-C ends it.
    fn with_progress(&self, words: &[String], show: &Show) -> anyhow::Result<()> {
        let log = self.path("progress.log");
        let stderr = if show.terminal() { Stdio::inherit() } else { fs::File::create(&log)?.into() };
        let mut command = command(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", words[0]))?;
        let ended = self.wait("the command to end", || Ok(child.try_wait()?.ok_or("it still runs".to_owned())));
        if ended.is_err() {
            // It may have ended by itself meanwhile; either way it is gone afterwards.
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = ended?;
        if !status.success() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("`{}` ended with {status}\n{}", words.join(" "), said.trim_end());
        }
        Ok(())
    }

    fn machine(&self) -> anyhow::Result<Machine> {
        let id = self.machine.context("no machine has enrolled")?;
        self.json(&["machines", "show", &id.to_string()])
    }

    fn start_controller(&mut self, show: &Show) -> anyhow::Result<()> {
        let serve = self.muster(&["serve", "--listen", "127.0.0.1:0"]);
        show.command(&serve);
        let started = Instant::now();
        let mut process = self.spawn(&serve, "controller");
        let line = process.try_line("listening on ", PATIENCE);
        self.controller = Some(process);
        self.address = line.context("the controller said no address")?;
        let took = started.elapsed().as_millis();
        let status: ControllerStatus = self.json(&["status"])?;
        let fingerprint: String = status.ca_fingerprint.hex().chars().take(16).collect();
        show.good(&format!("listening on {} after {took} ms; its own CA is {fingerprint}…", self.address));
        Ok(())
    }

    fn create_token(&mut self, show: &Show) -> anyhow::Result<()> {
        let create = self.muster(&["token", "create"]);
        show.command(&create);
        run(&create)?.trim().clone_into(&mut self.token);
        show.good(
            "good once, for 24 hours; it carries the CA's fingerprint, so that nobody can pose as the controller",
        );
        Ok(())
    }

    fn enrol(&mut self, show: &Show) -> anyhow::Result<()> {
        let enrol = self.desk(&["enrol", "--controller", &self.address, "--token", &self.token]);
        show.command(&enrol);
        run(&enrol)?;
        // Its own benchmark would begin by itself and take longer than a show should.
        let run = self.desk(&["run", "--endpoint", "127.0.0.1:0", "--no-bench"]);
        show.command(&run);
        let started = Instant::now();
        let mut process = self.spawn(&run, "agent");
        let line = process.try_line("endpoint ", PATIENCE);
        self.agent = Some(process);
        self.endpoint = Some(Endpoint { base: line.context("the agent said no endpoint")? });
        let machine = self.wait("the agent to come online", || {
            let machines: Vec<Machine> = self.json(&["machines", "list"])?;
            Ok(machines.into_iter().find(|machine| machine.online).ok_or("not online".to_owned()))
        })?;
        let took = started.elapsed().as_millis();
        self.machine = Some(machine.id);
        show.good(&format!("{} is online after {took} ms, as machine {}", machine.hostname, machine.id));
        Ok(())
    }

    fn survey(&mut self, show: &Show) -> anyhow::Result<()> {
        let bench = self.desk(&["bench", "--quick"]);
        show.command(&bench);
        self.with_progress(&bench, show)?;
        let (inventory, benchmark) = self.wait("inventory and benchmark", || {
            let machine = self.machine()?;
            Ok(match (machine.inventory, machine.benchmark) {
                (Some(inventory), Some(benchmark)) => Ok((inventory, benchmark)),
                (inventory, _) => Err(format!("inventory {}, no benchmark", inventory.is_some())),
            })
        })?;
        show.command(&self.muster(&["machines", "show", &inventory.hostname]));
        show.report(&muster_reports::inventory_page(&inventory, &show.reports()));
        show.blank();
        show.report(&muster_reports::benchmark_table(&benchmark, &show.reports()));
        Ok(())
    }

    fn import(&mut self, show: &Show) -> anyhow::Result<()> {
        let import = self.muster(&["models", "import", "--bundled", "--quantize", "Q8_0,Q4_K_M"]);
        show.command(&import);
        self.with_progress(&import, show)?;
        let models: Vec<Model> = self.json(&["models", "list"])?;
        show.report(&muster_reports::models_table(&models, &show.reports()));
        Ok(())
    }

    fn decide(&mut self, show: &Show) -> anyhow::Result<()> {
        let policy = format!("[[role]]\nname = \"chat\"\nmodels = [\"{NAME}\"]\ncontext = 1024\n");
        let file = self.path("policy.toml");
        fs::write(&file, &policy).with_context(|| format!("cannot write {}", file.display()))?;
        show.command(&["cat".into(), file.display().to_string()]);
        show.report(&policy);
        let apply = self.muster(&["policy", "apply", &file.display().to_string()]);
        show.command(&apply);
        run(&apply)?;
        show.command(&self.muster(&["plan", "show"]));
        let plan: Plan = self.json(&["plan", "show"])?;
        let machine = self.machine()?;
        let names = BTreeMap::from([(machine.id, machine.hostname)]);
        show.report(&muster_reports::plan_page(&plan, &names, &show.reports()));
        let decided = plan.machines.get(&machine.id).and_then(|decided| decided.assignment.as_ref());
        decided.context("nothing was decided for this machine")?;
        Ok(())
    }

    fn install(&mut self, show: &Show) -> anyhow::Result<()> {
        let bar = show.bytes(0);
        let outcome = self.wait("the model to run", || {
            let machine = self.machine()?;
            let deployment = machine.observed.and_then(|observed| observed.deployments.into_iter().next());
            let Some(deployment) = deployment else { return Ok(Err("no deployment yet".to_owned())) };
            if let Some(transfer) = &deployment.transfer {
                bar.set_length(transfer.total.get());
                bar.set_position(transfer.done.get());
            }
            bar.set_message(deployment.state.to_string());
            match deployment.state {
                DeploymentState::Success => Ok(Ok(deployment)),
                DeploymentState::Failure => bail!("{}", deployment.reason.unwrap_or_default()),
                state => Ok(Err(state.to_string())),
            }
        });
        bar.finish_and_clear();
        let deployment = outcome?;
        show.good(&installed(&deployment));
        show.good(&format!("its SHA-256 is the one that was decided: {}", deployment.digest));
        let measured = deployment.measured.context("a model that runs was measured")?;
        show.good(&format!(
            "loaded in {} ms, in a process of its own that takes {}",
            measured.load_ms,
            measured.resident.map_or_else(|| "an unknown amount".into(), |resident| resident.to_string())
        ));
        Ok(())
    }

    fn curl(&self) -> Vec<String> {
        let base = self.endpoint.as_ref().map_or("", |endpoint| &endpoint.base);
        let url = format!("{base}/chat/completions");
        let body = format!(
            r#"{{"model": "{NAME}", "stream": true, "temperature": 0,
    "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}"#
        );
        ["curl", "-N", &url, "-H", "content-type: application/json", "-d", &body].map(str::to_owned).to_vec()
    }

    fn ask(&mut self, show: &Show) -> anyhow::Result<()> {
        let endpoint = self.endpoint.clone().context("the agent said no endpoint")?;
        show.command(&self.curl());
        show.report(&format!("question: {QUESTION}"));
        let started = Instant::now();
        let request = Request::post("/v1/chat/completions", &question());
        let reply = send(endpoint.address(), &request).context("the endpoint gives no reply")?;
        let status = reply.status;
        if status != 200 {
            bail!("the endpoint answered {status}: {}", String::from_utf8_lossy(&reply.bytes()?));
        }
        let mut speech = show.speech("answer:  ");
        let (mut first, mut answer) = (None, String::new());
        for event in reply.events() {
            let chunk: Value = serde_json::from_str(&event).unwrap_or_default();
            let Some(text) = chunk["choices"][0]["delta"]["content"].as_str() else { continue };
            first.get_or_insert_with(|| started.elapsed());
            answer += text;
            speech.piece(text);
        }
        speech.end();
        let took = started.elapsed();
        if !answer.contains("Muster") {
            bail!("the answer should tell what Muster is: {answer:?}");
        }
        show.good(&format!(
            "first words after {} ms, all of it after {} ms; nothing of it left this machine",
            first.unwrap_or_default().as_millis(),
            took.as_millis()
        ));
        Ok(())
    }

    fn compare(&mut self, show: &Show) -> anyhow::Result<()> {
        let (plan, machine): (Plan, Machine) = (self.json(&["plan", "show"])?, self.machine()?);
        let decided = plan.machines.get(&machine.id).and_then(|decided| decided.assignment.as_ref());
        let decided = decided.context("no decision")?;
        let observed = machine.observed.context("nothing observed")?;
        let measured = observed.deployments.first().and_then(|deployment| deployment.measured.as_ref());
        let measured = measured.context("nothing measured")?;
        let label = format!("{} {}", decided.model, decided.quantization);
        let pairs = [(label, &decided.prediction, measured)];
        show.report(&muster_reports::prediction_table(&pairs, &show.reports()));
        Ok(())
    }

    fn overview(&mut self, show: &Show) -> anyhow::Result<()> {
        let list = self.muster(&["machines", "list"]);
        show.command(&list);
        let machines: Vec<Machine> = self.json(&["machines", "list"])?;
        let now = std::time::SystemTime::now().into();
        show.report(&muster_reports::machines_table(&machines, now, &show.reports()));
        Ok(())
    }

    /// The three commands to try next.
    pub fn what_next(&self, show: &Show) {
        show.blank();
        show.note("Try next, in another terminal:");
        for command in [
            self.desk(&["chat", "What is the capital of Peru?"]),
            self.muster(&["machines", "show", &self.machine().map(|machine| machine.hostname).unwrap_or_default()]),
            self.curl(),
        ] {
            show.blank();
            show.command_to_copy(&command);
        }
        show.blank();
    }

    /// Whether one of the programs ended by itself.
    pub fn ended(&mut self) -> bool {
        [&mut self.agent, &mut self.controller].into_iter().flatten().any(|process| process.ended().is_some())
    }

    /// The end of each log.
    pub fn log_tails(&self) -> Vec<String> {
        [&self.controller, &self.agent].into_iter().flatten().map(Process::log_tail).collect()
    }

    /// Stops both programs and removes the folder.
    ///
    /// # Errors
    /// When one of them had to be killed or ended with an error, or the folder cannot be removed.
    pub fn close(&mut self) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        for (name, process) in [("the agent", &mut self.agent), ("the controller", &mut self.controller)] {
            let Some(mut process) = process.take() else { continue };
            process.signal(rustix::process::Signal::TERM);
            match try_wait_for("its end", FAREWELL, || process.ended().ok_or("it still runs")) {
                Ok(status) if status.success() => {}
                Ok(status) => wrong.push(format!("{name} ended with {status}")),
                Err(timeout) => wrong.push(format!("{name} had to be killed: {timeout}")),
            }
        }
        if let Some(home) = self.home.take() {
            let path = home.path().to_owned();
            home.close().with_context(|| format!("cannot remove {}", path.display()))?;
        }
        if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
    }
}

/// Runs a command to its end; returns its standard output.
fn run(words: &[String]) -> anyhow::Result<String> {
    let said = try_say(&mut command(words), PATIENCE).map_err(|error| anyhow!(error))?;
    if said.code != Some(0) {
        bail!("`{}` ended with {:?}:\n{}", words.join(" "), said.code, said.err.trim_end());
    }
    Ok(said.out)
}

/// What a client of the desk sends.
fn question() -> Value {
    json!({"model": NAME, "messages": user(QUESTION), "stream": true, "temperature": 0})
}

/// How the file came.
fn installed(deployment: &Deployment) -> String {
    let Some(transfer) = &deployment.transfer else { return "it was in the store already".to_owned() };
    let speed = transfer.speed.map_or_else(String::new, |speed| format!(" at {speed}"));
    let again = if transfer.resumed_from > Bytes::ZERO {
        format!(", {} of it before", transfer.resumed_from)
    } else {
        String::new()
    };
    format!("{} came over mutual TLS{speed}{again}", transfer.done)
}

/// A path as it is shorter to type: relative if it is below the current folder.
fn near(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(here) {
        // A single word would be looked for in PATH.
        Ok(below) if below.components().count() > 1 => below.to_owned(),
        _ => path.to_owned(),
    }
}

fn words(program: &Path, option: &str, folder: &Path, arguments: &[&str]) -> Vec<String> {
    let mut words = vec![program.display().to_string(), option.to_owned(), folder.display().to_string()];
    words.extend(arguments.iter().map(|&argument| argument.to_owned()));
    words
}

/// The command of these words, away from the terminal's Ctrl-C: the demo ends it in its own order.
fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).process_group(0);
    command
}
