//! The whole controller: [`ServeConfig`] → [`App::build`] → [`App::run`], so that it starts inside a test on port 0.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_engine::host::{StateDir, StateDirError};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::benches::Benches;
use crate::blobs::{self, BlobError, Blobs};
use crate::ca::{Ca, CaError, SERVER_LIFETIME};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::ServeConfig;
use crate::enrol::Enroller;
use crate::links::Links;
use crate::listen::{Server, ServerLeaf, tls};
use crate::metrics::{self, Metrics};
use crate::replan::Replanner;
use crate::rpc::{ControllerFacts, Services};
use crate::store::{Actor, Event, Store, StoreError};

/// Format of the data directory; the database has versions of its own.
const FORMAT: u32 = 1;

/// How often to look whether the server's certificate should be renewed.
const LEAF_CHECK: Duration = Duration::from_mins(1);

/// The socket of whoever owns the data directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// Why the controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] StateDirError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The model files.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The admin socket.
    #[error("cannot open the admin socket {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Why a running controller stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A bug: one of its tasks panicked.
    #[error("a task of the controller failed")]
    Task(#[source] JoinError),
    /// A task that never ends ended.
    #[error("a task of the controller ended by itself")]
    Ended,
}

/// A controller that listens and does not answer yet.
pub struct App {
    data: StateDir,
    address: SocketAddr,
    socket: PathBuf,
    tcp: TcpListener,
    metrics: Option<TcpListener>,
    local: UnixListener,
    acceptor: TlsAcceptor,
    leaf: Arc<ServerLeaf>,
    ca: Arc<Ca>,
    services: Services,
    replanner: Replanner,
    config: ServeConfig,
}

impl App {
    /// Opens the data directory and binds the sockets.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build(config: ServeConfig) -> Result<Self, BuildError> {
        let data = StateDir::open(&config.data, FORMAT)?;
        let clock = config.clock.clone();
        let now = clock.now();
        let store = Store::open(&data.path().join("muster.db"))?;
        let blobs = Blobs::open(data.subdirectory(blobs::FOLDER)?, config.blob_reserve)?;
        blobs.sweep(&store.digests().await?)?;
        let (ca, created) = Ca::open(data.path(), now)?;
        let ca = Arc::new(ca);
        if created {
            let detail = format!("fingerprint {}", ca.fingerprint());
            store.record(Event::new(now, Actor::Controller, "ca.created", "ca", detail)).await?;
        }
        let leaf = Arc::new(ServerLeaf::new(ca.server_leaf(now)?));
        let acceptor = tls(&ca, Arc::clone(&leaf), clock.clone())?;
        let listen_error = |source| BuildError::Listen { address: config.listen, source };
        let tcp = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let address = tcp.local_addr().map_err(listen_error)?;
        let socket = data.path().join(ADMIN_SOCKET);
        let local = bind_private(&socket).map_err(|source| BuildError::Socket { path: socket.clone(), source })?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => {
                let failed = |source| BuildError::Listen { address, source };
                Some(TcpListener::bind(address).await.map_err(failed)?)
            }
            None => None,
        };
        let links = Links::default();
        let metrics = Arc::new(Metrics::new());
        let benches = Benches::open(store.clone(), links.clone(), clock.clone()).await?;
        let (replanner, replan) = Replanner::new(
            store.clone(),
            blobs.clone(),
            links.clone(),
            clock.clone(),
            config.worker.clone(),
            metrics.plans(),
        );
        let enroller =
            Enroller::new(Arc::clone(&ca), store.clone(), links.clone(), clock.clone(), config.certificate_lifetime);
        let catalog = Catalog::new(store.clone(), blobs.clone(), config.worker.clone(), clock.clone(), replan.clone());
        let facts = ControllerFacts {
            started_at: now,
            data_dir: data.path().display().to_string(),
            listen: address.to_string(),
            ca_fingerprint: ca.fingerprint(),
            heartbeat: config.heartbeat,
        };
        let detail = format!("version {} on {address}", env!("CARGO_PKG_VERSION"));
        store.record(Event::new(now, Actor::Controller, "controller.started", "controller", detail)).await?;
        let services = Services {
            store,
            blobs,
            links,
            clock,
            enroller,
            catalog,
            replan,
            benches,
            metrics,
            facts: Arc::new(facts),
            judge: Arc::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        let metrics = metrics_listener;
        Ok(Self { data, address, socket, tcp, metrics, local, acceptor, leaf, ca, services, replanner, config })
    }

    /// Where agents connect, as bound.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where figures are served, as bound.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The admin socket.
    pub fn admin_socket(&self) -> &Path {
        &self.socket
    }

    /// What agents know the CA by.
    pub fn ca_fingerprint(&self) -> muster_proto::CaFingerprint {
        self.ca.fingerprint()
    }

    /// The store, for tests that look behind the wire.
    pub fn store(&self) -> Store {
        self.services.store.clone()
    }

    /// The CA, for tests that make certificates that nobody should have.
    pub fn ca(&self) -> Arc<Ca> {
        Arc::clone(&self.ca)
    }

    /// Answers until cancelled, then ends what is open and closes the store.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let Self { data, socket, tcp, metrics, local, acceptor, leaf, ca, services, replanner, config, .. } = self;
        let stop = services.shutdown.clone();
        let server = Server::new(
            services.router(),
            services.links.clone(),
            config.received_tap,
            config.max_connections,
            services.tasks.clone(),
            stop.clone(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(server.clone().accept_tls(tcp, acceptor));
        tasks.spawn(server.accept_local(local));
        tasks.spawn(replanner.run(stop.clone()));
        tasks.spawn(services.benches.clone().run(stop.clone()));
        if let Some(listener) = metrics {
            tasks.spawn(metrics::serve(services.clone(), listener, stop.clone()));
        }
        tasks.spawn(renew_leaf(ca, leaf, services.clock.clone(), stop.clone()));
        // Cancel-safe: `join_next` loses no task.
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = tasks.join_next() => match ended {
                Some(Err(error)) => Err(RunError::Task(error)),
                _ => Err(RunError::Ended),
            },
        };
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task failed while stopping");
            }
        }
        services.tasks.close();
        services.tasks.wait().await;
        let stopped = Event::new(services.clock.now(), Actor::Controller, "controller.stopped", "controller", "");
        if let Err(error) = services.store.record(stopped).await {
            tracing::error!(error = %crate::error_chain(&error), "cannot record the stop");
        }
        services.store.close().await;
        let _ = fs::remove_file(&socket);
        drop(data);
        result
    }
}

/// Renews the server's certificate at half of its lifetime, as the clock says: timers stand still while a host sleeps.
async fn renew_leaf(ca: Arc<Ca>, leaf: Arc<ServerLeaf>, clock: Clock, shutdown: CancellationToken) {
    let mut issued = clock.now();
    loop {
        // Cancel-safe: nothing is held while waiting.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(LEAF_CHECK) => {}
        }
        let now = clock.now();
        // One from the future, after a clock was set back, is not valid either.
        if now >= issued && now.since(issued) < SERVER_LIFETIME / 2 {
            continue;
        }
        match ca.server_leaf(now) {
            Ok(renewed) => {
                leaf.replace(renewed);
                issued = now;
            }
            Err(error) => tracing::error!(error = %crate::error_chain(&error), "cannot renew the server's certificate"),
        }
    }
}

/// Binds a socket that only its owner may open, in a directory that only its owner may enter. One that an earlier run left
/// is removed: the directory's lock says that nobody listens there.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
