//! [`Identity`]: who this machine is: its key, its certificate, its controller.
//!
//! The key is made once, before the first request, stored with mode 0600, and never leaves the state directory: only
//! certificate requests and signatures by it do. Entry points: [`MachineKey::load_or_create`], [`Identity::load`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use muster_engine::host::atomic_file::write_atomic;
use muster_proto::{EnrolmentState, MachineId, Timestamp};
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _, SigningKey as _};
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::address::ControllerAddress;
use crate::state::Paths;

/// By how much the controller backdates certificates, so that a clock that is slow by less takes them.
const BACKDATING: Duration = Duration::from_mins(5);

/// Domain separation of the signature that proves the key of an expired certificate.
const PROOF_PREFIX: &[u8] = b"muster renew v1\0";

/// Why the identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The machine never enrolled.
    #[error("this machine is not enrolled: run `muster-agent enrol --controller HOST:PORT --token TOKEN`")]
    NotEnrolled,
    /// It enrolled and waits for an operator.
    #[error(
        "this machine ({machine}) waits for an operator's word: after `muster machines accept`, repeat `muster-agent enrol` with the same token"
    )]
    Pending {
        /// The id that it will have.
        machine: MachineId,
    },
    /// A file cannot be read or written.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key cannot be used.
    #[error("cannot {step}")]
    Key {
        /// What was tried.
        step: &'static str,
        /// What the library says.
        #[source]
        source: rcgen::Error,
    },
}

/// The machine's key pair (ECDSA P-256).
#[derive(Debug)]
pub struct MachineKey {
    pair: KeyPair,
}

impl MachineKey {
    /// The stored key; makes and stores one if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds no key.
    pub fn load_or_create(paths: &Paths) -> Result<Self, IdentityError> {
        let path = paths.key();
        match std::fs::read_to_string(&path) {
            Ok(_) => Self::load(paths),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair =
                    KeyPair::generate().map_err(|source| IdentityError::Key { step: "make a key pair", source })?;
                write(&path, pair.serialize_pem().as_bytes())?;
                Ok(Self { pair })
            }
            Err(source) => Err(IdentityError::Io { step: "read", path, source }),
        }
    }

    fn load(paths: &Paths) -> Result<Self, IdentityError> {
        let path = paths.key();
        let pem = read(&path)?;
        let pair = KeyPair::from_pem(&pem)
            .map_err(|error| IdentityError::Damaged { path, reason: format!("no private key in it: {error}") })?;
        Ok(Self { pair })
    }

    /// A certificate request (PKCS #10, DER). The controller decides on every name in the certificate.
    ///
    /// # Errors
    /// The library does not make one.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let failed = |source| IdentityError::Key { step: "make a certificate request", source };
        let mut parameters = CertificateParams::new(Vec::new()).map_err(failed)?;
        parameters.distinguished_name.push(DnType::CommonName, "muster machine");
        Ok(parameters.serialize_request(&self.pair).map_err(failed)?.der().to_vec())
    }

    /// The proof that whoever asks with an expired certificate has its key: a signature over the controller's nonce and
    /// the new request.
    ///
    /// # Errors
    /// The library does not sign.
    pub fn proof(&self, nonce: &[u8], request: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let mut message = PROOF_PREFIX.to_vec();
        message.extend_from_slice(nonce);
        message.extend_from_slice(digest(&SHA256, request).as_ref());
        self.pair.sign(&message).map_err(|source| IdentityError::Key { step: "sign with the machine's key", source })
    }

    fn to_tls(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }
}

/// A certificate and when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineCertificate {
    der: CertificateDer<'static>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    public_key: Vec<u8>,
}

impl MachineCertificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
        let moment = |seconds: i64| Timestamp::from_unix_millis(seconds.saturating_mul(1000));
        let validity = certificate.validity();
        let (from, until) = (moment(validity.not_before.timestamp()), moment(validity.not_after.timestamp()));
        let issued_at = from.plus(BACKDATING);
        Ok(Self {
            issued_at: if issued_at < until { issued_at } else { from },
            expires_at: until,
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// The certificate itself.
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// When it ends.
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// When half of its life is over and a new one is due.
    pub fn renew_at(&self) -> Timestamp {
        self.issued_at.plus(self.expires_at.since(self.issued_at) / 2)
    }

    /// Whether it is for this key.
    pub fn is_for(&self, key: &MachineKey) -> bool {
        self.public_key == key.pair.der_bytes()
    }
}

/// What the file says; the certificates are beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    machine_id: MachineId,
    controller: ControllerAddress,
    state: EnrolmentState,
}

/// An enrolled machine.
#[derive(Debug)]
pub struct Identity {
    /// Its id.
    pub machine: MachineId,
    /// Where it enrolled.
    pub controller: ControllerAddress,
    /// Its key.
    pub key: MachineKey,
    /// Its certificate.
    pub certificate: MachineCertificate,
    /// Its controller's CA.
    pub ca: CertificateDer<'static>,
}

impl Identity {
    /// The stored identity.
    ///
    /// # Errors
    /// The machine is not enrolled or not accepted yet, or a file is damaged.
    pub fn load(paths: &Paths) -> Result<Self, IdentityError> {
        let record = read_record(paths)?.ok_or(IdentityError::NotEnrolled)?;
        if record.state == EnrolmentState::Pending {
            return Err(IdentityError::Pending { machine: record.machine_id });
        }
        let key = MachineKey::load(paths)?;
        let certificate = read_certificate(&paths.certificate())?;
        let certificate = MachineCertificate::parse(&certificate)
            .map_err(|reason| IdentityError::Damaged { path: paths.certificate(), reason })?;
        let ca = read_certificate(&paths.ca())?;
        Ok(Self { machine: record.machine_id, controller: record.controller, key, certificate, ca })
    }

    /// The machine's id and controller, whether it is accepted or not; `None` before any enrolment.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn glance(paths: &Paths) -> Result<Option<(MachineId, ControllerAddress)>, IdentityError> {
        Ok(read_record(paths)?.map(|record| (record.machine_id, record.controller)))
    }

    /// A TLS configuration that shows this identity.
    ///
    /// # Errors
    /// The TLS library does not take the certificate or the key.
    pub fn tls(&self, protocol: crate::tls::Protocol) -> Result<std::sync::Arc<rustls::ClientConfig>, rustls::Error> {
        crate::tls::with_identity(&self.ca, self.certificate.der(), self.key.to_tls(), protocol)
    }
}

/// Stores that the machine enrolled and waits for an operator.
///
/// # Errors
/// What the file system says.
pub fn store_pending(paths: &Paths, machine: MachineId, controller: &ControllerAddress) -> Result<(), IdentityError> {
    write_record(paths, &Record { machine_id: machine, controller: controller.clone(), state: EnrolmentState::Pending })
}

/// Stores an accepted enrolment: whole after a power loss, or not there.
///
/// # Errors
/// What the file system says.
pub fn store_accepted(
    paths: &Paths,
    machine: MachineId,
    controller: &ControllerAddress,
    certificate: &MachineCertificate,
    ca: &CertificateDer<'_>,
) -> Result<(), IdentityError> {
    write(&paths.ca(), pem("CERTIFICATE", ca).as_bytes())?;
    store_certificate(paths, certificate)?;
    write_record(
        paths,
        &Record { machine_id: machine, controller: controller.clone(), state: EnrolmentState::Accepted },
    )
}

/// Stores a renewed certificate.
///
/// # Errors
/// What the file system says.
pub fn store_certificate(paths: &Paths, certificate: &MachineCertificate) -> Result<(), IdentityError> {
    write(&paths.certificate(), pem("CERTIFICATE", certificate.der()).as_bytes())
}

fn read_record(paths: &Paths) -> Result<Option<Record>, IdentityError> {
    let path = paths.identity();
    match std::fs::read(&path) {
        Ok(content) => serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| IdentityError::Damaged { path, reason: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Io { step: "read", path, source }),
    }
}

fn write_record(paths: &Paths, record: &Record) -> Result<(), IdentityError> {
    let mut json = serde_json::to_vec_pretty(record).expect("plain data serializes");
    json.push(b'\n');
    write(&paths.identity(), &json)
}

fn read(path: &Path) -> Result<String, IdentityError> {
    std::fs::read_to_string(path).map_err(|source| IdentityError::Io { step: "read", path: path.to_owned(), source })
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(read(path)?.as_bytes()).map_err(|error| IdentityError::Damaged {
        path: path.to_owned(),
        reason: format!("no certificate in it: {error}"),
    })
}

fn write(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    write_atomic(path, content).map_err(|source| IdentityError::Io { step: "write", path: path.to_owned(), source })
}

/// RFC 7468's text form.
fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(key: &MachineKey) -> (MachineCertificate, CertificateDer<'static>) {
        let mut parameters = CertificateParams::new(vec!["controller.muster".into()]).expect("parameters");
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 1, 3);
        let der = parameters.self_signed(&key.pair).expect("signed").der().clone();
        (MachineCertificate::parse(&der).expect("parsed"), der)
    }

    #[test]
    fn a_key_is_made_once_and_private() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let paths = Paths::new(directory.path());
        let first = MachineKey::load_or_create(&paths).expect("made");
        let again = MachineKey::load_or_create(&paths).expect("read");
        assert_eq!(first.pair.serialize_der(), again.pair.serialize_der());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(paths.key()).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn an_identity_is_pending_then_whole() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let paths = Paths::new(directory.path());
        assert!(matches!(Identity::load(&paths), Err(IdentityError::NotEnrolled)));
        let machine = MachineId::random();
        let controller: ControllerAddress = "127.0.0.1:1".parse().expect("an address");
        let key = MachineKey::load_or_create(&paths).expect("made");
        store_pending(&paths, machine, &controller).expect("stored");
        assert!(matches!(Identity::load(&paths), Err(IdentityError::Pending { .. })));
        let (certificate, der) = issue(&key);
        assert!(certificate.is_for(&key));
        store_accepted(&paths, machine, &controller, &certificate, &der).expect("stored");
        let identity = Identity::load(&paths).expect("whole");
        assert_eq!((identity.machine, identity.certificate), (machine, certificate));
        assert_eq!(identity.ca, der);
    }

    #[test]
    fn renewal_is_due_at_half_of_the_life_after_the_backdating() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = MachineKey::load_or_create(&Paths::new(directory.path())).expect("made");
        let (certificate, _) = issue(&key);
        let half = certificate.expires_at().since(certificate.renew_at());
        assert_eq!(half, Duration::from_hours(48).saturating_sub(BACKDATING) / 2);
    }
}
