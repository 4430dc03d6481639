//! [`Interceptor`]: a proxy that reads what a controller receives, above TLS.
//!
//! It can do so only because the test owns both sides: it poses as the controller with a certificate of the
//! controller's own CA, and as the agent with the agent's own key.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{CONTROLLER_NAME, Controller, Identity};

/// A running interceptor; dropping it ends it.
pub struct Interceptor {
    /// Where it listens, as an HTTP CONNECT proxy.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
    _runtime: Runtime,
}

struct Between {
    acceptor: TlsAcceptor,
    agent: Identity,
    target: String,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Interceptor {
    /// Sits between `controller` and the agent of this identity.
    pub fn between(controller: &Controller, agent: Identity) -> Self {
        let now = SystemTime::now();
        let hour = Duration::from_hours(1);
        Self::posing(controller, agent, leaf(controller, now - hour, now + hour))
    }

    /// The same with a certificate for the controller's name that is valid at another time: what an agent sees whose own
    /// clock is wrong.
    pub fn of_another_time(controller: &Controller, agent: Identity, from: SystemTime, until: SystemTime) -> Self {
        Self::posing(controller, agent, leaf(controller, from, until))
    }

    /// The same with the certificate of another agent, for whoever would take it for the controller's.
    pub fn as_a_machine(controller: &Controller, agent: Identity, other: &Identity) -> Self {
        let (certificate, key) = other.own.as_ref().expect("an agent that enrolled");
        Self::posing(controller, agent, (vec![certificate.clone(), other.ca.clone()], key.clone_key()))
    }

    fn posing(controller: &Controller, agent: Identity, face: Face) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound above");
        let received = Arc::new(Mutex::new(Vec::new()));
        let between = Arc::new(Between {
            acceptor: TlsAcceptor::from(server(face)),
            agent,
            target: controller.address.clone(),
            received: Arc::clone(&received),
        });
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let between = Arc::clone(&between);
                tokio::spawn(async move { between.connect(client).await });
            }
        });
        Self { address, received, _runtime: runtime }
    }

    /// Everything that the agent said to the controller, above TLS.
    pub fn received(&self) -> Vec<u8> {
        self.received.lock().expect("no panic under it").clone()
    }
}

/// What a server shows: its chain and its key.
type Face = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate for the controller's name by the controller's own CA.
fn leaf(controller: &Controller, from: SystemTime, until: SystemTime) -> Face {
    let path = controller.data().join("ca.pem");
    let authority = CertificateDer::from_pem_file(&path).expect("the CA's certificate");
    let authority_key = PrivateKeyDer::from_pem_file(&path).expect("the CA's key");
    let authority_key = KeyPair::try_from(&authority_key).expect("the CA's key");
    let issuer = Issuer::from_ca_cert_der(&authority, authority_key).expect("the CA");
    let mut parameters = CertificateParams::new(vec![CONTROLLER_NAME.to_owned()]).expect("a DNS name");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (parameters.not_before, parameters.not_after) = (from.into(), until.into());
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.signed_by(&key, &issuer).expect("a certificate").der().clone();
    (vec![certificate, authority], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn server((chain, key): Face) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key and its certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

impl Between {
    /// One tunnel, from its CONNECT to its end. What goes wrong closes it, as a proxy would.
    async fn connect(&self, client: TcpStream) -> Option<()> {
        let mut client = BufReader::new(client);
        let mut line = String::new();
        while client.read_line(&mut line).await.ok()? > 0 && !line.trim().is_empty() {
            line.clear();
        }
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
        // A client speaks first in TLS, but not before this answer, so that the buffer is empty.
        let agent_side = self.acceptor.accept(client.into_inner()).await.ok()?;
        let protocol =
            agent_side.get_ref().1.alpn_protocol().map(|protocol| String::from_utf8_lossy(protocol).into_owned());
        let server = TcpStream::connect(&self.target).await.ok()?;
        let name = ServerName::try_from(CONTROLLER_NAME).expect("a DNS name");
        let protocols: Vec<&str> = protocol.iter().map(String::as_str).collect();
        let controller_side = TlsConnector::from(self.agent.tls(&protocols)).connect(name, server).await.ok()?;
        let (mut from_agent, mut to_agent) = tokio::io::split(agent_side);
        let (mut from_controller, mut to_controller) = tokio::io::split(controller_side);
        let received = Arc::clone(&self.received);
        let up = async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = from_agent.read(&mut buffer).await {
                received.lock().expect("no panic under it").extend(&buffer[..length]);
                if to_controller.write_all(&buffer[..length]).await.is_err() || to_controller.flush().await.is_err() {
                    break;
                }
            }
            let _ = to_controller.shutdown().await;
        };
        let down = async move {
            let _ = tokio::io::copy(&mut from_controller, &mut to_agent).await;
            let _ = to_agent.shutdown().await;
        };
        tokio::join!(up, down);
        Some(())
    }
}
