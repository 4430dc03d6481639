//! [`Dialer`]: the way to the controller, directly or through an HTTP CONNECT proxy, up to a TLS connection.
//!
//! Owns dialling and the words for what goes wrong on the way. It does not know what is said on the connection, and
//! never tries twice: whoever asked decides when to ask again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

use crate::address::ControllerAddress;
use crate::clock::ClockError;
use crate::tls::server_name;

/// How long dialling, a proxy's answer and the handshake may take, each.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where proxies are, from the configuration or the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// `http://[user:password@]host:port`; instead of `HTTPS_PROXY`.
    pub proxy: Option<String>,
    /// Hosts to reach directly; instead of `NO_PROXY`.
    pub no_proxy: Option<String>,
}

impl ProxySettings {
    fn matcher(&self) -> Matcher {
        match &self.proxy {
            // Only what is written: `HTTP_PROXY` and `ALL_PROXY` are for others once a proxy is configured.
            Some(proxy) => {
                let no_proxy = self
                    .no_proxy
                    .clone()
                    .or_else(|| ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok()));
                Matcher::builder().https(proxy.as_str()).no(no_proxy.unwrap_or_default()).build()
            }
            None => match &self.no_proxy {
                Some(no_proxy) => {
                    let proxy = ["HTTPS_PROXY", "https_proxy"].iter().find_map(|name| std::env::var(name).ok());
                    Matcher::builder().https(proxy.unwrap_or_default()).no(no_proxy.as_str()).build()
                }
                None => Matcher::from_env(),
            },
        }
    }
}

/// The way to one controller.
#[derive(Clone, Debug)]
pub struct Dialer {
    target: ControllerAddress,
    proxy: Option<Intercept>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers.
    #[error("cannot reach the controller at {target}")]
    Dial {
        /// Where it should be.
        target: ControllerAddress,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The proxy does not put the connection through.
    #[error("the proxy {proxy} gives no connection to {target}")]
    Proxy {
        /// The proxy, without credentials.
        proxy: String,
        /// Where the connection should go.
        target: ControllerAddress,
        /// What it says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A proxy that is reached over TLS.
    #[error("the proxy {proxy} is not supported: only http:// proxies are")]
    ProxyScheme {
        /// The proxy, without credentials.
        proxy: String,
    },
    /// It took too long.
    #[error("the controller at {target} gave no answer within {} s", PATIENCE.as_secs())]
    TimedOut {
        /// Where it should be.
        target: ControllerAddress,
    },
    /// The clock is wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// Somebody else answers.
    #[error("{target} is not the controller that this machine trusts: its certificate is of another authority")]
    NotTheController {
        /// Who answered.
        target: ControllerAddress,
    },
    /// TLS failed otherwise.
    #[error("cannot agree on a secure connection with {target}")]
    Tls {
        /// With whom.
        target: ControllerAddress,
        /// What the TLS library says.
        #[source]
        source: io::Error,
    },
    /// HTTP failed.
    #[error("cannot start HTTP with {target}")]
    Http {
        /// With whom.
        target: ControllerAddress,
        /// What the HTTP library says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ConnectError {
    /// What TLS says, if it is that.
    pub fn tls(&self) -> Option<&rustls::Error> {
        match self {
            Self::Tls { source, .. } => tls_error(source),
            _ => None,
        }
    }
}

/// The TLS library's error inside an I/O error.
pub fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

impl Dialer {
    /// The way to `target` with the proxies of `settings`.
    pub fn new(target: ControllerAddress, settings: &ProxySettings) -> Self {
        let proxy = format!("https://{target}").parse::<Uri>().ok().and_then(|uri| settings.matcher().intercept(&uri));
        Self { target, proxy }
    }

    /// Where it leads.
    pub const fn target(&self) -> &ControllerAddress {
        &self.target
    }

    /// Dials and shakes hands.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn tls(&self, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, ConnectError> {
        let timed_out = || ConnectError::TimedOut { target: self.target.clone() };
        let tcp = tokio::time::timeout(PATIENCE, self.tcp()).await.map_err(|_| timed_out())??;
        // Heartbeats are small and must not wait for each other; an error here only costs latency.
        let _ = tcp.set_nodelay(true);
        let handshake = TlsConnector::from(config).connect(server_name(), tcp);
        let stream = tokio::time::timeout(PATIENCE, handshake).await.map_err(|_| timed_out())?;
        stream.map_err(|source| match tls_error(&source) {
            Some(error) => match ClockError::in_handshake(error) {
                Some(clock) => clock.into(),
                None if matches!(error, rustls::Error::InvalidCertificate(_)) => {
                    ConnectError::NotTheController { target: self.target.clone() }
                }
                None => ConnectError::Tls { target: self.target.clone(), source },
            },
            None => ConnectError::Tls { target: self.target.clone(), source },
        })
    }

    /// A gRPC channel over one connection. It does not reconnect by itself: a lost connection ends every call on it.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn channel(&self, config: Arc<ClientConfig>) -> Result<Channel, ConnectError> {
        let stream = self.tls(config).await?;
        let mut connection = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            let connection = connection.take();
            async move { connection.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        // TLS is done already, so that the scheme stays http here; the authority is the name that was verified.
        Endpoint::from_static("http://controller.muster")
            .connect_with_connector(connector)
            .await
            .map_err(|error| ConnectError::Http { target: self.target.clone(), source: error.into() })
    }

    async fn tcp(&self) -> Result<TcpStream, ConnectError> {
        let Some(proxy) = &self.proxy else {
            return TcpStream::connect((self.target.host(), self.target.port()))
                .await
                .map_err(|source| ConnectError::Dial { target: self.target.clone(), source });
        };
        let address = proxy.uri();
        let shown = format!("{}://{}", address.scheme_str().unwrap_or("http"), address.host().unwrap_or_default());
        if address.scheme_str() != Some("http") {
            return Err(ConnectError::ProxyScheme { proxy: shown });
        }
        let mut tunnel = Tunnel::new(address.clone(), HttpConnector::new());
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Proxy {
            proxy: shown.clone(),
            target: self.target.clone(),
            source,
        };
        let target: Uri =
            format!("https://{}", self.target).parse().map_err(|error: http::uri::InvalidUri| failed(error.into()))?;
        std::future::poll_fn(|context| tunnel.poll_ready(context)).await.map_err(|error| failed(error.into()))?;
        let stream = tunnel.call(target).await.map_err(|error| failed(error.into()))?;
        Ok(stream.into_inner())
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
