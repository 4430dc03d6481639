//! [`Outbox`]: the pipe that was standard output, for frames alone.

use std::fs::File;
use std::io;
use std::sync::Mutex;

use crate::frame;
use crate::wire::{FromWorker, Progress, from_worker::Reply};

pub struct Outbox {
    pipe: Mutex<File>,
}

impl Outbox {
    /// Takes standard output for frames; what libraries print there goes to standard error from now on.
    #[cfg(unix)]
    pub fn take_stdout() -> io::Result<Self> {
        // 3: above the standard ones.
        let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(Self { pipe: Mutex::new(pipe.into()) })
    }

    /// Takes a handle of standard output for frames.
    #[cfg(windows)]
    pub fn take_stdout() -> io::Result<Self> {
        use std::os::windows::io::AsHandle as _;
        let pipe = io::stdout().as_handle().try_clone_to_owned()?;
        Ok(Self { pipe: Mutex::new(pipe.into()) })
    }

    pub fn send(&self, message: &FromWorker) -> io::Result<()> {
        let mut pipe = self.pipe.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        frame::write(&mut *pipe, message)
    }

    pub fn reply(&self, id: u64, reply: Reply) -> io::Result<()> {
        self.send(&FromWorker { id, reply: Some(reply) })
    }

    /// Tells progress; false where nobody listens any more.
    pub fn progress(&self, id: u64, fraction: f32, step: &str) -> bool {
        self.reply(id, Reply::Progress(Progress { fraction, step: step.to_owned() })).is_ok()
    }
}
