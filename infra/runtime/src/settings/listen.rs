//! The address that a service listens on.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host, by its name or IP address, and a port. A name is looked up when the service starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// The longest host, in bytes: that of a name in the DNS.
    const MAX_HOST_BYTES: usize = 253;

    /// The address in a text such as `127.0.0.1:8080`, `localhost:8080` or `[::1]:8080`; none for any
    /// other text.
    pub fn new(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let in_brackets = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match in_brackets {
            Some(address) => address.parse::<Ipv6Addr>().ok()?.to_string(),
            None => is_host(host).then(|| host.to_owned())?,
        };
        // `parse` would take a sign.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = digits.then(|| port.parse().ok())??;
        Some(Self { host, port })
    }

    /// The name or IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 takes any free port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Whether a text is an IPv4 address or a name. What looks like a number is no name.
fn is_host(text: &str) -> bool {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = (1..=ListenAddress::MAX_HOST_BYTES).contains(&text.len())
        && text.bytes().all(is_name_byte)
        && text.bytes().any(|byte| byte.is_ascii_alphabetic());
    is_name || matches!(text.parse(), Ok(IpAddr::V4(_)))
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
