//! A small HTTP/1.1 client over any stream, so that a test can send what no library would: wrong hosts, half a request.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A GET.
    pub fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// A POST with a JSON body.
    pub fn post(path: &str, body: &Value) -> Self {
        Self {
            method: "POST",
            path: path.to_owned(),
            headers: vec![("content-type".into(), "application/json".into())],
            body: body.to_string().into_bytes(),
        }
    }

    /// With another method.
    #[must_use]
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// With one more header; `host` replaces the one that would be sent.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    fn bytes(&self, host: &str) -> Vec<u8> {
        let mut lines = vec![format!("{} {} HTTP/1.1", self.method, self.path), "connection: close".to_owned()];
        if !self.headers.iter().any(|(name, _)| name == "host") {
            lines.push(format!("host: {host}"));
        }
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        if self.method != "GET" {
            lines.push(format!("content-length: {}", self.body.len()));
        }
        [lines.join("\r\n").as_bytes(), b"\r\n\r\n", &self.body].concat()
    }
}

/// A reply whose body is still to be read.
pub struct Reply {
    /// Status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Box<dyn BufRead + Send>,
}

impl Reply {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The whole body.
    ///
    /// # Errors
    /// When the stream ends in the middle of it.
    pub fn bytes(mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.body.read_to_end(&mut body)?;
        Ok(body)
    }

    /// The whole body, which has to be JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let body = self.bytes().expect("a whole body");
        serde_json::from_slice(&body)
            .unwrap_or_else(|error| panic!("no JSON: {error}: {:?}", String::from_utf8_lossy(&body)))
    }

    /// The body as server-sent events.
    pub fn events(self) -> Events {
        Events(self.body)
    }
}

/// The `data` of each server-sent event, as it comes.
pub struct Events(Box<dyn BufRead + Send>);

impl Iterator for Events {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("a whole stream of events") == 0 {
                return None;
            }
            if let Some(data) = line.trim_end().strip_prefix("data:") {
                return Some(data.trim_start().to_owned());
            }
        }
    }
}

/// Sends one request to `address` over plain TCP.
///
/// # Errors
/// When there is no connection or no reply.
pub fn send(address: &str, request: &Request) -> io::Result<Reply> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(crate::PATIENCE))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    send_over(stream, address, request)
}

/// Sends one request over an open stream.
///
/// # Errors
/// When the stream breaks or what comes back is no reply.
pub fn send_over(mut stream: impl Read + Write + Send + 'static, host: &str, request: &Request) -> io::Result<Reply> {
    stream.write_all(&request.bytes(host))?;
    stream.flush()?;
    let mut reader = BufReader::new(stream);
    let mut line = || -> io::Result<String> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection closed before a reply"));
        }
        Ok(line.trim_end().to_owned())
    };
    let first = line()?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP reply: {first:?}")))?;
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    let mut reply = Reply { status, headers, body: Box::new(io::empty()) };
    let length = reply.header("content-length").and_then(|length| length.parse().ok());
    let body: Box<dyn BufRead + Send> = if request.method == "HEAD" || status == 204 {
        Box::new(io::empty())
    } else if reply.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        Box::new(BufReader::new(Chunked { inner: reader, left: 0, done: false }))
    } else if let Some(length) = length {
        Box::new(BufReader::new(Exactly { inner: reader, left: length }))
    } else {
        Box::new(reader)
    };
    reply.body = body;
    Ok(reply)
}

/// A body of a known length: an early end is an error.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} bytes are missing", self.left)));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// A body in chunks.
struct Chunked<R> {
    inner: R,
    left: usize,
    done: bool,
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done {
            return Ok(0);
        }
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the body ends inside a chunk");
        if self.left == 0 {
            let mut size = String::new();
            self.inner.read_line(&mut size)?;
            let size = size.trim_end().split(';').next().unwrap_or_default();
            self.left = usize::from_str_radix(size, 16).map_err(|_| cut())?;
            if self.left == 0 {
                self.done = true;
                return Ok(0);
            }
        }
        let wanted = buffer.len().min(self.left);
        let read = self.inner.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(cut());
        }
        self.left -= read;
        if self.left == 0 {
            let mut end = String::new();
            self.inner.read_line(&mut end)?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that answers one text, whatever it is sent.
    struct Canned(io::Cursor<Vec<u8>>);

    impl Read for Canned {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Canned {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reply(text: &str) -> Reply {
        send_over(Canned(io::Cursor::new(text.as_bytes().to_vec())), "here", &Request::get("/")).expect("a reply")
    }

    #[test]
    fn bodies_of_each_framing_are_read_and_cut_ones_are_errors() {
        assert_eq!(reply("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef").bytes().expect("whole"), b"abc");
        assert!(reply("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").bytes().is_err());
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n";
        assert_eq!(reply(&format!("{chunked}0\r\n\r\n")).bytes().expect("whole"), b"abcde");
        assert!(reply(chunked).bytes().is_err());
        let events: Vec<String> =
            reply("HTTP/1.0 200 OK\r\n\r\n: hello\n\ndata: {}\n\ndata:[DONE]\n\n").events().collect();
        assert_eq!(events, ["{}", "[DONE]"]);
    }
}
