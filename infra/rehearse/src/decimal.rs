//! Decimal numbers as people write them, with exact arithmetic.

use std::fmt;
use std::str::FromStr;

use schemas::ids::MAX_STOCK;

/// The part of the wanted units that is put on sale: a decimal number from 0 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(Decimal);

impl Share {
    /// The exact share of these units, rounded up; `None` if it is more than a sale may have.
    pub fn of(self, units: u64) -> Option<u32> {
        let product = u128::from(self.0.digits) * u128::from(units);
        let stock = product.div_ceil(10_u128.pow(self.0.scale));
        u32::try_from(stock)
            .ok()
            .filter(|stock| *stock <= MAX_STOCK)
    }
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "must be a decimal number from 0 to 1000, such as 0.8";
        let decimal: Decimal = text.parse().map_err(|_| wrong)?;
        let most = 1000 * 10_u128.pow(decimal.scale);
        match !decimal.negative && u128::from(decimal.digits) <= most {
            true => Ok(Self(decimal)),
            false => Err(wrong),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decimal { digits, scale, .. } = self.0;
        let unit = 10_u64.pow(scale);
        match scale {
            0 => write!(f, "{digits}"),
            _ => write!(
                f,
                "{}.{:0width$}",
                digits / unit,
                digits % unit,
                width = scale as usize
            ),
        }
    }
}

/// A price in pounds, exact.
#[derive(Debug, Clone, Copy)]
pub struct Pounds(Decimal);

impl FromStr for Pounds {
    type Err = NotDecimal;

    fn from_str(text: &str) -> Result<Self, NotDecimal> {
        text.parse().map(Self)
    }
}

impl Pounds {
    /// Whether the price is more than 0.
    pub fn is_positive(self) -> bool {
        !self.0.negative && self.0.digits > 0
    }

    /// The price in pence, half a penny rounded up, at least 1.
    pub fn pence_at_least_one(self) -> i64 {
        let unit = 10_u128.pow(self.0.scale);
        let pence = (u128::from(self.0.digits) * 200 + unit) / (2 * unit);
        // 18 digits of pounds may be more pence than an i64 holds; the API bounds prices anyway.
        i64::try_from(pence).unwrap_or(i64::MAX).max(1)
    }
}

/// A decimal number as it was written: `digits / 10^scale`, with no rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: u64,
    scale: u32,
}

/// The text is not a decimal number of at most 18 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotDecimal;

impl FromStr for Decimal {
    type Err = NotDecimal;

    fn from_str(text: &str) -> Result<Self, NotDecimal> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}");
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        // A number is printed with a zero before the point, which must not make it too long.
        let longest = digits.trim_start_matches('0').len().max(fraction.len());
        if digits.is_empty() || longest > 18 || !plain {
            return Err(NotDecimal);
        }
        Ok(Self {
            negative,
            digits: digits.parse().map_err(|_| NotDecimal)?,
            scale: fraction.len() as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exact_and_rounded_up() {
        let cases = [
            ("0.8", 5, 4),
            ("0.8", 6, 5),
            ("0.1", 10, 1),
            ("0.1", 11, 2),
            // With binary fractions these three would be one too high.
            ("0.07", 100, 7),
            ("0.29", 100, 29),
            ("1.1", 10, 11),
            ("1", 7, 7),
            ("0", 7, 0),
            ("0.000000000000001", 7, 1),
            ("1000", 1_000_000, 1_000_000_000),
        ];
        for (share, units, stock) in cases {
            assert_eq!(
                share.parse::<Share>().unwrap().of(units),
                Some(stock),
                "{share} x {units}"
            );
        }
        assert_eq!("1000".parse::<Share>().unwrap().of(1_000_001), None);
        for wrong in [
            "",
            ".",
            "-0.1",
            "1000.1",
            "1e3",
            "0,8",
            "1/2",
            "0.0000000000000000001",
        ] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
        for text in ["0.8", "1", "0.05", "12.50"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
        let longest: Share = ".734406093709551615".parse().unwrap();
        assert_eq!(longest.to_string().parse(), Ok(longest));
    }

    #[test]
    fn pence_are_rounded_half_up_and_at_least_one() {
        let cases = [
            ("2.55", 255),
            ("0.125", 13),
            ("0.124", 12),
            ("1.005", 101),
            ("0.001", 1),
            ("13541.33", 1_354_133),
            ("7", 700),
            (".5", 50),
        ];
        for (pounds, pence) in cases {
            let pounds: Pounds = pounds.parse().unwrap();
            assert!(pounds.is_positive());
            assert_eq!(pounds.pence_at_least_one(), pence, "{pounds:?}");
        }
        for nothing in ["0", "0.000", "-1", "-11062.06"] {
            assert!(
                !nothing.parse::<Pounds>().unwrap().is_positive(),
                "{nothing}"
            );
        }
    }
}
