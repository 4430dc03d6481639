//! [`Uplink`]: the one long-lived stream to the controller, and coming back when it breaks.
//!
//! Owns the identity, the ledger's only writer, and the wait between attempts: the only retry loop towards the
//! controller. Everything else gets and gives its state through `watch` channels, so that nothing waits for the network.

mod link;
mod orders;

use std::sync::Arc;
use std::time::Instant;

use muster_proto::{Benchmark, DesiredState, Inventory, Observed, Timestamp};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Code;

pub use link::LinkError;
pub use orders::Orders;

use crate::backoff::Backoff;
use crate::clock;
use crate::connect::Dialer;
use crate::identity::Identity;
use crate::ledger::Ledger;
use crate::renew::{self, RenewError};
use crate::state::Paths;
use crate::survey::SurveyRequest;

/// Whether the controller is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinkStatus {
    /// Whether the stream is up.
    pub online: bool,
    /// Since when it is as it is.
    pub since: Option<Timestamp>,
    /// Why it is not up, or why it last was not.
    pub last_error: Option<String>,
    /// When the machine's certificate ends.
    pub certificate_expires_at: Option<Timestamp>,
}

/// What goes up, as it is now.
#[derive(Clone, Debug)]
pub struct Upward {
    /// What the desk is.
    pub inventory: watch::Receiver<Option<Arc<Inventory>>>,
    /// How fast it is.
    pub benchmark: watch::Receiver<Option<Arc<Benchmark>>>,
    /// What it runs.
    pub observed: watch::Receiver<Observed>,
}

/// The owner of the link.
#[derive(Debug)]
pub struct Uplink {
    /// The state directory.
    pub paths: Paths,
    /// The way to the controller.
    pub dialer: Dialer,
    /// Who this machine is; a renewed one is told here.
    pub identity: watch::Sender<Arc<Identity>>,
    /// The desired state on disk.
    pub ledger: Ledger,
    /// Hears of every new desired state.
    pub desired: watch::Sender<Option<Arc<DesiredState>>>,
    /// What goes up.
    pub upward: Upward,
    /// Hears what the controller wants to know.
    pub survey: mpsc::Sender<SurveyRequest>,
    /// The benchmarks that the controller ordered.
    pub orders: Orders,
    /// Hears whether the link is up.
    pub status: watch::Sender<LinkStatus>,
}

impl Uplink {
    /// Keeps the link up until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            // Cancel-safe: the link is dropped, and everything that has to last is on disk before it counts.
            let ended = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                ended = self.attempt(&mut backoff) => ended,
            };
            self.went_down(&ended);
            let wait = if ended.is_final() {
                // Asking again soon changes nothing; an operator may change his mind.
                Backoff::without_hope(rand::random())
            } else {
                backoff.failed(Instant::now(), rand::random())
            };
            tracing::info!(seconds = wait.as_secs(), "trying again later");
            // Cancel-safe: a timer.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One attempt: a valid certificate, a connection, the stream until it ends.
    async fn attempt(&mut self, backoff: &mut Backoff) -> LinkError {
        if self.identity.borrow().certificate.expires_at() <= clock::now()
            && let Err(error) = self.renew_expired().await
        {
            return error.into();
        }
        let error = self.link(backoff).await;
        if !error.says_certificate_expired() {
            return error;
        }
        // The controller takes the certificate for expired, this machine does not: one of the clocks is wrong.
        let identity = Arc::clone(&self.identity.borrow());
        match renew::compare_clocks(&self.dialer, &identity).await {
            Ok(()) => match self.renew_expired().await {
                Ok(()) => error,
                Err(renewing) => renewing.into(),
            },
            Err(clocks) => clocks.into(),
        }
    }

    async fn renew_expired(&mut self) -> Result<(), RenewError> {
        let identity = Arc::clone(&self.identity.borrow());
        let certificate = renew::renew_expired(&self.dialer, &self.paths, &identity).await?;
        tracing::info!(until = %certificate.expires_at(), "renewed the expired certificate");
        self.identity.send_replace(renew::reload(&self.paths)?);
        Ok(())
    }

    fn went_up(&self) {
        let expires_at = self.identity.borrow().certificate.expires_at();
        self.status.send_modify(|status| {
            status.online = true;
            status.since = Some(clock::now());
            status.certificate_expires_at = Some(expires_at);
        });
        tracing::info!(controller = %self.dialer.target(), "online");
    }

    fn went_down(&self, error: &LinkError) {
        let text = crate::error_chain(error);
        tracing::warn!(controller = %self.dialer.target(), error = %text, "offline");
        let expires_at = self.identity.borrow().certificate.expires_at();
        self.status.send_modify(|status| {
            if status.online || status.since.is_none() {
                status.since = Some(clock::now());
            }
            status.online = false;
            status.last_error = Some(text);
            status.certificate_expires_at = Some(expires_at);
        });
    }
}

impl LinkError {
    /// Whether asking again soon makes no sense.
    fn is_final(&self) -> bool {
        let refused = |status: &tonic::Status| matches!(status.code(), Code::PermissionDenied);
        match self {
            Self::Ended(status) | Self::Renew(RenewError::Call(status)) => refused(status),
            Self::Renew(RenewError::NotWanted { .. }) => true,
            _ => false,
        }
    }
}
