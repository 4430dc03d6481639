//! [`App`]: the daemon, built from a [`Config`] and run until told to stop.
//!
//! Built means: the state directory is locked, the machine is enrolled, the ledger is read, the endpoint and the control
//! socket listen. Running starts everything at once, so that the desk answers from its ledger whether or not there is a
//! controller.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt as _;
use muster_engine::host::{StateDir, StateDirError};
use muster_proto::{Bytes, DesiredState, Observed, ProbeFailure};
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::Config;
use crate::connect::Dialer;
use crate::control::{self, Control};
use crate::cpu_time::CpuTime;
use crate::endpoint::{Endpoint, EndpointError};
use crate::identity::{Identity, IdentityError};
use crate::install::{Bandwidth, Blobs, Store};
use crate::ledger::Ledger;
use crate::metrics::{Metrics, Sources};
use crate::probe::Looker;
use crate::reconcile::{Reconciler, Settings};
use crate::roots::Roots;
use crate::serving::Serving;
use crate::signs::Signs;
use crate::state::{self, Paths};
use crate::survey::{self, Surveyor};
use crate::typical::Sampler;
use crate::uplink::{LinkStatus, Orders, Uplink, Upward};

/// Requests to the surveyor on their way.
const SURVEY_QUEUE: usize = 4;

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// The machine is not enrolled, or its identity is damaged.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The endpoint cannot listen.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The store cannot be used.
    #[error("cannot use the model store {}", path.display())]
    Store {
        /// Where it should be.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// The control socket cannot listen.
    #[error("cannot open the control socket {}: is the path longer than 100 characters?", path.display())]
    Control {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A part of the daemon ended, which it never should.
    #[error("the agent's {0} stopped unexpectedly")]
    Stopped(&'static str),
}

/// The daemon, ready to run.
#[derive(Debug)]
pub struct App {
    config: Config,
    _state: StateDir,
    identity: Arc<Identity>,
    ledger: Ledger,
    ledger_damage: Option<String>,
    store: Store,
    endpoint: Endpoint,
    control: UnixListener,
}

impl App {
    /// Takes everything that the daemon needs.
    ///
    /// # Errors
    /// See [`AppError`]; each says what to do.
    pub async fn build(config: Config) -> Result<Self, AppError> {
        let state = StateDir::open(config.paths.root(), state::FORMAT)?;
        let identity = Arc::new(Identity::load(&config.paths)?);
        let (ledger, damage) = Ledger::open(&config.paths.ledger());
        let ledger_damage = damage.map(|damage| crate::error_chain(&damage));
        if let Some(damage) = &ledger_damage {
            tracing::error!("{damage}");
        }
        let store =
            Store::open(&config.store).map_err(|source| AppError::Store { path: config.store.clone(), source })?;
        let endpoint = Endpoint::bind(config.endpoint).await?;
        let path = config.paths.control_socket();
        let control = control::bind(&path).map_err(|source| AppError::Control { path, source })?;
        Ok(Self { config, _state: state, identity, ledger, ledger_damage, store, endpoint, control })
    }

    /// Where the desk answers.
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint.address()
    }

    /// Runs until `shutdown`, then stops every engine worker.
    ///
    /// # Errors
    /// A part of the daemon ended by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AppError> {
        let Self { config, _state, identity, ledger, ledger_damage, store, endpoint, control } = self;
        let paths = config.paths.clone();
        let address = config.controller.clone().unwrap_or_else(|| identity.controller.clone());
        let dialer = Dialer::new(address.clone(), &config.proxy);
        let machine = identity.machine;
        let url = endpoint.url();
        let quiet = Arc::new(Mutex::new(()));

        let (identity_sender, identity) = watch::channel(identity);
        let (desired_sender, desired) = watch::channel(ledger.held().map(|held| Arc::clone(&held.state)));
        let (observed_sender, observed) = watch::channel(initially(desired.borrow().as_deref(), &url));
        let (serving_sender, serving) = watch::channel(Arc::new(Serving::default()));
        let (link_sender, link) = watch::channel(LinkStatus::default());
        let (stored_inventory, stored_benchmark) = survey::stored(&paths);
        let (inventory_sender, inventory) = watch::channel(stored_inventory);
        let (benchmark_sender, benchmark) = watch::channel(stored_benchmark);
        let (typical_sender, typical) = watch::channel(None);
        let (newest_sender, newest) = watch::channel(None);
        let (survey, survey_requests) = mpsc::channel(SURVEY_QUEUE);
        let watching = CpuTime::default();
        let roots = Roots::of_this_machine();

        let reconciler = Reconciler::new(
            Settings {
                store,
                blobs: Blobs::Controller { dialer: dialer.clone(), identity },
                worker: config.worker.clone(),
                threads: config.threads,
                disk_reserve: config.disk_reserve,
                removal_grace: config.removal_grace,
                bandwidth: Bandwidth::limited(config.bandwidth_limit),
                link_bandwidth: config.link_bandwidth_limit,
                unwanted: paths.unwanted(),
                endpoint: url.clone(),
                quiet: Arc::clone(&quiet),
            },
            desired,
            observed_sender,
            serving_sender,
        );
        let sampler = Sampler {
            path: paths.memory_use(),
            sys: roots.sys.clone(),
            program: config.worker.program.clone(),
            inventory: inventory.clone(),
            serving: serving.clone(),
            quiet: Arc::clone(&quiet),
            typical: typical_sender,
            newest: newest_sender,
            cost: watching.clone(),
        };
        let metrics = Arc::new(Metrics::new(Sources {
            inventory: inventory.clone(),
            benchmark: benchmark.clone(),
            observed: observed.clone(),
            link: link.clone(),
            memory: newest,
            watching: watching.clone(),
        }));
        let surveyor = Surveyor {
            paths: paths.clone(),
            roots: roots.clone(),
            store: config.store.clone(),
            worker: config.worker.clone(),
            threads: config.threads,
            automatic: config.bench,
            quiet,
            serving: serving.clone(),
            typical,
            inventory: inventory_sender,
            benchmark: benchmark_sender,
            failures: ledger_damage.map(|reason| ProbeFailure { probe: "ledger".into(), reason }).into_iter().collect(),
            waiting: VecDeque::new(),
            attempt_at: None,
            looker: Looker::default(),
        };
        let control_server = Control {
            machine,
            controller: address,
            endpoint: url,
            link,
            observed: observed.clone(),
            serving: serving.clone(),
            survey: survey.clone(),
        };
        let uplink = Uplink {
            paths: paths.clone(),
            dialer,
            identity: identity_sender,
            ledger,
            desired: desired_sender,
            upward: Upward { inventory, benchmark, observed },
            orders: Orders::new(survey.clone()),
            survey: survey.clone(),
            status: link_sender,
        };

        let stop = shutdown.child_token();
        let mut parts = JoinSet::new();
        let named = |name: &'static str| move |()| name;
        parts.spawn(reconciler.run(stop.clone()).map(named("reconciler")));
        parts.spawn(uplink.run(stop.clone()).map(named("uplink")));
        parts.spawn(control_server.run(control, stop.clone()).map(named("control socket")));
        parts.spawn(surveyor.run(survey_requests, stop.clone()).map(named("survey")));
        parts.spawn(sampler.run(stop.clone()).map(named("sampler")));
        parts.spawn(Signs::new(watching).run(survey, stop.clone()).map(named("watcher")));
        let served = endpoint.run(serving, metrics, stop.clone());
        parts.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the endpoint failed");
            }
            "endpoint"
        });

        let mut result = Ok(());
        while let Some(ended) = parts.join_next().await {
            if !stop.is_cancelled() {
                // Nothing ends by itself: stop the rest and let a service manager start anew.
                result = Err(AppError::Stopped(ended.unwrap_or("task")));
                stop.cancel();
            }
        }
        remove_socket(&paths);
        result
    }
}

/// What can be said before the first look.
fn initially(desired: Option<&DesiredState>, endpoint: &str) -> Observed {
    Observed {
        at: clock::now(),
        generation: desired.map_or(0, |state| state.generation),
        deployments: Vec::new(),
        endpoint: Some(endpoint.to_owned()),
        store_used: Bytes::ZERO,
    }
}

fn remove_socket(paths: &Paths) {
    // One that is left over is removed at the next start.
    let _ = std::fs::remove_file(paths.control_socket());
}
