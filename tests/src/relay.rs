//! [`Relay`]: a TCP forwarder between an agent and its controller that counts, holds back replies, and can be pointed
//! somewhere else. It sees only TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A running forwarder. Dropping it closes every connection.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<String>,
    open: Mutex<Vec<TcpStream>>,
    connections: AtomicU64,
    /// From the one who connects.
    up: AtomicU64,
    /// To the one who connects.
    down: AtomicU64,
    hold_replies: AtomicBool,
    closed: AtomicBool,
}

/// TLS record type of encrypted data: from a client, the first one means that its handshake is complete.
const APPLICATION_DATA: u8 = 0x17;

impl Relay {
    /// Forwards to `target`, `HOST:PORT`.
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound above");
        let shared = Arc::new(Shared {
            target: Mutex::new(target.to_owned()),
            open: Mutex::new(Vec::new()),
            connections: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            hold_replies: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.closed.load(Ordering::SeqCst) {
                    break;
                }
                let target = accepting.target.lock().expect("no panic under it").clone();
                // A refused target closes the client's connection, as it would see without the relay.
                let Ok(server) = TcpStream::connect(target) else { continue };
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                forward(&accepting, client, server);
            }
        });
        Self { address, shared }
    }

    /// Sends new connections to `target`.
    pub fn point_at(&self, target: &str) {
        target.clone_into(&mut self.shared.target.lock().expect("no panic under it"));
    }

    /// From now on, lets TLS handshakes through and nothing that the server says after them.
    pub fn hold_replies(&self) {
        self.shared.hold_replies.store(true, Ordering::SeqCst);
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes that the ones who connect have sent.
    pub fn up(&self) -> u64 {
        self.shared.up.load(Ordering::SeqCst)
    }

    /// Bytes that the ones who connect were sent.
    pub fn down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.address);
        for stream in self.shared.open.lock().expect("no panic under it").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn forward(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let handshaken = Arc::new(AtomicBool::new(false));
    let copies = || -> io::Result<_> { Ok((client.try_clone()?, server.try_clone()?)) };
    let (Ok(one), Ok(two)) = (copies(), copies()) else { return };
    shared.open.lock().expect("no panic under it").extend([client, server]);
    let (up, told) = (Arc::clone(shared), Arc::clone(&handshaken));
    thread::spawn(move || {
        let (mut client, mut server) = one;
        let mut records = Records::default();
        pump(&mut client, &mut server, |bytes| {
            up.up.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            if records.contain(bytes, APPLICATION_DATA) {
                told.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    let down = Arc::clone(shared);
    thread::spawn(move || {
        let (mut client, mut server) = two;
        pump(&mut server, &mut client, |bytes| {
            down.down.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            !(down.hold_replies.load(Ordering::SeqCst) && handshaken.load(Ordering::SeqCst))
        });
    });
}

/// Copies until one side ends, then tells the other. `pass` sees every piece and says whether it goes on.
fn pump(from: &mut TcpStream, to: &mut TcpStream, mut pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if pass(&buffer[..length]) && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// Finds TLS records in a stream that comes in pieces.
#[derive(Default)]
struct Records {
    head: Vec<u8>,
    left: usize,
}

impl Records {
    fn contain(&mut self, mut bytes: &[u8], kind: u8) -> bool {
        let mut found = false;
        while !bytes.is_empty() {
            let skip = self.left.min(bytes.len());
            self.left -= skip;
            bytes = &bytes[skip..];
            let wanted = (5 - self.head.len()).min(bytes.len());
            self.head.extend(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if let [first, _, _, high, low] = self.head[..] {
                found |= first == kind;
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.head.clear();
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_however_the_stream_is_cut() {
        let stream = [0x16, 3, 1, 0, 2, 0x17, 0x17, 0x14, 3, 3, 0, 1, 1, 0x17, 3, 3, 0, 0];
        for cut in 0..stream.len() {
            let mut records = Records::default();
            let first = records.contain(&stream[..cut], APPLICATION_DATA);
            let second = records.contain(&stream[cut..], APPLICATION_DATA);
            assert_eq!((first, second), (cut == stream.len(), cut != stream.len()), "cut at {cut}");
        }
        assert!(!Records::default().contain(&stream[..13], APPLICATION_DATA));
    }
}
