//! Settings of the HTTP server and of the APIs that it serves.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::format::{Format, milliseconds, number};
use super::listen::ListenAddress;
use super::secrets::{AdminToken, ReceiptSecret};
use super::service::{HTTP_APIS, SERVICES, Service};
use super::source::{Setting, Source};

/// The HTTP server and the APIs that it serves.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Address and port to listen on; port 0 takes any free port.
    pub listen: ListenAddress,
    /// Address and port of the listener for operations.
    pub operations_listen: ListenAddress,
    /// The most connections at once; further ones are refused with 503.
    pub max_connections: usize,
    /// The longest time from the head of a command's request to its response.
    pub request_timeout: Duration,
    /// The most requests that wait for the outcome of an attempt at once.
    pub max_waiters: usize,
    /// The origins whose pages may call the APIs, beside the service's own; each as browsers send it.
    pub allowed_origins: Vec<String>,
    /// The token that authorises administration; none: administration is off.
    pub admin_token: Option<AdminToken>,
    /// The key that signs receipts; none: one is kept in the data directory.
    pub receipt_key: Option<ReceiptSecret>,
}

impl HttpSettings {
    pub(super) fn read(source: &mut Source) -> Self {
        let default_listen = source.service().default_listen();
        let default_operations = source.service().default_operations_listen();
        let settings = Self {
            listen: source.read(Setting {
                name: "listen",
                used_by: HTTP_APIS,
                default: default_listen,
                help: "Host name or IP address, and port, to listen on; port 0 takes any free port",
                format: address(),
            }),
            operations_listen: source.read(Setting {
                name: "operations_listen",
                used_by: SERVICES,
                default: default_operations,
                help: "The same for /healthz, /readyz and /metrics, which are for operators alone",
                format: address(),
            }),
            max_connections: source.read(Setting {
                name: "max_connections",
                used_by: HTTP_APIS,
                default: "8192",
                help: "Most connections at once",
                format: number(1..=1_000_000),
            }),
            request_timeout: source.read(Setting {
                name: "request_timeout_ms",
                used_by: &[Service::Serve, Service::CommandApi],
                default: "10000",
                help: "Longest time from the head of a command's request to its response",
                format: milliseconds(1..=3_600_000),
            }),
            max_waiters: source.read(Setting {
                name: "max_waiters",
                used_by: &[Service::Serve, Service::QueryApi],
                default: "10000",
                help: "Most requests that wait for the outcome of an attempt at once",
                format: number(0..=1_000_000),
            }),
            allowed_origins: source
                .read(Setting {
                    name: "allowed_origins",
                    used_by: HTTP_APIS,
                    default: "",
                    help: "Origins whose pages may call the APIs in a browser (CORS), beside the \
                           service's own; with commas in between",
                    format: origins().optional(),
                })
                .unwrap_or_default(),
            admin_token: source.read(Setting {
                name: "admin_token",
                used_by: HTTP_APIS,
                default: "",
                help: "Token that authorises administration, 8 to 256 visible ASCII characters; \
                       without one administration is off",
                format: admin_token().optional(),
            }),
            receipt_key: source.read(Setting {
                name: "receipt_key",
                used_by: &[Service::Serve, Service::CommandApi, Service::Audit],
                default: "",
                help: "Key that signs receipts, 64 hexadecimal digits, the same for every \
                       command-api; without one, serve uses DATA_DIR/receipt.key, which it creates \
                       at the first start",
                format: receipt_key().optional(),
            }),
        };
        if source.service() == Service::CommandApi && settings.receipt_key.is_none() {
            source.mistake(
                "receipt_key must be given, the same to every command-api: 64 hexadecimal digits, \
                 such as openssl rand -hex 32 prints",
            );
        }
        settings
    }
}

fn address() -> Format<ListenAddress> {
    let expected = "HOST:PORT such as 127.0.0.1:8080 or localhost:8080";
    Format::new("HOST:PORT", expected, ListenAddress::new)
}

fn origins() -> Format<Vec<String>> {
    let origin = |origin: &str| is_origin(origin).then(|| origin.to_owned());
    let expected = "an origin as browsers send it, such as https://shop.example.org or \
                    http://localhost:3000, or several with commas in between";
    Format::new("ORIGIN,…", expected, move |text| {
        text.split(',').map(|part| origin(part.trim())).collect()
    })
}

/// Whether a text is an origin as browsers send it: scheme, host and port only, in lower case, without
/// the scheme's own port. Any other text would never match.
fn is_origin(text: &str) -> bool {
    let (authority, own_port) = match (text.strip_prefix("https://"), text.strip_prefix("http://"))
    {
        (Some(rest), _) => (rest, 443),
        (_, Some(rest)) => (rest, 80),
        _ => return false,
    };
    let bracket = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority.rfind(':') {
        Some(colon) if colon >= bracket => authority.split_at(colon),
        _ => (authority, ""),
    };
    let is_port = match port.strip_prefix(':') {
        Some(port) => port
            .parse::<u16>()
            .is_ok_and(|number| number > 0 && number != own_port && number.to_string() == port),
        None => true,
    };
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host = match inner {
        Some(address) => address
            .parse::<Ipv6Addr>()
            .is_ok_and(|ip| ip.to_string() == address),
        None => host
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')),
    };
    !host.is_empty() && is_host && is_port
}

fn admin_token() -> Format<AdminToken> {
    let (min, max) = (AdminToken::MIN_BYTES, AdminToken::MAX_BYTES);
    let expected = format!("{min} to {max} visible ASCII characters");
    Format::new("TOKEN", expected, AdminToken::new).secret()
}

fn receipt_key() -> Format<ReceiptSecret> {
    let expected = format!("{} hexadecimal digits", 2 * ReceiptSecret::BYTES);
    Format::new("KEY", expected, ReceiptSecret::from_hex).secret()
}
