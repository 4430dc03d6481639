//! [`ConnectProxy`]: an HTTP proxy that knows only CONNECT, and remembers who asked for what.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A running proxy; it ends with the test's process.
pub struct ConnectProxy {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Every tunnel goes to `target`, whatever was asked for: a name that only the proxy's side can resolve.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound above");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (target, noted) = (target.to_owned(), Arc::clone(&asked));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (target, noted) = (target.clone(), Arc::clone(&noted));
                thread::spawn(move || tunnel(client, &target, &noted));
            }
        });
        Self { address, asked }
    }

    /// The first line of every request so far, with its `Proxy-Authorization` if it had one.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic under it").clone()
    }
}

/// Reads the request's head, answers it and copies both ways.
fn tunnel(client: TcpStream, target: &str, asked: &Mutex<Vec<String>>) {
    let Ok(reading) = client.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    let mut head: Vec<String> = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim_end().is_empty() {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let first = head.first().cloned().unwrap_or_default();
    let login = head.iter().find(|line| line.to_ascii_lowercase().starts_with("proxy-authorization:"));
    asked
        .lock()
        .expect("no panic under it")
        .push([Some(&first), login].into_iter().flatten().cloned().collect::<Vec<_>>().join(" | "));
    let mut client = client;
    let Some(mut server) = first.starts_with("CONNECT ").then(|| TcpStream::connect(target).ok()).flatten() else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
        return;
    };
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").is_err() {
        return;
    }
    let (Ok(mut back_from), Ok(mut back_to)) = (server.try_clone(), client.try_clone()) else { return };
    thread::spawn(move || {
        let _ = std::io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut reader, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Both);
}
