//! [`Agent`]: a real `muster-agent` on a state directory of its own, and its command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use muster_proto::{AgentStatus, MachineId};
use serde_json::Value;
use tempfile::TempDir;

use crate::controller::quiet_environment;
use crate::process::{Process, Said, children, say};
use crate::{Controller, Endpoint, PATIENCE, binaries, wait_for};

/// An agent, running or not. Dropping it kills it and removes its directory.
pub struct Agent {
    // Before the folder that it works in: fields drop in this order.
    process: Option<Process>,
    endpoint: Option<Endpoint>,
    run: Vec<String>,
    variables: Vec<(String, String)>,
    home: TempDir,
}

impl Agent {
    /// One that has not enrolled, on a new directory.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("muster-test-").tempdir().expect("a temporary folder");
        // One thread each: threads of one model wait for each other by spinning, which on a machine whose cores are all
        // taken by other tests costs a hundredfold.
        let run = ["--no-bench", "--threads", "1"].map(str::to_owned).to_vec();
        Self { process: None, endpoint: None, run, variables: Vec::new(), home }
    }

    /// With more arguments for `run`.
    #[must_use]
    pub fn with(mut self, run: &[&str]) -> Self {
        self.run.extend(run.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Enrols with a new token and runs; returns when the controller sees it online.
    #[track_caller]
    pub fn start(controller: &Controller) -> Self {
        Self::new().start_at(controller, &controller.address)
    }

    /// As [`Self::start`], for one made with options, connecting at `address`.
    #[must_use]
    #[track_caller]
    pub fn start_at(mut self, controller: &Controller, address: &str) -> Self {
        self.enrol(address, &controller.token(&[])).ok();
        self.restart();
        controller.wait_online(self.id(), true, PATIENCE);
        self
    }

    /// Runs `enrol` to its end.
    #[track_caller]
    pub fn enrol(&self, address: &str, token: &str) -> Said {
        say(&mut self.enrolment(address, token), PATIENCE)
    }

    /// The command that enrols.
    pub fn enrolment(&self, address: &str, token: &str) -> Command {
        self.command(&["enrol", "--controller", address, "--token", token])
    }

    /// Starts `run`, again or for the first time.
    #[track_caller]
    pub fn restart(&mut self) {
        let command = self.running();
        self.spawn(command);
    }

    /// The command that runs the daemon.
    pub fn running(&self) -> Command {
        let mut command = self.command(&["run", "--endpoint", "127.0.0.1:0"]);
        command.args(&self.run);
        command
    }

    /// Starts `command` as this agent's daemon and waits for its endpoint.
    #[track_caller]
    pub fn spawn(&mut self, command: Command) {
        let mut process = Process::spawn(command, "agent", &self.log());
        let base = process.line("endpoint ", PATIENCE);
        self.endpoint = Some(Endpoint { base });
        self.process = Some(process);
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent runs")
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process().kill9();
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process().terminate(PATIENCE)
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Its log, outside of the state directory.
    pub fn log(&self) -> PathBuf {
        self.home.path().join("agent.log")
    }

    /// A place for the test's own files, removed with the rest.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `muster-agent` with these arguments, on this agent's state directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&binaries().agent);
        quiet_environment(&mut command);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.arg("--state").arg(self.state()).args(arguments);
        command
    }

    /// Runs one command to its end.
    #[track_caller]
    pub fn say(&self, arguments: &[&str]) -> Said {
        say(&mut self.command(arguments), PATIENCE)
    }

    /// What `status --json` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        let out = self.say(&["status", "--json"]).ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("status --json: {error}:\n{out}"))
    }

    /// Waits until `status --json` is as `wanted` says, and returns it.
    #[track_caller]
    pub fn wait_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("an agent {what}"), PATIENCE, || {
            let said = self.say(&["status", "--json"]);
            match serde_json::from_str::<Value>(&said.out) {
                Ok(status) if wanted(&status) => Ok(status),
                _ => Err(format!("{}{}", said.out, said.err)),
            }
        })
    }

    /// The machine id that it was given, whether it runs or not.
    #[track_caller]
    pub fn id(&self) -> MachineId {
        let said = self.say(&["status", "--json"]);
        let status: Option<AgentStatus> = serde_json::from_str(&said.out).ok();
        status.and_then(|status| status.machine_id).unwrap_or_else(|| panic!("no machine id: {said:?}"))
    }

    /// Its endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        self.endpoint.as_ref().expect("the agent runs")
    }

    /// Its engine workers.
    pub fn workers(&mut self) -> Vec<u32> {
        let pid = self.process().pid();
        children(pid, "engine-worker")
    }

    /// Another agent on a copy of this one's state, as a cloned disk makes it.
    #[must_use]
    pub fn cloned_disk(&self) -> Self {
        let clone = Self::new();
        copy_folder(&self.state(), &clone.state());
        clone
    }

    /// Every file under its state directory, with its size.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        collect(&self.state(), &mut files);
        files
    }
}

/// Files below `folder` with their sizes; what vanishes meanwhile is left out.
fn collect(folder: &Path, files: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(found) if found.is_dir() => collect(&entry.path(), files),
            Ok(found) if found.is_file() => files.push((entry.path(), found.len())),
            _ => {}
        }
    }
}

/// Copies a folder with its rights; sockets stay behind.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    fs::set_permissions(to, fs::metadata(from).expect("a folder").permissions()).expect("rights");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (kind, target) = (entry.file_type().expect("its kind"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}
