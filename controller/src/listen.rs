//! Accepting connections: TLS for agents and remote operators, a Unix socket for the owner of the data directory.
//!
//! Owns: handshakes and their limits, who is at the other end of a connection, and ending connections when their machine is
//! revoked or the controller stops. It does not know what is served.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::ca::{Ca, CaError};
use crate::clock::Clock;
use crate::crowd::{Crowd, CrowdLimits, Place};
use crate::identity::{Identity, PeerCertificate};
use crate::links::{Links, Session};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Somebody without an identity has nothing to do that takes longer.
const UNKNOWN_LIFETIME: Duration = Duration::from_mins(1);

/// Handshakes at the same time. Whoever has a certificate needs no more than this, so that the others keep nobody out.
const HANDSHAKES: CrowdLimits = CrowdLimits { all: 512, source: 128 };

/// Connections without an identity at the same time, after their handshakes.
const UNKNOWN: CrowdLimits = CrowdLimits { all: 512, source: 128 };

/// When the system asks whether a silent peer is there, and how often before the connection counts as broken.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(5);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// How long what was sent may stay unconfirmed.
const UNCONFIRMED: Duration = Duration::from_mins(2);

/// Requests at the same time on one connection.
const STREAMS: u32 = 64;

/// How much a peer may send ahead on one stream, and on all of its connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// What a revoked machine's connection has to say goodbye.
const CUT_OFF_GRACE: Duration = Duration::from_millis(500);

/// What connections have to end when the controller stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// How long to wait when the system gives no more connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Gets a copy of every byte that is received above TLS.
#[derive(Clone)]
pub struct ReceivedTap(Arc<Take>);

type Take = dyn Fn(&[u8]) + Send + Sync;

impl ReceivedTap {
    /// A tap that calls this.
    pub fn new(take: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

impl fmt::Debug for ReceivedTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceivedTap(…)")
    }
}

/// The server's certificate, which is replaced while the controller runs.
#[derive(Debug)]
pub(crate) struct ServerLeaf(RwLock<Arc<CertifiedKey>>);

impl ServerLeaf {
    pub fn new(leaf: CertifiedKey) -> Self {
        Self(RwLock::new(Arc::new(leaf)))
    }

    pub fn replace(&self, leaf: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(leaf);
    }
}

impl ResolvesServerCert for ServerLeaf {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The server's side of TLS 1.3: client certificates of this CA are verified, and none is needed to say hello.
pub(crate) fn tls(ca: &Ca, leaf: Arc<ServerLeaf>, clock: Clock) -> Result<TlsAcceptor, CaError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_details(provider, Arc::new(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(leaf);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would not look at the certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What all connections share; clones share it.
#[derive(Clone)]
pub(crate) struct Server {
    pub router: Router,
    pub links: Links,
    pub tap: Option<ReceivedTap>,
    pub connections: Arc<Semaphore>,
    pub handshakes: Crowd,
    pub unknown: Crowd,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

impl Server {
    pub fn new(
        router: Router,
        links: Links,
        tap: Option<ReceivedTap>,
        max_connections: usize,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            router,
            links,
            tap,
            connections: Arc::new(Semaphore::new(max_connections)),
            handshakes: Crowd::new(HANDSHAKES),
            unknown: Crowd::new(UNKNOWN),
            tasks,
            shutdown,
        }
    }

    /// Accepts agents and remote operators until cancelled.
    pub async fn accept_tls(self, listener: TcpListener, acceptor: TlsAcceptor) {
        loop {
            let permit = self.permit(&self.connections).await;
            let Some(permit) = permit else { return };
            // Cancel-safe: `accept` loses no connection that was not returned.
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Over the cap, the newest is turned away: those that are there may be about to get an identity.
                    let Some(handshake) = self.handshakes.enter(peer.ip()) else {
                        tracing::warn!(%peer, "too many handshakes at the same time");
                        continue;
                    };
                    let server = self.clone();
                    let acceptor = acceptor.clone();
                    self.tasks.spawn(async move {
                        server.serve_tls(stream, peer, &acceptor, handshake).await;
                        drop(permit);
                    });
                }
                Err(error) => self.pause(&error).await,
            }
        }
    }

    /// Accepts the owner of the data directory until cancelled.
    pub async fn accept_local(self, listener: UnixListener) {
        loop {
            // Cancel-safe: `accept` loses no connection that was not returned.
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if is_owner(&stream) => {
                    let server = self.clone();
                    self.tasks.spawn(async move {
                        server.serve(stream, Identity::Local, Session::default()).await;
                    });
                }
                Ok(_) => tracing::warn!("another user tried the admin socket"),
                Err(error) => self.pause(&error).await,
            }
        }
    }

    async fn permit(&self, semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            () = self.shutdown.cancelled() => None,
            permit = Arc::clone(semaphore).acquire_owned() => permit.ok(),
        }
    }

    async fn pause(&self, error: &io::Error) {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = sleep(ACCEPT_PAUSE) => {}
        }
    }

    async fn serve_tls(&self, stream: TcpStream, peer: SocketAddr, acceptor: &TlsAcceptor, place: Place) {
        if let Err(error) = prepare(&stream) {
            return tracing::debug!(%peer, %error, "a connection ended before it began");
        }
        let handshake = tokio::select! {
            () = self.shutdown.cancelled() => return,
            handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => handshake,
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
            Err(_) => return tracing::debug!("a handshake took too long"),
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = match leaf.map(|leaf| PeerCertificate::read(leaf)) {
            None => Identity::Unknown,
            Some(Some(certificate)) => Identity::Certified(Arc::new(certificate)),
            Some(None) => return tracing::warn!("a certificate of this CA names neither machine nor admin"),
        };
        drop(place);
        let stream = Tapped { stream, tap: self.tap.clone() };
        let Identity::Certified(certificate) = &identity else {
            let Some(_place) = self.unknown.enter(peer.ip()) else {
                return tracing::warn!(%peer, "too many connections without an identity");
            };
            let _ = timeout(UNKNOWN_LIFETIME, self.serve(stream, identity, Session::default())).await;
            return;
        };
        let session = self.links.session(&certificate.subject);
        let Ok(_permit) = Arc::clone(&session.limits.connections).try_acquire_owned() else {
            return tracing::warn!(%peer, subject = ?certificate.subject, "too many connections of one identity");
        };
        self.serve(stream, identity, session).await;
    }

    /// Serves one connection until it ends, its machine is revoked, or the controller stops.
    async fn serve<S>(&self, stream: S, identity: Identity, session: Session)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT).max_headers(64);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(CONNECTION_WINDOW as usize)
            .max_header_list_size(16 * 1024);
        let router = self.router.clone();
        let requests = session.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(identity.clone());
            request.extensions_mut().insert(requests.clone());
            router.clone().oneshot(request.map(Body::new))
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // Cancel-safe: the connection is polled in place and never dropped by the other arms.
        let grace = tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            () = session.ended.cancelled() => CUT_OFF_GRACE,
            () = self.shutdown.cancelled() => SHUTDOWN_GRACE,
        };
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = timeout(grace, connection).await {
            log_end(ended);
        }
    }
}

/// Small messages must not wait for each other, and a peer that is gone without a word must not be waited for.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, u32::try_from(UNCONFIRMED.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error = %crate::error_chain(error.as_ref()), "a connection ended");
    }
}

/// Whether the peer is this process' own user, or root.
fn is_owner(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// A stream that copies what is read from it.
struct Tapped<S> {
    stream: S,
    tap: Option<ReceivedTap>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(tap) = &self.tap {
            let received = buffer.filled().get(before..).unwrap_or_default();
            if !received.is_empty() {
                (tap.0)(received);
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
