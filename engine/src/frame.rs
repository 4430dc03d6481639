//! Frames on the pipes between a program and its worker: four bytes of length, big-endian, then one protobuf message.

use std::io::{self, Read, Write};

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest frame that either side takes: a very long chat with documents in it.
pub const MAX_LENGTH: usize = 64 << 20;

/// The frame of a message.
pub fn encode(message: &impl Message) -> io::Result<Vec<u8>> {
    let length = message.encoded_len();
    if length > MAX_LENGTH {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a frame of {length} bytes is too long")));
    }
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&u32::try_from(length).expect("at most 64 MiB").to_be_bytes());
    message.encode(&mut frame).expect("a Vec grows");
    Ok(frame)
}

fn body_length(header: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(header) as usize;
    if length > MAX_LENGTH {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes is too long")));
    }
    Ok(length)
}

fn decode<M: Message + Default>(body: &[u8]) -> io::Result<M> {
    M::decode(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads one message; `None` where the pipe ends between two.
pub fn read<M: Message + Default>(pipe: &mut impl Read) -> io::Result<Option<M>> {
    let mut header = [0; 4];
    match pipe.read_exact(&mut header[..1]) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    pipe.read_exact(&mut header[1..])?;
    let mut body = vec![0; body_length(header)?];
    pipe.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// Writes one message.
pub fn write(pipe: &mut impl Write, message: &impl Message) -> io::Result<()> {
    pipe.write_all(&encode(message)?)?;
    pipe.flush()
}

/// Reads one message; `None` where the pipe ends between two. Not cancel-safe: half a frame would be lost.
pub async fn read_async<M: Message + Default>(pipe: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<M>> {
    let mut header = [0; 4];
    if pipe.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    pipe.read_exact(&mut header[1..]).await?;
    let mut body = vec![0; body_length(header)?];
    pipe.read_exact(&mut body).await?;
    decode(&body).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn frames_read_back_and_too_long_ones_are_refused() {
        let message = wire::Progress { fraction: 0.5, step: "half".into() };
        let bytes = encode(&message).expect("short");
        assert_eq!(read::<wire::Progress>(&mut bytes.as_slice()).expect("whole"), Some(message));
        assert_eq!(read::<wire::Progress>(&mut [].as_slice()).expect("the end"), None);
        assert!(read::<wire::Progress>(&mut &bytes[..bytes.len() - 1]).is_err());
        assert!(read::<wire::Progress>(&mut [0xff; 16].as_slice()).is_err());
    }
}
