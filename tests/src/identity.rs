//! [`Identity`]: a client's key and certificate as a program keeps them, used by a test to pose as it.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::{Reply, Request, send_over};

/// The name in every controller's certificate.
pub const CONTROLLER_NAME: &str = "controller.muster";

/// What a client shows, and whom it believes.
pub struct Identity {
    /// The CA that it believes.
    pub ca: CertificateDer<'static>,
    pub(crate) own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
}

impl Identity {
    /// What an agent has in its state directory.
    pub fn of_agent(state: &Path) -> Self {
        let certificate = certificate(&state.join("certificate.pem"));
        let key = PrivateKeyDer::from_pem_file(state.join("key.pem")).expect("the agent's key");
        Self { ca: certificate_authority(state), own: Some((certificate, key)) }
    }

    /// The same client without a certificate.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self { ca: self.ca.clone(), own: None }
    }

    /// The same client believing another CA.
    #[must_use]
    pub fn believing(self, ca: CertificateDer<'static>) -> Self {
        Self { ca, ..self }
    }

    /// The moment, in seconds since 1970, when its certificate ends.
    pub fn expires_at(&self) -> i64 {
        let (own, _) = self.own.as_ref().expect("a client with a certificate");
        let (_, parsed) = x509_parser::parse_x509_certificate(own).expect("a certificate");
        parsed.validity().not_after.timestamp()
    }

    /// A TLS configuration that shows it.
    pub fn tls(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).expect("a CA certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots);
        let mut config = match &self.own {
            Some((own, key)) => {
                builder.with_client_auth_cert(vec![own.clone()], key.clone_key()).expect("a key and its certificate")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Sends one HTTP/1.1 request to a controller over TLS.
    ///
    /// # Errors
    /// When the connection is refused, or no reply comes.
    pub fn send(&self, address: &str, request: &Request) -> io::Result<Reply> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(crate::PATIENCE))?;
        let name = ServerName::try_from(CONTROLLER_NAME).expect("a DNS name");
        let connection = ClientConnection::new(self.tls(&["http/1.1"]), name).map_err(io::Error::other)?;
        send_over(StreamOwned::new(connection, stream), CONTROLLER_NAME, request)
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn certificate_authority(state: &Path) -> CertificateDer<'static> {
    certificate(&state.join("ca.pem"))
}
