//! Small texts that come in paths, queries, headers and bodies: ids, positions, moments, traces.
//!
//! A parsed value has one text form, which parses to the same value.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use runtime::settings::AdminToken;
use schemas::ids::{AttemptId, BuyerId, MAX_ID_BYTES, Position, ProductId};
use schemas::placement::Placement;
use schemas::trace::trace_id;
use web::rfc3339::Moment;

pub(crate) fn run(input: &[u8]) {
    if let Some(trace) = trace_id(input) {
        let shown = format!("00-{trace}-00f067aa0ba902b7-01");
        assert_eq!(trace_id(shown.as_bytes()), Some(trace));
        assert_eq!(
            shown.as_bytes()[3..35],
            input[3..35],
            "only one form is read"
        );
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(product) = read_as_shown::<ProductId>(text) {
        assert_eq!(product.as_str(), text);
        assert!((1..=MAX_ID_BYTES).contains(&text.len()));
        assert!(Placement::new(7).partition_of(&product).0 < 7);
        let buyer: BuyerId = text.parse().expect("both have the same form");
        AttemptId::from_key(&product, &buyer, text, 2);
    }
    read_as_shown::<AttemptId>(text);
    if let Some(position) = read_as_shown::<Position>(text) {
        assert!(position.offset.0 >= 0);
    }
    if let Ok(moment) = text.parse::<Moment>() {
        // Times before 1970, which no sale has, are shown as the start of 1970.
        let shown = Moment(moment.0.max(0));
        assert_eq!(shown.to_string().parse(), Ok(shown));
    }
    if AdminToken::new(text).is_some() {
        let bounds = AdminToken::MIN_BYTES..=AdminToken::MAX_BYTES;
        assert!(bounds.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

fn read_as_shown<T: FromStr<Err: Debug> + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let shown: T = value
        .to_string()
        .parse()
        .expect("what is shown can be read");
    assert_eq!(shown, value);
    Some(value)
}
