//! Reaching a controller: the Unix socket of this host, or TLS with an admin's certificate.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::args::Global;
use super::{Client, Failure};
use crate::app::ADMIN_SOCKET;
use crate::identity::SERVER_NAME;

/// How long reaching a controller may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Longest answer: a large fleet's machines.
const ANSWER_MAX: usize = 512 * 1024 * 1024;

fn client(channel: Channel) -> Client {
    Client::new(channel).max_decoding_message_size(ANSWER_MAX)
}

fn endpoint() -> Endpoint {
    // The name is for the protocol only; the connector knows where to go.
    Endpoint::from_static("http://controller.muster")
        .connect_timeout(TIMEOUT)
        .initial_connection_window_size(4 << 20)
        .initial_stream_window_size(4 << 20)
}

/// A client for whichever controller the flags name.
pub(super) async fn connect(global: &Global) -> Result<Client, Failure> {
    match (&global.controller, &global.identity) {
        (Some(address), Some(identity)) => remote(address, identity).await,
        _ => local(&super::data(global)?.join(ADMIN_SOCKET)).await,
    }
}

async fn local(socket: &Path) -> Result<Client, Failure> {
    let explain = |error: &io::Error| {
        let path = socket.display();
        Failure::new(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
                "no controller runs on {path}: start it with muster serve, or name its data directory with --data DIR"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("{path} belongs to another user: run this as the user who runs muster serve")
            }
            _ => format!("cannot open {path}: {error}"),
        })
    };
    // Tried by itself first, for the reason why it failed.
    let first = UnixStream::connect(socket).await.map_err(|error| explain(&error))?;
    let socket = socket.to_owned();
    let mut first = Some(first);
    let connector = service_fn(move |_| {
        let ready = first.take();
        let socket = socket.clone();
        async move {
            let stream = match ready {
                Some(stream) => stream,
                None => UnixStream::connect(socket).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let channel = endpoint().connect_with_connector(connector).await;
    Ok(client(channel.map_err(|error| Failure::of(&error))?))
}

fn read_identity(directory: &Path) -> Result<rustls::ClientConfig, Failure> {
    let damaged = |name: &str, error: &dyn std::fmt::Display| {
        Failure::new(format!(
            "cannot use {}: {error}; make an identity with muster admin add NAME",
            directory.join(name).display()
        ))
    };
    let certificates = |name: &str| {
        let found: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_file_iter(directory.join(name)).and_then(Iterator::collect);
        found.map_err(|error| damaged(name, &error))
    };
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).map_err(|error| damaged("key.pem", &error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca.pem")? {
        roots.add(certificate).map_err(|error| damaged("ca.pem", &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Failure::of(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates("cert.pem")?, key)
        .map_err(|error| damaged("cert.pem", &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn remote(address: &str, identity: &Path) -> Result<Client, Failure> {
    let connector = TlsConnector::from(Arc::new(read_identity(identity)?));
    let dial = {
        let address = address.to_owned();
        move || {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
                connector.connect(name, stream).await
            }
        }
    };
    // Tried by itself first, for the reason why it failed.
    let first = tokio::time::timeout(TIMEOUT, dial()).await;
    let first = first.map_err(|_| Failure::new(format!("{address} does not answer: is the controller there?")))?;
    let first = first.map_err(|error| Failure::new(format!("cannot reach the controller at {address}: {error}")))?;
    let mut first = Some(first);
    let connector = service_fn(move |_| {
        let ready = first.take();
        let dial = dial.clone();
        async move {
            let stream = match ready {
                Some(stream) => stream,
                None => dial().await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let channel = endpoint().connect_with_connector(connector).await;
    Ok(client(channel.map_err(|error| Failure::of(&error))?))
}
