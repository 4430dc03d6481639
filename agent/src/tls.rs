//! TLS to the controller: who it must be, and who this machine is.
//!
//! Whatever host is dialled, the controller is known by its own CA and the fixed name [`SERVER_NAME`]. Before enrolment
//! the CA is known by the fingerprint in the token ([`first_contact`]); afterwards by its certificate ([`anonymous`],
//! [`with_identity`]). TLS 1.3 only.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The name in every controller's certificate. Machines never get one with it, so none can pose as a controller.
pub const SERVER_NAME: &str = "controller.muster";

/// [`SERVER_NAME`] for the TLS library.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("a valid DNS name")
}

/// What a connection is for, which decides the application protocol that is agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, for gRPC.
    Http2,
    /// HTTP/1.1, for files.
    Http1,
}

impl Protocol {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn trusting(ca: &CertificateDer<'_>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    Ok(roots)
}

fn finish(mut config: ClientConfig, protocol: Protocol) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![protocol.name().to_vec()];
    // Every connection shows the certificate that is valid then; a resumed session would show an old one.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Trusts the CA; shows no certificate of its own.
///
/// # Errors
/// The CA's certificate cannot be used.
pub fn anonymous(ca: &CertificateDer<'_>, protocol: Protocol) -> Result<Arc<ClientConfig>, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(trusting(ca)?)
        .with_no_client_auth();
    Ok(finish(config, protocol))
}

/// Trusts the CA and shows the machine's certificate.
///
/// # Errors
/// The CA's certificate, the machine's or its key cannot be used.
pub fn with_identity(
    ca: &CertificateDer<'_>,
    certificate: &CertificateDer<'_>,
    key: PrivateKeyDer<'static>,
    protocol: Protocol,
) -> Result<Arc<ClientConfig>, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(trusting(ca)?)
        .with_client_auth_cert(vec![certificate.clone().into_owned()], key)?;
    Ok(finish(config, protocol))
}

/// Trusts whatever presents a CA certificate with this SHA-256 in its chain, and a valid certificate of that CA.
///
/// # Errors
/// The TLS library does not take the configuration.
pub fn first_contact(fingerprint: [u8; 32]) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(FirstContact { fingerprint, provider: provider() });
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(finish(config, Protocol::Http2))
}

#[derive(Debug)]
struct FirstContact {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for FirstContact {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| digest(&SHA256, certificate).as_ref() == self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(trusting(ca)?), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
