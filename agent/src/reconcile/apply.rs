//! Doing what [`diff`](super::diff()) says.

use tokio_util::sync::CancellationToken;

use super::diff::Action;
use super::{ActiveDownload, Message, Reconciler, RunKey, Runner, RunnerState};
use crate::clock;
use crate::install::{Bandwidth, Download};
use crate::supervisor::Supervisor;

impl Reconciler {
    /// Does one action; says whether it changed anything at once.
    pub(super) fn apply(&mut self, action: Action) -> bool {
        match action {
            Action::Download { digest, size } => {
                let cancel = self.shutdown.child_token();
                self.download = Some(ActiveDownload { digest, cancel: cancel.clone(), verifying: false });
                let download = Download {
                    blobs: self.settings.blobs.clone(),
                    store: self.settings.store.clone(),
                    digest,
                    size,
                    reserve: self.settings.disk_reserve,
                    bandwidth: self.settings.bandwidth.clone(),
                    link_bandwidth: Bandwidth::limited(self.settings.link_bandwidth),
                };
                let reports = self.reports.clone();
                tracing::info!(%digest, bytes = size.get(), "downloading");
                self.tasks.spawn(async move {
                    let progress = |phase| {
                        // A full queue only loses a figure that the next one replaces.
                        let _ = reports.try_send(Message::Progress(digest, phase));
                    };
                    let result = download.run(&cancel, progress).await;
                    let _ = reports.send(Message::Downloaded(digest, result)).await;
                });
                true
            }
            Action::CancelDownload => {
                if let Some(download) = &self.download {
                    download.cancel.cancel();
                }
                false
            }
            Action::Start(key) => {
                self.start(key);
                true
            }
            Action::Stop(key) => {
                if let Some(runner) = self.runners.get_mut(&key) {
                    if matches!(runner.state, RunnerState::Failed { .. }) {
                        self.runners.remove(&key);
                        return true;
                    }
                    runner.stopping = true;
                    runner.cancel.cancel();
                }
                false
            }
            Action::MarkUnwanted(digest) => {
                self.unwanted.insert(digest, clock::now());
                self.store_unwanted();
                true
            }
            Action::MarkWanted(digest) => {
                self.unwanted.remove(&digest);
                self.store_unwanted();
                true
            }
            Action::Remove(digest) => {
                tracing::info!(%digest, "removing a model file");
                self.remove_file(&digest)
            }
        }
    }

    fn start(&mut self, key: RunKey) {
        let cancel = CancellationToken::new();
        let supervisor = Supervisor {
            path: self.settings.store.file(&key.digest),
            key: key.clone(),
            command: self.settings.worker.clone(),
            threads: self.settings.threads,
            quiet: self.settings.quiet.clone(),
            reports: self.reports.clone(),
        };
        self.tasks.spawn(supervisor.run(cancel.clone()));
        self.runners.insert(key, Runner { state: RunnerState::Loading, cancel, serves: Vec::new(), stopping: false });
        let desired = self.desired.borrow().clone();
        if let Some(desired) = desired {
            self.note_names(&desired);
        }
    }
}
