//! Where an instance listens, and how ids stand in its paths.

use hyper::Uri;
use hyper::header::HeaderValue;

/// Where an instance listens.
#[derive(Clone)]
pub(crate) struct Address {
    /// The scheme, the host and the port.
    pub base: String,
    /// The header `Host`.
    pub host: HeaderValue,
}

impl Address {
    /// Reads an address such as `http://127.0.0.1:8080`. Fails with a message to print if it is not
    /// one of plain HTTP.
    pub fn parse(target: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{target:?} is not a usable address: {why}");
        let uri: Uri = target
            .parse()
            .map_err(|_| wrong("it must be an address such as http://127.0.0.1:8080"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(wrong(
                    "https is not supported yet; use the http address of the instance itself",
                ));
            }
            _ => return Err(wrong("it must begin with http://")),
        }
        if !uri.path().trim_matches('/').is_empty() || uri.query().is_some() {
            return Err(wrong("it must end after the port, with no path"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        Ok(Self {
            base: format!("http://{authority}"),
            host: HeaderValue::from_str(authority.as_str()).map_err(|e| wrong(&e.to_string()))?,
        })
    }
}

/// The text as one segment of a path: all but RFC 3986's unreserved characters are escaped.
pub(crate) fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => segment.push(byte as char),
            _ if byte.is_ascii_alphanumeric() => segment.push(byte as char),
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_carry_any_product_id() {
        assert_eq!(path_segment("BANK CHARGES"), "BANK%20CHARGES");
        assert_eq!(path_segment("gift_0001_40"), "gift_0001_40");
        assert_eq!(path_segment("a:b@c+d/é"), "a%3Ab%40c%2Bd%2F%C3%A9");
    }

    #[test]
    fn a_target_is_an_address_of_plain_http() {
        assert!(Address::parse("http://127.0.0.1:8080").is_ok());
        assert!(Address::parse("http://127.0.0.1:8080/").is_ok());
        let cases = [
            ("https://shop.example", "https is not supported yet"),
            ("127.0.0.1:8080", "must begin with http://"),
            ("ftp://127.0.0.1", "must begin with http://"),
            ("http://127.0.0.1/api", "with no path"),
            ("not a url", "must be an address"),
        ];
        for (target, why) in cases {
            let error = Address::parse(target).err().expect(target);
            assert!(error.contains(why), "{target}: {error}");
        }
    }
}
