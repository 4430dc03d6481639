//! A controller in this process, and desks and operators that speak to it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use muster_controller::ca::Ca;
use muster_controller::store::Store;
use muster_controller::{App, ServeConfig};
use muster_engine::worker::WorkerCommand;
use muster_proto::wire::admin_client::AdminClient;
use muster_proto::wire::agent_link_client::AgentLinkClient;
use muster_proto::wire::enrolment_client::EnrolmentClient;
use muster_proto::{MachineId, wire};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tower::service_fn;

/// Long enough for a loaded host, short enough to notice that something hangs.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A running controller.
pub struct Running {
    pub address: std::net::SocketAddr,
    pub clock: muster_controller::Clock,
    pub store: Store,
    pub ca: Arc<Ca>,
    pub data: TempDir,
    socket: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<Result<(), muster_controller::RunError>>,
}

impl Running {
    pub async fn start() -> Self {
        let private = fs::Permissions::from_mode(0o700);
        let data = tempfile::Builder::new().permissions(private).tempdir();
        Self::on(data.expect("a temporary directory")).await
    }

    /// Starts on what an earlier one left.
    pub async fn on(data: TempDir) -> Self {
        let worker = WorkerCommand::new(env!("CARGO_BIN_EXE_muster"));
        let mut config = ServeConfig::new(data.path().to_owned(), worker);
        config.listen = "127.0.0.1:0".parse().expect("an address");
        config.blob_reserve = muster_proto::Bytes::ZERO;
        let clock = config.clock.clone();
        let app = App::build(config).await.expect("it starts");
        let stop = CancellationToken::new();
        Self {
            address: app.address(),
            clock,
            store: app.store(),
            ca: app.ca(),
            socket: app.admin_socket().to_owned(),
            data,
            task: tokio::spawn(app.run(stop.clone())),
            stop,
        }
    }

    /// Stops it cleanly and hands its data over.
    pub async fn stop(self) -> TempDir {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("in time").expect("no panic").expect("no failure");
        self.data
    }

    /// The owner of the socket.
    pub async fn local(&self) -> AdminClient<Channel> {
        let socket = self.socket.clone();
        let connector = service_fn(move |_| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let channel = Endpoint::from_static("http://muster").connect_with_connector(connector).await;
        AdminClient::new(channel.expect("the socket"))
    }

    /// A new token.
    pub async fn token(&self, uses: u32, needs_acceptance: bool) -> muster_proto::EnrolmentToken {
        let request = wire::CreateTokenRequest { uses, lifetime_seconds: 3600, needs_acceptance, groups: vec![] };
        let made = self.local().await.create_token(request).await.expect("a token").into_inner();
        made.token.parse().expect("a token")
    }

    /// A desk that is enrolled and accepted.
    pub async fn desk(&self) -> Desk {
        let token = self.token(1, false).await;
        let mut desk = Desk::new();
        desk.enrol(self, &token).await.expect("enrolled");
        desk
    }

    /// An admin, certified.
    pub async fn admin(&self, name: &str) -> Desk {
        let mut admin = Desk::new();
        let request = wire::AddAdminRequest { name: name.to_owned(), certificate_request: admin.request().into() };
        let added = self.local().await.add_admin(request).await.expect("added").into_inner();
        admin.certificate = Some(added.certificate.to_vec());
        admin
    }

    /// Every event's action, in order.
    pub async fn actions(&self) -> Vec<String> {
        self.store.events(0, 1000).await.expect("events").into_iter().map(|event| event.action).collect()
    }
}

/// Somebody with a key, and perhaps a certificate.
pub struct Desk {
    pub key: KeyPair,
    pub id: Option<MachineId>,
    pub certificate: Option<Vec<u8>>,
}

impl Desk {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self { key, id: None, certificate: None }
    }

    pub fn id(&self) -> MachineId {
        self.id.expect("enrolled")
    }

    /// A certificate request by this key.
    pub fn request(&self) -> Vec<u8> {
        CertificateParams::default().serialize_request(&self.key).expect("signed").der().to_vec()
    }

    /// The same, but nobody.
    pub fn without_certificate(&self) -> Self {
        let key = KeyPair::from_pem(&self.key.serialize_pem()).expect("its own key");
        Self { key, id: self.id, certificate: None }
    }

    /// TLS to the controller.
    pub async fn connect(&self, to: &Running, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(to.ca.certificate().clone()).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("known")
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
                let chain = vec![CertificateDer::from(certificate.clone())];
                builder.with_client_auth_cert(chain, key).expect("they belong together")
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(to.address).await?;
        let name = ServerName::try_from("controller.muster").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// A gRPC channel.
    pub async fn channel(&self, to: &Running) -> Result<Channel, Status> {
        let stream = self.connect(to, b"h2").await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut stream = Some(stream);
        let connector = service_fn(move |_| {
            let stream = stream.take().ok_or_else(|| std::io::Error::other("one connection only"));
            async move { stream.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://controller.muster").connect_with_connector(connector).await;
        channel.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Enrols, and keeps what comes back.
    pub async fn enrol(
        &mut self,
        to: &Running,
        token: &muster_proto::EnrolmentToken,
    ) -> Result<wire::EnrolResponse, Status> {
        let request = wire::EnrolRequest {
            protocol: 1,
            agent_version: "0.1.0".to_owned(),
            token_secret: token.secret().to_vec().into(),
            certificate_request: self.request().into(),
            hostname: "desk-1".to_owned(),
        };
        let channel = self.without_certificate().channel(to).await?;
        let answer = EnrolmentClient::new(channel).enrol(request).await?.into_inner();
        self.id = Some(MachineId::try_from(answer.machine_id.as_ref()).expect("16 bytes"));
        self.certificate = Some(answer.certificate.to_vec()).filter(|der| !der.is_empty());
        Ok(answer)
    }

    /// Opens the stream and says hello.
    pub async fn link(&self, to: &Running, hello: wire::Hello) -> Result<Linked, Status> {
        let mut client = AgentLinkClient::new(self.channel(to).await?);
        let (outgoing, messages) = mpsc::channel(16);
        outgoing.send(wire::from_agent::Message::Hello(hello).into()).await.expect("open");
        let incoming = client.link(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Linked { outgoing, incoming, _client: client })
    }

    /// One request of plain HTTP.
    pub async fn http(&self, to: &Running, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, Bytes) {
        let stream = self.connect(to, b"http/1.1").await.expect("TLS");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        connection.abort();
        (parts.status, parts.headers, body)
    }

    /// Calls an RPC with an empty message.
    pub async fn call(&self, to: &Running, path: &str) -> Answer {
        let stream = self.connect(to, b"h2").await.expect("TLS");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let request = Request::post(format!("https://controller.muster{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(&[0; 5])))
            .expect("a request");
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time");
        let (parts, body) = response.expect("an answer").into_parts();
        let collected = tokio::time::timeout(PATIENCE, body.collect()).await.expect("in time").expect("a body");
        let trailers = collected.trailers().cloned().unwrap_or_default();
        connection.abort();
        let find = |name: &str| {
            let value = parts.headers.get(name).or_else(|| trailers.get(name))?;
            Some(value.to_str().expect("ASCII").replace("%20", " "))
        };
        Answer {
            http: parts.status,
            code: find("grpc-status").map(|code| Code::from(code.parse::<i32>().expect("a number"))),
            message: find("grpc-message").unwrap_or_default(),
        }
    }
}

/// What came of a call.
#[derive(Debug)]
pub struct Answer {
    pub http: StatusCode,
    pub code: Option<Code>,
    pub message: String,
}

/// An open stream.
pub struct Linked {
    pub outgoing: mpsc::Sender<wire::FromAgent>,
    pub incoming: Streaming<wire::ToAgent>,
    _client: AgentLinkClient<Channel>,
}

impl Linked {
    pub async fn send(&self, message: wire::from_agent::Message) {
        self.outgoing.send(message.into()).await.expect("open");
    }

    /// The next message, or how the stream ended.
    pub async fn next(&mut self) -> Result<wire::to_agent::Message, Status> {
        let message = tokio::time::timeout(PATIENCE, self.incoming.message()).await.expect("in time")?;
        message.and_then(|message| message.message).ok_or_else(|| Status::ok("ended"))
    }

    /// The desired state that must come next.
    pub async fn desired(&mut self) -> wire::DesiredState {
        match self.next().await.expect("a message") {
            wire::to_agent::Message::DesiredState(state) => state,
            other => panic!("expected a desired state, got {other:?}"),
        }
    }

    /// Reads to the end of the stream.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// A hello of an agent that holds this generation.
pub fn hello(held_generation: u64) -> wire::Hello {
    wire::Hello {
        protocol: 1,
        agent_version: "0.1.0".to_owned(),
        engine_build: muster_engine::BUILD.to_owned(),
        held_generation,
        held_digest: Bytes::new(),
        hostname: "desk-1".to_owned(),
        agent_time: 0,
    }
}

/// An assignment that nothing stands behind.
pub fn assignment(digest: muster_proto::ModelDigest) -> muster_proto::DesiredAssignment {
    let nothing = |name: &str| muster_proto::DeviceMemory {
        name: name.to_owned(),
        model: muster_proto::Bytes::new(1),
        context: muster_proto::Bytes::new(1),
        compute: muster_proto::Bytes::new(1),
    };
    muster_proto::DesiredAssignment {
        id: muster_proto::AssignmentId::random(),
        role: "chat".to_owned(),
        model: "m".to_owned(),
        quantization: "Q8_0".to_owned(),
        digest,
        size: muster_proto::Bytes::new(10),
        settings: muster_proto::EngineSettings::default(),
        prediction: muster_proto::Prediction {
            memory: muster_proto::MemoryNeed { devices: Vec::new(), host: nothing("Host") },
            prefill: None,
            decode: None,
        },
    }
}
