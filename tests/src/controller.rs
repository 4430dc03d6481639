//! [`Controller`]: a real `muster serve` on a data directory of its own, and its command line.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use muster_proto::{AuditEvent, Deployment, DeploymentState, Machine, MachineId, Model, Plan, TokenRecord};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, Said, say};
use crate::{PATIENCE, binaries, wait_for};

/// A controller, running or not. Dropping it kills it and removes its directory.
pub struct Controller {
    // Before the folder that it works in: fields drop in this order.
    process: Option<Process>,
    /// Where agents connect: `127.0.0.1:PORT`.
    pub address: String,
    serve: Vec<String>,
    log_filter: Option<String>,
    home: TempDir,
}

impl Controller {
    /// Starts one on a new directory.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one on a new directory with more arguments for `serve`.
    pub fn start_with(serve: &[&str]) -> Self {
        Self::start_logging(None, serve)
    }

    /// As [`Self::start_with`], with a log filter of its own.
    pub fn start_logging(filter: Option<&str>, serve: &[&str]) -> Self {
        let home = tempfile::Builder::new().prefix("muster-test-").tempdir().expect("a temporary folder");
        let serve = serve.iter().map(|&argument| argument.to_owned()).collect();
        let mut controller =
            Self { process: None, address: "127.0.0.1:0".into(), serve, log_filter: filter.map(str::to_owned), home };
        controller.restart();
        controller
    }

    /// Starts it again on the same directory and port.
    pub fn restart(&mut self) {
        let mut command = self.command(&["serve", "--listen", &self.address]);
        command.args(&self.serve);
        if let Some(filter) = &self.log_filter {
            command.env("MUSTER_LOG", filter);
        }
        let mut process = Process::spawn(command, "controller", &self.log());
        self.address = process.line("listening on ", PATIENCE);
        self.process = Some(process);
    }

    /// As [`Self::restart`] with other arguments for `serve`.
    pub fn restart_with(&mut self, serve: &[&str]) {
        self.serve = serve.iter().map(|&argument| argument.to_owned()).collect();
        self.restart();
    }

    /// Where it serves figures, if it was started to: `127.0.0.1:PORT`.
    pub fn metrics(&mut self) -> String {
        let url = self.process().line("metrics on http://", PATIENCE);
        url.trim_end_matches("/metrics").to_owned()
    }

    /// The running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the controller runs")
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process().kill9();
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process().terminate(PATIENCE)
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Its log, outside of the data directory.
    pub fn log(&self) -> PathBuf {
        self.home.path().join("controller.log")
    }

    /// A folder for the test's own files, removed with the rest.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `muster` with these arguments, on this controller's data directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&binaries().controller);
        quiet_environment(&mut command);
        command.arg("--data").arg(self.data()).args(arguments);
        command
    }

    /// Runs one command to its end.
    #[track_caller]
    pub fn say(&self, arguments: &[&str]) -> Said {
        say(&mut self.command(arguments), PATIENCE)
    }

    /// Runs one command with `--json`, which has to succeed.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let out = self.say(&[arguments, &["--json"]].concat()).ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?} --json: {error}:\n{out}"))
    }

    /// A new enrolment token, made with these arguments.
    #[track_caller]
    pub fn token(&self, arguments: &[&str]) -> String {
        self.say(&[&["token", "create"], arguments].concat()).ok().trim().to_owned()
    }

    /// Every token.
    #[track_caller]
    pub fn tokens(&self) -> Vec<TokenRecord> {
        self.json(&["token", "list"])
    }

    /// Every machine.
    #[track_caller]
    pub fn machines(&self) -> Vec<Machine> {
        self.json(&["machines", "list"])
    }

    /// One machine, whole.
    #[track_caller]
    pub fn machine(&self, id: MachineId) -> Machine {
        self.json(&["machines", "show", &id.to_string()])
    }

    /// What `muster status` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// The decisions for all machines.
    #[track_caller]
    pub fn plan(&self) -> Plan {
        self.json(&["plan", "show"])
    }

    /// The audit log, oldest first.
    #[track_caller]
    pub fn events(&self) -> Vec<AuditEvent> {
        let mut events: Vec<AuditEvent> = self.json(&["events", "--limit", "10000"]);
        events.sort_by_key(|event| event.sequence);
        events
    }

    /// Waits for an event of this action, and returns it.
    #[track_caller]
    pub fn wait_event(&self, action: &str) -> AuditEvent {
        wait_for(&format!("the event {action}"), PATIENCE, || {
            let events = self.events();
            let found = events.iter().rev().find(|event| event.action == action).cloned();
            found.ok_or_else(|| format!("{:?}", events.iter().map(|event| &event.action).collect::<Vec<_>>()))
        })
    }

    /// Imports the bundled model, and makes these quantizations of it.
    #[track_caller]
    pub fn import_bundled(&self, quantize: &str) -> Model {
        let quantize = if quantize.is_empty() { vec![] } else { vec!["--quantize", quantize] };
        self.say(&[vec!["models", "import", "--bundled"], quantize].concat()).ok();
        self.json(&["models", "show", muster_engine::bundled::NAME])
    }

    /// Imports a file under a name.
    #[track_caller]
    pub fn import(&self, file: &Path, name: &str) -> Model {
        let file = file.to_str().expect("a path in UTF-8");
        self.say(&["models", "import", file, "--name", name]).ok();
        self.json(&["models", "show", name])
    }

    /// Wants this model with this context on every machine.
    #[track_caller]
    pub fn want(&self, model: &str, context: u32) {
        let text = format!("reserve = '64MiB'\n\n[[role]]\nname = 'chat'\nmodels = ['{model}']\ncontext = {context}\n");
        let file = self.scratch(&format!("{}.toml", model.replace(['/', ':'], "-")));
        std::fs::write(&file, text).expect("a file of the test");
        self.say(&["policy", "apply", file.to_str().expect("a path in UTF-8")]).ok();
    }

    /// Waits until the machine's only deployment is as `wanted` says, and returns it.
    #[track_caller]
    pub fn wait_deployment(&self, id: MachineId, what: &str, wanted: impl Fn(&Deployment) -> bool) -> Deployment {
        wait_for(&format!("a deployment {what}"), PATIENCE, || {
            let machine = self.machine(id);
            let deployments = machine.observed.as_ref().map(|seen| seen.deployments.clone()).unwrap_or_default();
            match deployments.iter().find(|deployment| wanted(deployment)) {
                Some(deployment) => Ok(deployment.clone()),
                None => Err(format!(
                    "online {}, generation {}, {deployments:?}",
                    machine.online, machine.desired_generation
                )),
            }
        })
    }

    /// Waits until the machine runs `model`.
    #[track_caller]
    pub fn wait_success(&self, id: MachineId, model: &str) -> Deployment {
        self.wait_deployment(id, &format!("of {model} in success"), |deployment| {
            deployment.model == model && deployment.state == DeploymentState::Success
        })
    }

    /// Waits until the machine's stream is up, or down.
    #[track_caller]
    pub fn wait_online(&self, id: MachineId, online: bool, deadline: Duration) -> Machine {
        wait_for(&format!("online = {online} of {id}"), deadline, || {
            let machine = self.machine(id);
            if machine.online == online { Ok(machine) } else { Err(format!("last seen {:?}", machine.last_seen)) }
        })
    }
}

/// Takes out what would make a program behave otherwise on another machine, and makes it log enough to see why a test
/// failed.
pub(crate) fn quiet_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_uppercase();
        if text.starts_with("MUSTER_") || text.ends_with("_PROXY") {
            command.env_remove(&name);
        }
    }
    command.env("MUSTER_LOG", "info,muster_agent=debug,muster_controller=debug,muster_engine=debug");
}
