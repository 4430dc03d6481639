//! [`Blobs`]: the controller's files over HTTPS with ranges.
//!
//! One connection for each file, HTTP/1.1, with the machine's certificate. It asks and reads answers; what is done with
//! the bytes is not its matter.

use std::sync::Arc;

use bytes::Bytes as RawBytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use muster_proto::ModelDigest;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::connect::{ConnectError, Dialer};
use crate::identity::Identity;
use crate::tls::Protocol;

/// Where files come from.
#[derive(Clone, Debug)]
pub enum Blobs {
    /// The controller.
    Controller {
        /// The way to it.
        dialer: Dialer,
        /// Who asks; a renewed certificate is taken for the next connection.
        identity: watch::Receiver<Arc<Identity>>,
    },
    /// A plain HTTP server on this machine.
    #[cfg(test)]
    Plain(std::net::SocketAddr),
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The machine's certificate cannot be used.
    #[error("cannot use this machine's certificate")]
    Identity(#[source] rustls::Error),
    /// The request failed.
    #[error("cannot ask for the file")]
    Request(#[source] hyper::Error),
    /// The controller does not give the file to this machine.
    #[error("the controller does not give the file to this machine (HTTP {status})")]
    Refused {
        /// Its answer.
        status: StatusCode,
    },
    /// The file has another size than the assignment says.
    #[error("the controller has {found} bytes under this digest, the assignment says {expected}")]
    OtherSize {
        /// What the controller has.
        found: u64,
        /// What was assigned.
        expected: u64,
    },
    /// The answer makes no sense.
    #[error("the controller answered HTTP {status} with a range that was not asked for")]
    Nonsense {
        /// Its answer.
        status: StatusCode,
    },
    /// The connection broke.
    #[error("the connection broke while the file was coming")]
    Broken(#[source] hyper::Error),
}

/// A file that is coming.
#[derive(Debug)]
pub struct Blob {
    /// The first byte that comes: what was asked for, or 0 from a server that knows no ranges.
    pub start: u64,
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl Blobs {
    /// Asks for the file from byte `from` on; `size` is what the whole file must have.
    ///
    /// # Errors
    /// See [`BlobError`].
    pub async fn get(&self, digest: &ModelDigest, from: u64, size: u64) -> Result<Blob, BlobError> {
        match self {
            Self::Controller { dialer, identity } => {
                let config = identity.borrow().tls(Protocol::Http1).map_err(BlobError::Identity)?;
                let stream = dialer.tls(config).await?;
                ask(stream, &dialer.target().to_string(), digest, from, size).await
            }
            #[cfg(test)]
            Self::Plain(address) => {
                let dialled = tokio::net::TcpStream::connect(address).await;
                let stream = dialled.map_err(|source| ConnectError::Dial {
                    target: address.to_string().parse().unwrap_or_else(|_| unreachable!("an address")),
                    source,
                })?;
                ask(stream, &address.to_string(), digest, from, size).await
            }
        }
    }
}

async fn ask<S>(stream: S, host: &str, digest: &ModelDigest, from: u64, size: u64) -> Result<Blob, BlobError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(BlobError::Request)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // What ends the connection also ends the body, where it is told.
        let _ = connection.await;
    }));
    let mut request = Request::get(Uri::try_from(format!("/v1/blobs/sha256/{}", digest.hex())).expect("a valid path"))
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("muster-agent/", env!("CARGO_PKG_VERSION")));
    if from > 0 {
        request = request.header(header::RANGE, format!("bytes={from}-"));
    }
    let request = request.body(Empty::<RawBytes>::new()).expect("a valid request");
    let response = sender.send_request(request).await.map_err(BlobError::Request)?;
    let status = response.status();
    let text = |name| response.headers().get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let start = match status {
        StatusCode::OK => {
            let length: Option<u64> = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
            if let Some(found) = length.filter(|length| *length != size) {
                return Err(BlobError::OtherSize { found, expected: size });
            }
            0
        }
        StatusCode::PARTIAL_CONTENT => {
            let (start, total) =
                text(header::CONTENT_RANGE).and_then(parse_range).ok_or(BlobError::Nonsense { status })?;
            if total != size {
                return Err(BlobError::OtherSize { found: total, expected: size });
            }
            if start != from {
                return Err(BlobError::Nonsense { status });
            }
            start
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let found = text(header::CONTENT_RANGE)
                .and_then(|range| range.strip_prefix("bytes */"))
                .and_then(|total| total.parse().ok())
                .ok_or(BlobError::Nonsense { status })?;
            return Err(BlobError::OtherSize { found, expected: size });
        }
        status => return Err(BlobError::Refused { status }),
    };
    Ok(Blob { start, body: response.into_body(), _connection: connection })
}

impl Blob {
    /// More of the file; `None` at its end. Cancel-safe.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn chunk(&mut self) -> Result<Option<RawBytes>, BlobError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(BlobError::Broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl BlobError {
    /// Whether the controller said no, so that asking again soon makes no sense.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::OtherSize { .. } | Self::Nonsense { .. })
    }
}

/// `bytes FIRST-LAST/TOTAL` → (first, total).
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last < total).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_make_no_sense_are_none() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, 10)));
        for wrong in ["", "bytes 5-9", "bytes 9-5/10", "bytes 5-10/10", "items 5-9/10", "bytes */10"] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
    }
}
