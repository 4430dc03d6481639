//! [`WorkerCommand`]: how a worker is started.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use muster_proto::Bytes;

use crate::WORKER_ARGUMENT;

/// How to start a worker: a program that calls [`worker_main`](crate::worker_main) when it gets these arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to the scheduling priority, 0 to 19; higher yields more to the owner of the desk.
    pub niceness: i32,
    /// Address space that the worker may take, over which its allocations fail; `None` for no limit.
    pub memory_limit: Option<Bytes>,
    /// A worker that has work and says nothing for so long hangs, and is killed.
    pub silence_limit: Duration,
}

/// One batch of a long prompt on the slowest desk worth having: 2048 tokens at 4 a second.
const SILENCE_LIMIT: Duration = Duration::from_mins(10);

impl WorkerCommand {
    /// This very executable with the argument [`WORKER_ARGUMENT`], at ordinary priority.
    ///
    /// # Errors
    /// The path of the executable cannot be found out.
    pub fn this_executable() -> io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?))
    }

    /// `program` with the argument [`WORKER_ARGUMENT`], at ordinary priority.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: vec![WORKER_ARGUMENT.into()],
            niceness: 0,
            memory_limit: None,
            silence_limit: SILENCE_LIMIT,
        }
    }
}
