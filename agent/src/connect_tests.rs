//! TLS and proxies against servers in this process.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls;

/// Like a controller's: a CA and a server certificate of the given name and years.
struct Authority {
    ca: CertificateDer<'static>,
    server: Arc<ServerConfig>,
}

fn authority(name: &str, years: std::ops::Range<i32>) -> Authority {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(vec![]).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("signed").der().clone();
    let key = KeyPair::generate().expect("a key");
    let mut leaf = CertificateParams::new(vec![name.into()]).expect("parameters");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, &ca_key)).expect("signed").der().clone();
    let mut server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![leaf, ca_certificate.clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("a configuration");
    server.alpn_protocols = vec![b"h2".to_vec()];
    Authority { ca: ca_certificate, server: Arc::new(server) }
}

/// Says `hello` over TLS to whoever connects.
async fn serve(server: Arc<ServerConfig>) -> ControllerAddress {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(server);
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    address.to_string().parse().expect("an address")
}

fn fingerprint(ca: &CertificateDer<'_>) -> [u8; 32] {
    digest(&SHA256, ca).as_ref().try_into().expect("32 bytes")
}

fn direct(target: ControllerAddress) -> Dialer {
    Dialer { target, proxy: None }
}

async fn greeting(dialer: &Dialer, config: Arc<ClientConfig>) -> Result<String, ConnectError> {
    let mut stream = dialer.tls(config).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("readable");
    Ok(text)
}

#[tokio::test]
async fn the_controller_is_known_by_its_authority_whatever_its_address() {
    let Authority { ca, server } = authority(tls::SERVER_NAME, 2020..2100);
    let dialer = direct(serve(server).await);
    let first = tls::first_contact(fingerprint(&ca)).expect("a configuration");
    assert_eq!(greeting(&dialer, first).await.expect("trusted"), "hello");
    let later = tls::anonymous(&ca, tls::Protocol::Http2).expect("a configuration");
    assert_eq!(greeting(&dialer, later).await.expect("trusted"), "hello");
}

#[tokio::test]
async fn another_authority_and_another_name_are_not_the_controller() {
    let real = authority(tls::SERVER_NAME, 2020..2100);
    let impostor = direct(serve(authority(tls::SERVER_NAME, 2020..2100).server).await);
    let first = || tls::first_contact(fingerprint(&real.ca)).expect("a configuration");
    assert!(matches!(greeting(&impostor, first()).await, Err(ConnectError::NotTheController { .. })));
    let later = tls::anonymous(&real.ca, tls::Protocol::Http2).expect("a configuration");
    assert!(matches!(greeting(&impostor, later).await, Err(ConnectError::NotTheController { .. })));
    let other = authority("machine.muster", 2020..2100);
    let misnamed = direct(serve(other.server).await);
    let first = tls::first_contact(fingerprint(&other.ca)).expect("a configuration");
    assert!(matches!(greeting(&misnamed, first).await, Err(ConnectError::NotTheController { .. })));
}

#[tokio::test]
async fn a_certificate_of_another_time_is_a_wrong_clock() {
    for (years, part) in [(2001..2002, "was valid only until 2002-01-01"), (2090..2091, "valid only from 2090-01-01")] {
        let Authority { ca, server } = authority(tls::SERVER_NAME, years);
        let dialer = direct(serve(server).await);
        let first = tls::first_contact(fingerprint(&ca)).expect("a configuration");
        match greeting(&dialer, first).await {
            Err(ConnectError::Clock(error)) => assert!(error.to_string().contains(part), "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nobody_there_is_told_with_the_address() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let target: ControllerAddress = listener.local_addr().expect("bound").to_string().parse().expect("an address");
    drop(listener);
    let first = tls::first_contact([0; 32]).expect("a configuration");
    let error = greeting(&direct(target.clone()), first).await.expect_err("nobody there");
    assert!(error.to_string().contains(&target.to_string()), "{error}");
}

/// An HTTP CONNECT proxy that notes what it is asked.
async fn proxy(answer: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let mut client = BufReader::new(client);
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                client.read_line(&mut line).await.expect("a request");
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            let target = lines[0].split_whitespace().nth(1).expect("a target").to_owned();
            log.lock().expect("no panic").extend(lines);
            client.write_all(answer.as_bytes()).await.expect("written");
            if answer.contains("200") {
                let mut server = TcpStream::connect(target).await.expect("the target listens");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_proxy_puts_the_connection_through() {
    let Authority { ca, server } = authority(tls::SERVER_NAME, 2020..2100);
    let target = serve(server).await;
    let (proxy, asked) = proxy("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let settings =
        ProxySettings { proxy: Some(format!("http://user:pass@{proxy}")), no_proxy: Some("other.example".into()) };
    let dialer = Dialer::new(target.clone(), &settings);
    let config = tls::anonymous(&ca, tls::Protocol::Http2).expect("a configuration");
    assert_eq!(greeting(&dialer, config).await.expect("through the proxy"), "hello");
    let asked = asked.lock().expect("no panic").join("\n");
    assert!(asked.starts_with(&format!("CONNECT {target} HTTP/1.1")), "{asked}");
    assert!(asked.contains(&format!("Basic {}", BASE64.encode(b"user:pass"))), "{asked}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_without_its_password() {
    let (proxy, _) = proxy("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    let settings = ProxySettings { proxy: Some(format!("http://user:secret@{proxy}")), no_proxy: Some(String::new()) };
    let dialer = Dialer::new("controller.example:1".parse().expect("an address"), &settings);
    let error = dialer.tls(tls::first_contact([0; 32]).expect("a configuration")).await.expect_err("refused");
    let text = crate::error_chain(&error);
    assert!(text.contains("proxy authorization required") && !text.contains("secret"), "{text}");
    assert!(!format!("{dialer:?}").contains("secret"));
}

#[test]
fn hosts_without_proxy_are_reached_directly() {
    let settings = |no_proxy: &str| ProxySettings {
        proxy: Some("http://proxy.example:3128".into()),
        no_proxy: Some(no_proxy.into()),
    };
    let target = || "muster.example.com:7433".parse().expect("an address");
    assert!(Dialer::new(target(), &settings("")).proxy.is_some());
    assert!(Dialer::new(target(), &settings("example.com")).proxy.is_none());
    assert!(Dialer::new(target(), &settings("*")).proxy.is_none());
    let loopback = "127.0.0.1:7433".parse().expect("an address");
    assert!(Dialer::new(loopback, &settings("127.0.0.0/8")).proxy.is_none());
}
