//! [`Process`]: one child process with its log, its ready lines and its end. [`say`]: one command and its answer.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{try_wait_for, wait_for};

/// Lines of a log that a failure shows.
const TAIL: usize = 40;

/// A running child. Dropping it kills it; in a failing test that also prints the end of its log.
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`. What it writes on standard error is appended to `log`, and so is each line of standard output.
    pub fn spawn(mut command: Command, name: &str, log: &Path) -> Self {
        let mut file = OpenOptions::new().create(true).append(true).open(log).expect("log file");
        // Without its environment, which may hold a password.
        let arguments: Vec<_> = command.get_args().collect();
        writeln!(file, "---- {name}: {} {arguments:?}", command.get_program().display()).expect("log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone().expect("log file"));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = child.stdout.take().expect("piped above");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = writeln!(file, "stdout: {line}");
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { name: name.to_owned(), child, ended: None, lines, log: log.to_owned() }
    }

    /// Waits for a line of standard output that starts with `prefix`, and returns the rest of it.
    pub fn line(&mut self, prefix: &str, deadline: Duration) -> String {
        match self.try_line(prefix, deadline) {
            Some(rest) => rest,
            None => panic!("{} printed no line {prefix:?}…\n{}", self.name, self.log_tail()),
        }
    }

    /// As [`Self::line`], with `None` if the process ends or `deadline` passes before such a line.
    pub fn try_line(&mut self, prefix: &str, deadline: Duration) -> Option<String> {
        let started = Instant::now();
        loop {
            let left = deadline.checked_sub(started.elapsed())?;
            let line = self.lines.recv_timeout(left).ok()?;
            if let Some(rest) = line.strip_prefix(prefix) {
                return Some(rest.to_owned());
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child of ours");
        }
        self.ended
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let name = self.name.clone();
        wait_for(&format!("{name} to end"), deadline, || self.ended().ok_or("it still runs"))
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(deadline)
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("---- end of {}\n{}", self.log.display(), lines[lines.len().saturating_sub(TAIL)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

/// What one command answered.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Standard output of a command that has to succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "the command failed:\n{}{}", self.out, self.err);
        self.out
    }
}

/// Runs one command to its end.
///
/// # Panics
/// When it cannot start, or does not end before `deadline`.
#[track_caller]
pub fn say(command: &mut Command, deadline: Duration) -> Said {
    try_say(command, deadline).unwrap_or_else(|error| panic!("{error}"))
}

/// As [`say`], for a program that goes on.
///
/// # Errors
/// When it cannot start, or does not end before `deadline`: it is killed then.
pub fn try_say(command: &mut Command, deadline: Duration) -> Result<Said, String> {
    fn collect(pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = BufReader::new(pipe).read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let out = collect(child.stdout.take().expect("piped above"));
    let err = collect(child.stderr.take().expect("piped above"));
    let ended = try_wait_for("its end", deadline, || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err("it still runs".to_owned()),
        Err(error) => Err(error.to_string()),
    });
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let said = Said {
        code: ended.as_ref().ok().and_then(ExitStatus::code),
        out: out.join().unwrap_or_default(),
        err: err.join().unwrap_or_default(),
    };
    match ended {
        Ok(_) => Ok(said),
        Err(timeout) => Err(format!("{command:?}: {timeout}; it said:\n{}{}", said.out, said.err)),
    }
}

/// Process ids of the children of `parent` whose command line has `word` in it.
pub fn children(parent: u32, word: &str) -> Vec<u32> {
    let of_parent = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name in parentheses come the state and the parent.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        (fields.next()? != "Z" && fields.next()?.parse() == Ok(parent)).then_some(())
    };
    let named = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    };
    let mut found: Vec<u32> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| of_parent(pid).is_some() && named(pid))
        .collect();
    found.sort_unstable();
    found
}
