//! The controller's own certificate authority.
//!
//! Owns: the CA's key and certificate, made on first start; the server's leaf; the certificates of machines and admins.
//! Machines and admins get client certificates only and the server one with a fixed name, so that no agent can pose as
//! the controller. Of a certificate request only the public key is taken, after its signature was checked.
//!
//! Entry point: [`Ca::open`].

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_engine::host::atomic_file::write_atomic;
use muster_proto::{AdminName, CaFingerprint, MachineId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
    SanType, SerialNumber, string::Ia5String,
};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock::{since_epoch, whole_seconds};
use crate::identity::{PeerCertificate, SERVER_NAME};

/// Key and certificate in one file, so that there is never one without the other.
const FILE: &str = "ca.pem";

/// Nobody replaces the CA of a fleet by routine.
const CA_LIFETIME: Duration = Duration::from_hours(20 * 365 * 24);

/// Renewed at half of it while the controller runs, and at each start.
pub(crate) const SERVER_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// How long an admin's certificate lasts.
pub const ADMIN_LIFETIME: Duration = Duration::from_hours(90 * 24);

/// Certificates begin in the past by what desks' clocks are often behind.
const SLACK: Duration = Duration::from_mins(5);

/// Longest certificate request that is looked at.
const REQUEST_MAX: usize = 8 * 1024;

/// Why the CA cannot be used or did not sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file system refused.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the file system says.
        #[source]
        source: io::Error,
    },
    /// The CA's file is damaged.
    #[error("{} is damaged: restore it from a backup, or enrol every machine again after removing it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Signing failed.
    #[error("cannot issue a certificate")]
    Issue(#[from] rcgen::Error),
    /// The server's own certificate cannot be used.
    #[error("cannot use the server's certificate")]
    Server(#[from] rustls::Error),
}

/// Why a certificate request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not a PKCS #10 request signed by its own key.
    #[error("the certificate request is not valid")]
    Invalid(#[source] rcgen::Error),
    /// Too long to be one.
    #[error("the certificate request is longer than {REQUEST_MAX} bytes")]
    TooLong,
    /// A key of another kind.
    #[error("the certificate request is for another kind of key than ECDSA P-256")]
    Key,
}

/// A public key whose holder proved to have the private one.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    key: rcgen::PublicKey,
}

impl CertificateRequest {
    /// Checks a PKCS #10 request and takes nothing from it but the key.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn parse(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_MAX {
            return Err(RequestError::TooLong);
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(RequestError::Invalid)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 || request.public_key.der_bytes().len() != 65 {
            return Err(RequestError::Key);
        }
        Ok(Self { key: request.public_key })
    }

    /// The key as an uncompressed point.
    pub fn public_key(&self) -> &[u8] {
        self.key.der_bytes()
    }
}

/// A certificate that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// Its serial number.
    pub serial: Vec<u8>,
    /// When it ends.
    pub expires: Timestamp,
}

/// The certificate authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    fingerprint: CaFingerprint,
    public_key: Vec<u8>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn params(common_name: &str, serial: [u8; 16], begins: Timestamp, ends: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(begins);
    params.not_after = epoch + since_epoch(ends);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

/// A random positive serial number.
fn new_serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

impl Ca {
    /// The CA in this directory; made if there is none, which the flag says.
    ///
    /// # Errors
    /// A damaged one is never replaced.
    pub fn open(directory: &Path, now: Timestamp) -> Result<(Self, bool), CaError> {
        let path = directory.join(FILE);
        let io_error = |step| {
            let path = path.clone();
            move |source| CaError::Io { step, path, source }
        };
        let (pem, created) = match fs::read_to_string(&path) {
            Ok(pem) => (pem, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pem = Self::create(now)?;
                write_atomic(&path, pem.as_bytes()).map_err(io_error("write"))?;
                (pem, true)
            }
            Err(source) => return Err(io_error("read")(source)),
        };
        let damaged = |source| CaError::Damaged { path: path.clone(), source };
        Ok((Self::read(&pem).map_err(damaged)?, created))
    }

    fn create(now: Timestamp) -> Result<String, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let serial = new_serial();
        // A name of its own, so that two controllers' certificates are told apart at a glance.
        let name = format!("Muster CA {}", data_encoding::HEXLOWER.encode(&serial[12..]));
        let now = whole_seconds(now);
        let mut params = params(&name, serial, minus(now, SLACK), now.plus(CA_LIFETIME));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
    }

    fn read(pem: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())?;
        let key = KeyPair::try_from(&key)?;
        let public_key = key.der_bytes().to_vec();
        let fingerprint = fingerprint(&certificate);
        {
            let (_, parsed) = X509Certificate::from_der(&certificate)?;
            if *parsed.public_key().subject_public_key.data != public_key[..] {
                return Err("its key and certificate do not belong together".into());
            }
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate, fingerprint, public_key })
    }

    /// Its certificate.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What agents know it by.
    pub const fn fingerprint(&self) -> CaFingerprint {
        self.fingerprint
    }

    /// A new certificate and key for the server, with the CA's certificate behind it, so that a first contact can
    /// compare fingerprints.
    ///
    /// # Errors
    /// Signing failed.
    pub fn server_leaf(&self, now: Timestamp) -> Result<CertifiedKey, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let now = whole_seconds(now);
        let mut params = params(SERVER_NAME, new_serial(), minus(now, SLACK), now.plus(SERVER_LIFETIME));
        params.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from(SERVER_NAME)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = rustls::crypto::ring::sign::any_ecdsa_type(&key)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone(), self.certificate.clone()], key))
    }

    fn issue(
        &self,
        request: &CertificateRequest,
        common_name: &str,
        uri: &str,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Issued, CaError> {
        let now = whole_seconds(now);
        let expires = now.plus(lifetime);
        let serial = new_serial();
        let mut params = params(common_name, serial, minus(now, SLACK), expires);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.key, &self.issuer)?;
        Ok(Issued { der: certificate.der().clone(), serial: serial.to_vec(), expires })
    }

    /// A machine's client certificate.
    ///
    /// # Errors
    /// Signing failed.
    pub fn issue_machine(
        &self,
        request: &CertificateRequest,
        machine: MachineId,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<Issued, CaError> {
        self.issue(request, &machine.to_string(), &format!("muster://machine/{machine}"), lifetime, now)
    }

    /// An admin's client certificate.
    ///
    /// # Errors
    /// Signing failed.
    pub fn issue_admin(
        &self,
        request: &CertificateRequest,
        admin: &AdminName,
        now: Timestamp,
    ) -> Result<Issued, CaError> {
        self.issue(request, admin.as_str(), &format!("muster://admin/{admin}"), ADMIN_LIFETIME, now)
    }

    /// Reads a certificate that this CA signed, whatever its time; `None` for any other.
    pub fn own(&self, der: &[u8]) -> Option<PeerCertificate> {
        if der.len() > REQUEST_MAX {
            return None;
        }
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.public_key);
        key.verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data).ok()?;
        if !rest.is_empty() {
            return None;
        }
        PeerCertificate::read(der)
    }
}

/// SHA-256 of a certificate.
fn fingerprint(certificate: &CertificateDer<'_>) -> CaFingerprint {
    let hash = digest(&SHA256, certificate);
    CaFingerprint::new(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

fn minus(time: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::from_unix_millis(time.unix_millis() - i64::try_from(duration.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from(std::time::SystemTime::now())
    }

    fn request(name: &str) -> Vec<u8> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serialize_request(&key).expect("signed").der().to_vec()
    }

    #[test]
    fn the_same_ca_is_there_after_a_restart() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (first, created) = Ca::open(directory.path(), now()).expect("made");
        let (second, again) = Ca::open(directory.path(), now()).expect("read");
        assert!(created && !again);
        assert_eq!(first.fingerprint(), second.fingerprint());
    }

    #[test]
    fn nothing_of_a_request_but_its_key_is_taken() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (ca, _) = Ca::open(directory.path(), now()).expect("made");
        let request = CertificateRequest::parse(&request(SERVER_NAME)).expect("well signed");
        let id = MachineId::random();
        let issued = ca.issue_machine(&request, id, Duration::from_hours(1), now()).expect("issued");
        let (_, certificate) = X509Certificate::from_der(&issued.der).expect("a certificate");
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().expect("parsed").expect("there");
        assert!(usage.value.client_auth && !usage.value.server_auth);
        assert_eq!(certificate.subject().to_string(), format!("CN={id}"));
        let names = certificate.subject_alternative_name().expect("parsed").expect("there");
        assert_eq!(names.value.general_names.len(), 1);
        assert_eq!(ca.own(&issued.der).map(|own| own.public_key), Some(request.public_key().to_vec()));
    }

    #[test]
    fn a_request_with_a_wrong_signature_is_refused() {
        let mut der = request("desk");
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(matches!(CertificateRequest::parse(&der), Err(RequestError::Invalid(_))));
        assert!(CertificateRequest::parse(b"hello").is_err());
        assert!(matches!(CertificateRequest::parse(&vec![0; 9000]), Err(RequestError::TooLong)));
    }

    #[test]
    fn a_certificate_of_another_ca_is_not_its_own() {
        let [one, other] = [0, 1].map(|_| tempfile::tempdir().expect("a temporary directory"));
        let (one, other) =
            (Ca::open(one.path(), now()).expect("made").0, Ca::open(other.path(), now()).expect("made").0);
        let request = CertificateRequest::parse(&request("desk")).expect("well signed");
        let issued = one.issue_machine(&request, MachineId::random(), Duration::from_hours(1), now()).expect("issued");
        assert!(one.own(&issued.der).is_some());
        assert!(other.own(&issued.der).is_none());
    }
}
