//! The desk's endpoint: OpenAI's API on a loopback address, answered by the models that this desk runs.
//!
//! Nothing but loopback may connect, and no web page may reach it by a name that points here ([`guard`]). Prompts and
//! answers pass through and are neither logged nor kept. Entry point: [`Endpoint::bind`].

mod chat;
mod errors;
mod guard;
mod health;
mod metrics;
mod models;
mod request;
mod response;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use guard::Guard;

use crate::metrics::Metrics;
use crate::serving::Serving;

/// A bound endpoint.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
}

/// Why the endpoint cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Another program has the port, or it may not be had.
    #[error("cannot listen on {address}: choose another port with --endpoint")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The address is open to the network.
    #[error("the endpoint {address} is not a loopback address: use 127.0.0.1")]
    NotLoopback {
        /// Where.
        address: SocketAddr,
    },
}

#[derive(Clone, Debug)]
struct EndpointState {
    serving: watch::Receiver<Arc<Serving>>,
    metrics: Arc<Metrics>,
    /// When the endpoint began, for clients that want to know when a model was made.
    started_at: i64,
}

impl Endpoint {
    /// Listens on a loopback address; port 0 takes a free one.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub async fn bind(address: SocketAddr) -> Result<Self, EndpointError> {
        if !address.ip().is_loopback() {
            return Err(EndpointError::NotLoopback { address });
        }
        let failed = |source| EndpointError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients are configured with.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Answers until `shutdown`. Answers that are on their way are cut off: their models are being unloaded.
    ///
    /// # Errors
    /// What the listener says.
    pub async fn run(
        self,
        serving: watch::Receiver<Arc<Serving>>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let app = router(self.address.port(), serving, metrics);
        let served = axum::serve(self.listener, app);
        // Cancel-safe: dropping the server closes its connections.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            result = served.into_future() => result,
        }
    }
}

fn router(port: u16, serving: watch::Receiver<Arc<Serving>>, metrics: Arc<Metrics>) -> Router {
    let state = EndpointState { serving, metrics, started_at: crate::clock::now().unix_millis() / 1000 };
    Router::new()
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/v1/chat/completions", post(chat::complete))
        .fallback(errors::no_such_path)
        .method_not_allowed_fallback(errors::wrong_method)
        .layer(middleware::from_fn_with_state(Guard::new(port), guard::check))
        .with_state(state)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
