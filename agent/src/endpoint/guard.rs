//! [`Guard`]: who may talk to the endpoint.
//!
//! A web page can make a browser on this desk connect to loopback: with its own name resolving to 127.0.0.1 (DNS
//! rebinding), which the Host header shows, or across origins, which the Origin header shows. Both are refused.

use std::net::{IpAddr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use super::errors::ApiError;

/// The check, for one port.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    port: u16,
}

impl Guard {
    /// The guard of the endpoint on this port.
    pub const fn new(port: u16) -> Self {
        Self { port }
    }

    /// Whether a request with this URI and these headers may pass.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn check(self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            (None, None) => uri.authority().map(http::uri::Authority::as_str),
            _ => None,
        };
        if !host.is_some_and(|host| self.is_own(host)) {
            return Err(format!("the Host header must be 127.0.0.1:{0} or localhost:{0}", self.port));
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) if origin.to_str().is_ok_and(is_loopback_origin) => Ok(()),
            _ => Err("requests of web pages from other machines are not answered".into()),
        }
    }

    /// A loopback name or address with the endpoint's own port.
    fn is_own(self, host: &str) -> bool {
        let (name, port) = split_port(host);
        is_loopback_name(name) && port.map_or(self.port == 80, |port| port.parse() == Ok(self.port))
    }
}

fn is_loopback_origin(origin: &str) -> bool {
    let Some(authority) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    let (name, port) = split_port(authority);
    is_loopback_name(name) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // An IPv6 address without a port ends in a bracket.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

fn is_loopback_name(name: &str) -> bool {
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse() == Ok(Ipv6Addr::LOCALHOST),
        None => matches!(name.parse::<IpAddr>(), Ok(IpAddr::V4(address)) if address.is_loopback()),
    }
}

/// Lets a request pass or answers 403.
pub async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Result<Response, ApiError> {
    guard.check(request.uri(), request.headers()).map_err(ApiError::forbidden)?;
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: Option<&str>, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if let Some(value) = value {
                headers.insert(name, value.parse().expect("a header"));
            }
        }
        Guard::new(11435).check(&Uri::from_static("/v1/models"), &headers).is_ok()
    }

    #[test]
    fn only_loopback_names_with_the_own_port_pass() {
        for host in ["127.0.0.1:11435", "localhost:11435", "LOCALHOST:11435", "[::1]:11435", "127.0.0.2:11435"] {
            assert!(check(Some(host), None), "{host}");
        }
        for host in [
            "evil.example:11435",
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost",
            "localhost.evil.example:11435",
            "10.0.0.1:11435",
            "[::2]:11435",
            "[::1]",
            "::1:11435",
            "127.0.0.1.evil.example:11435",
            "127.0.0.1:11435:1",
            "127.0.0.1:",
            "",
            "0.0.0.0:11435",
            "2130706433:11435",
            "localhost:011435x",
        ] {
            assert!(!check(Some(host), None), "{host}");
        }
        assert!(!check(None, None), "a request must name its host");
    }

    #[test]
    fn pages_of_other_machines_do_not_pass() {
        for origin in ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443"] {
            assert!(check(Some("127.0.0.1:11435"), Some(origin)), "{origin}");
        }
        for origin in
            ["https://evil.example", "null", "http://localhost.evil.example", "file://", "http://10.0.0.1:3000", ""]
        {
            assert!(!check(Some("127.0.0.1:11435"), Some(origin)), "{origin}");
        }
    }

    #[test]
    fn two_hosts_or_origins_do_not_pass() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, "127.0.0.1:11435".parse().expect("a header"));
        headers.append(header::HOST, "evil.example".parse().expect("a header"));
        assert!(Guard::new(11435).check(&Uri::from_static("/"), &headers).is_err());
        headers.remove(header::HOST);
        headers.append(header::HOST, "127.0.0.1:11435".parse().expect("a header"));
        headers.append(header::ORIGIN, "http://localhost".parse().expect("a header"));
        headers.append(header::ORIGIN, "https://evil.example".parse().expect("a header"));
        assert!(Guard::new(11435).check(&Uri::from_static("/"), &headers).is_err());
    }

    #[test]
    fn http_2_names_its_host_in_the_uri() {
        let guard = Guard::new(11435);
        assert!(guard.check(&Uri::from_static("http://localhost:11435/health"), &HeaderMap::new()).is_ok());
        assert!(guard.check(&Uri::from_static("http://evil.example:11435/health"), &HeaderMap::new()).is_err());
    }
}
