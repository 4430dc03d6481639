//! Figures of the controller for Prometheus: [`Metrics`] counts, [`serve`] shows.
//!
//! They are shown on an address of their own, read only and without TLS, and only where the configuration names one: the
//! one port of agents and operators asks everybody for a certificate, which scrapers rarely have. No label tells a machine
//! from another, so that the page stays as small with 10,000 of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use muster_proto::{BenchOrderState, Bytes, Timestamp};
use muster_reports::{METRICS_TYPE, MetricsPage};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::blobs;
use crate::rpc::Services;
use crate::store::FleetCounts;

/// What was read of the store is good for so long: scrapers that come more often cost nothing more.
const FRESH: Duration = Duration::from_secs(5);

/// Seconds that planning takes, from one machine to ten thousand with models to size.
const PLAN_SECONDS: [f64; 10] = [0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// What stands for an RPC that was turned away before its handler: its name may be anything.
const UNHEARD: &str = "other";

/// The counts since the start.
#[derive(Debug)]
pub(crate) struct Metrics {
    counted: Registry,
    rpcs: IntCounterVec,
    plans: Histogram,
    read: Mutex<Option<(Instant, Read)>>,
}

/// What a page needs of store and disk.
#[derive(Clone, Debug, Default)]
struct Read {
    fleet: FleetCounts,
    blobs: Bytes,
}

impl Metrics {
    /// Counts from zero.
    pub fn new() -> Self {
        let counted = Registry::new();
        let options = Opts::new("muster_controller_rpcs_total", "Calls by how they were answered, or begun to be.");
        let rpcs = IntCounterVec::new(options, &["rpc", "code"]).expect("a valid name");
        counted.register(Box::new(rpcs.clone())).expect("once");
        let options = HistogramOpts::new("muster_controller_plan_seconds", "How long planning for the fleet takes.");
        let plans = Histogram::with_opts(options.buckets(PLAN_SECONDS.to_vec())).expect("a valid name");
        counted.register(Box::new(plans.clone())).expect("once");
        Self { counted, rpcs, plans, read: Mutex::default() }
    }

    /// Notes how long each plan takes.
    pub fn plans(&self) -> Histogram {
        self.plans.clone()
    }
}

/// Counts each request.
pub(crate) async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let (rpc, code) = label(&path, response.status(), response.headers());
    metrics.rpcs.with_label_values(&[rpc, &code]).inc();
    response
}

/// The name of a call and how it was answered. A name comes from outside: it counts only where a handler of that name
/// answered, and only some codes tell that.
fn label<'a>(path: &'a str, status: StatusCode, headers: &HeaderMap) -> (&'a str, String) {
    if path.starts_with(blobs::ROUTE_PREFIX) {
        return ("files", status.as_u16().to_string());
    }
    let Some(rpc) = path.strip_prefix("/muster.v1.") else { return (UNHEARD, status.as_u16().to_string()) };
    // Absent where the answer has a body: then the status follows that.
    let code = headers.get("grpc-status").map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()));
    let by_the_gate = matches!(
        code,
        Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::Internal
    );
    let rpc = if by_the_gate || status != StatusCode::OK { UNHEARD } else { rpc };
    (rpc, format!("{code:?}"))
}

/// Answers on `listener` until `shutdown`.
pub(crate) async fn serve(services: Services, listener: TcpListener, shutdown: CancellationToken) {
    let Ok(address) = listener.local_addr() else { return };
    let app =
        Router::new().route("/metrics", get(metrics)).with_state(services).layer(from_fn_with_state(address, guard));
    // Cancel-safe: dropping the server closes its connections.
    tokio::select! {
        () = shutdown.cancelled() => {}
        result = axum::serve(listener, app).into_future() => {
            if let Err(error) = result {
                tracing::error!(%error, "figures cannot be served any more");
            }
        }
    }
}

/// On loopback only names of loopback are answered, so that no web page reaches it by a name of its own that points here.
async fn guard(State(address): State<SocketAddr>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if address.ip().is_loopback() && !host.is_some_and(|host| is_own(host, address.port())) {
        let words = format!("the Host header must be 127.0.0.1:{0} or localhost:{0}\n", address.port());
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    next.run(request).await
}

fn is_own(host: &str, port: u16) -> bool {
    let (name, asked) = match host.rsplit_once(':') {
        Some((name, asked)) if !asked.ends_with(']') => (name, asked.parse().ok()),
        _ => (host, Some(80)),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    asked == Some(port) && (loopback || name.eq_ignore_ascii_case("localhost"))
}

async fn metrics(State(services): State<Services>) -> Response {
    let read = match read(&services).await {
        Ok(read) => read,
        Err(error) => {
            tracing::error!(%error, "figures cannot be read");
            return (StatusCode::INTERNAL_SERVER_ERROR, "the controller failed: its log says why\n").into_response();
        }
    };
    let online = services.links.online_ids().len();
    let page = page(&read, online, &services);
    ([(header::CONTENT_TYPE, METRICS_TYPE)], page).into_response()
}

async fn read(services: &Services) -> Result<Read, String> {
    let mut kept = services.metrics.read.lock().await;
    if let Some((at, read)) = kept.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        let _ = at;
        return Ok(read.clone());
    }
    let fleet = services.store.fleet_counts().await.map_err(|error| crate::error_chain(&error))?;
    let blobs = services.blobs.clone();
    let used = spawn_blocking(move || blobs.used()).await.map_err(|error| error.to_string())?;
    let read = Read { fleet, blobs: used.map_err(|error| crate::error_chain(&error))? };
    *kept = Some((Instant::now(), read.clone()));
    Ok(read)
}

fn page(read: &Read, online: usize, services: &Services) -> String {
    let page = MetricsPage::default();
    let now = services.clock.now();
    let number = |count: u64| count as f64;
    let version = [env!("CARGO_PKG_VERSION").to_owned(), muster_engine::BUILD.to_owned()];
    page.each("muster_controller_build_info", "Versions; always 1.", &["version", "engine"], [(version, 1.0)]);
    let started = services.facts.started_at.unix_millis() as f64 / 1000.0;
    page.one("muster_controller_start_timestamp_seconds", "When it was started.", started);
    let fleet = &read.fleet;
    page.each(
        "muster_controller_machines",
        "Machines by enrolment.",
        &["state"],
        fleet.machines.iter().map(|(state, count)| ([state.to_string()], number(*count))),
    );
    page.one("muster_controller_machines_online", "Machines whose stream is up.", online as f64);
    page.each(
        "muster_controller_deployments",
        "Deployments of accepted machines by state.",
        &["state"],
        fleet.deployments.iter().map(|(state, count)| ([state.clone()], number(*count))),
    );
    page.each(
        "muster_controller_bench_orders",
        "Machines by how far the newest order to benchmark them is.",
        &["state"],
        services
            .benches
            .counts()
            .into_iter()
            .map(|(state, count): (BenchOrderState, usize)| ([state.to_string()], count as f64)),
    );
    page.one("muster_controller_models", "Models in the catalog.", number(fleet.models));
    page.one("muster_controller_blob_bytes", "What model files take on disk.", number(read.blobs.get()));
    if let (Some(oldest), Some(middle)) =
        (fleet.inventories.first(), fleet.inventories.get(fleet.inventories.len() / 2))
    {
        let age = |moment: &Timestamp| now.since(*moment).as_secs_f64();
        page.one(
            "muster_controller_inventory_age_max_seconds",
            "Age of the oldest inventory of an accepted machine.",
            age(oldest),
        );
        page.one(
            "muster_controller_inventory_age_median_seconds",
            "Median age of the inventories of accepted machines.",
            age(middle),
        );
    }
    page.render(&services.metrics.counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_handlers_become_labels() {
        let headers = |code: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", code.parse().expect("a number"));
            headers
        };
        let ok = StatusCode::OK;
        assert_eq!(label("/muster.v1.Admin/GetStatus", ok, &HeaderMap::new()), ("Admin/GetStatus", "Ok".to_owned()));
        assert_eq!(
            label("/muster.v1.Admin/GetMachine", ok, &headers("5")),
            ("Admin/GetMachine", "NotFound".to_owned())
        );
        for code in ["7", "9", "12", "13", "16"] {
            assert_eq!(label("/muster.v1.Enrolment/made-up", ok, &headers(code)).0, UNHEARD, "{code}");
        }
        assert_eq!(label("/muster.v1.Admin/x", StatusCode::NOT_FOUND, &HeaderMap::new()).0, UNHEARD);
        assert_eq!(label("/made-up", StatusCode::NOT_FOUND, &HeaderMap::new()), (UNHEARD, "404".to_owned()));
        let file = format!("{}00", blobs::ROUTE_PREFIX);
        assert_eq!(label(&file, StatusCode::PARTIAL_CONTENT, &HeaderMap::new()), ("files", "206".to_owned()));
    }

    #[test]
    fn on_loopback_only_its_own_names_are_answered() {
        for host in ["127.0.0.1:7434", "localhost:7434", "[::1]:7434"] {
            assert!(is_own(host, 7434), "{host}");
        }
        for host in ["evil.example:7434", "127.0.0.1", "127.0.0.1:80", "10.0.0.1:7434", "", "localhost.evil:7434"] {
            assert!(!is_own(host, 7434), "{host}");
        }
    }
}
