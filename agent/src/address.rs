//! [`ControllerAddress`]: where a controller listens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, de};

/// Where controllers listen unless told otherwise.
const DEFAULT_PORT: u16 = 7433;

/// A host name or IP address and a port; `:7433` where none is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ControllerAddress {
    host: String,
    port: u16,
}

/// Why a text is no controller's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a controller's address: write for example muster.example.com:7433")]
pub struct AddressError;

impl ControllerAddress {
    /// The name or address to dial, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ControllerAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(AddressError)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError)?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(AddressError)?) })
            }
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(known) {
            return Err(AddressError);
        }
        let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|_| AddressError))?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for ControllerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for ControllerAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ControllerAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_ports_read_back() {
        for (text, printed) in [
            ("muster.example.com", "muster.example.com:7433"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:99", "[::1]:99"),
            ("[fe80::1]", "[fe80::1]:7433"),
        ] {
            assert_eq!(text.parse::<ControllerAddress>().map(|address| address.to_string()), Ok(printed.into()));
        }
        for wrong in ["", ":1", "host:port", "host:99999", "::1", "[::1", "[::1]99", "a b", "https://host", "host/x"] {
            assert_eq!(wrong.parse::<ControllerAddress>(), Err(AddressError), "{wrong}");
        }
    }
}
