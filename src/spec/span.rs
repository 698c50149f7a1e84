//! `Span` and `Size`: durations and sizes as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// A duration, written like `500ms`, `30s`, `5m` or `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl Span {
    /// So many seconds.
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no duration; write it like 500ms, 30s or 5m");
        let span: SignedDuration = text.trim().parse().map_err(|_| wrong())?;
        Duration::try_from(span).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            _ if ms == 0 || !ms.is_multiple_of(1000) => write!(f, "{ms}ms"),
            _ if !ms.is_multiple_of(60_000) => write!(f, "{}s", ms / 1000),
            _ => write!(f, "{}m", ms / 60_000),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// A number of bytes, written like `512K`, `10M` or `1G`: powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size; write it like 512K, 10M or 1G");
        let upper = text.trim().to_uppercase();
        let plain = upper.trim_end_matches("IB").trim_end_matches('B');
        let (digits, factor) = match plain.chars().last() {
            Some('K') => (&plain[..plain.len() - 1], 1 << 10),
            Some('M') => (&plain[..plain.len() - 1], 1 << 20),
            Some('G') => (&plain[..plain.len() - 1], 1 << 30),
            _ => (plain, 1_u64),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_they_are_written() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1m30s", 90_000), ("2h", 7_200_000)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_millis(), ms, "{text}");
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        for text in ["", "5", "-5s", "5 apples", "s"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("10M", 10 << 20), ("512K", 512 << 10), ("1g", 1 << 30), ("10MiB", 10 << 20), ("7", 7)] {
            assert_eq!(text.parse::<Size>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "M", "-1M", "1.5M", "99999999999999999G", "10 apples"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn t27_no_text_panics_as_span_or_size(text in ".*") {
            let _ = (text.parse::<Span>(), text.parse::<Size>());
        }
    }
}
