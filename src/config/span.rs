//! `Span` and `Size`: durations and sizes in the notation of arguments and `devport.yaml`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize};

/// The longest duration in milliseconds: 366 days, a leap year. Sums of a few of them cannot overflow an `Instant`.
const LONGEST_MS: u64 = 366 * 24 * 60 * 60 * 1000;

/// A duration such as `500ms`, `30s`, `5m` or `1m30s`: whole milliseconds, at most 366 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl Span {
    /// Creates a duration of this many seconds.
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Parses a duration in a record. Earlier devports accepted any length and precision, so the value is rounded up to
    /// whole milliseconds and limited to 366 days.
    ///
    /// # Errors
    /// If the text is not a duration.
    pub(super) fn recorded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = duration(&text).ok_or_else(|| serde::de::Error::custom(invalid(&text)))?;
        let ms = duration.as_nanos().div_ceil(1_000_000).min(u128::from(LONGEST_MS));
        Ok(Self(Duration::from_millis(u64::try_from(ms).unwrap_or(LONGEST_MS))))
    }

    /// Parses an interval in a record like [`Self::recorded`]. Earlier devports recorded `0ms` for an interval below a
    /// millisecond, which would make a supervisor use a whole processor.
    ///
    /// # Errors
    /// Like [`Self::recorded`].
    pub(super) fn recorded_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::recorded(deserializer).map(|span| span.max(Self(Duration::from_millis(1))))
    }
}

/// Parses a duration of any length and precision; `None` if the text is not one or is negative.
fn duration(text: &str) -> Option<Duration> {
    let duration: SignedDuration = text.trim().parse().ok()?;
    duration.try_into().ok()
}

/// Returns the error for a text that is not a duration, or too long.
fn invalid(text: &str) -> String {
    let number = text.trim();
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("{text:?} has no unit, such as {number}s");
    }
    format!("{text:?} is not a duration up to 8784h (366 days); write it like 500ms, 30s or 5m")
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match duration(text) {
            Some(duration) if !duration.subsec_nanos().is_multiple_of(1_000_000) => {
                Err(format!("{text:?} is not a whole number of milliseconds"))
            }
            Some(duration) if duration <= Duration::from_millis(LONGEST_MS) => Ok(Self(duration)),
            _ => Err(invalid(text)),
        }
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

/// A number of bytes such as `512K`, `10M` or `1G`, in powers of 1024. `10MB` and `10MiB` mean the same as `10M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text:?} is not a size up to 16 EiB; write it like 512K, 10M or 1G");
        let text = text.trim();
        let (digits, suffix) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = match suffix.to_ascii_lowercase().as_str() {
            "" | "b" => 1_u64,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            _ => return Err(invalid()),
        };
        let number: u64 = digits.parse().map_err(|_| invalid())?;
        number.checked_mul(factor).map(Self).ok_or_else(invalid)
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
        for text in ["", "-5s", "5 apples", "s"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
        assert_eq!("5".parse::<Span>().unwrap_err(), "\"5\" has no unit, such as 5s");
    }

    #[test]
    fn a_duration_is_whole_milliseconds_and_at_most_366_days() {
        assert_eq!("8784h".parse::<Span>().unwrap().0, Duration::from_secs(366 * 24 * 3600));
        assert_eq!("1.5s".parse::<Span>().unwrap().0, Duration::from_millis(1500));
        assert_eq!("1000us".parse::<Span>().unwrap().0, Duration::from_millis(1));
        for text in ["8785h", "8784h 1ms", "2562047788015215h", "99999999999999999999h"] {
            let error = text.parse::<Span>().unwrap_err();
            assert!(error.contains(text) && error.contains("366 days"), "{error}");
        }
        for text in ["500us", "1.5ms", "1ns", "8785h 1ns"] {
            let error = text.parse::<Span>().unwrap_err();
            assert!(error.contains(text) && error.contains("whole number of milliseconds"), "{error}");
        }
    }

    #[test]
    fn a_recorded_duration_that_is_refused_now_is_rounded_and_cut() {
        let recorded = |text: &str| Span::recorded(serde_json::json!(text)).map(|span| span.0.as_millis());
        for (text, ms) in
            [("30s", 30_000), ("0ms", 0), ("500us", 1), ("1.5ms", 2), ("2562047788015215h", u128::from(LONGEST_MS))]
        {
            assert_eq!(recorded(text).unwrap(), ms, "{text}");
        }
        assert!(recorded("soon").is_err());
        assert_eq!(Span::recorded_interval(serde_json::json!("0ms")).unwrap().0.as_millis(), 1);
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("10M", 10 << 20), ("512K", 512 << 10), ("1g", 1 << 30), ("10MiB", 10 << 20), ("7", 7)] {
            assert_eq!(text.parse::<Size>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "M", "-1M", "1.5M", "99999999999999999G", "10 apples", "10 M", "10İB"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
        for (text, bytes) in [("10MB", 10 << 20), ("7b", 7), ("1gib", 1 << 30)] {
            assert_eq!(text.parse::<Size>().unwrap().0, bytes, "{text}");
        }
    }

    #[test]
    fn a_size_has_one_suffix_and_no_sign() {
        for text in ["10MBBBB", "10IBIB", "10IB", "10BB", "10MM", "10MiBB", "+5K", "-5K", "+5"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_duration_is_read_as_it_is_displayed(ms in 0..=LONGEST_MS) {
            let span = Span(Duration::from_millis(ms));
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }

        #[test]
        fn every_duration_that_is_accepted_is_displayed_whole(text in "[0-9]{1,9}(\\.[0-9]{1,4})?(us|ms|s|m|h)") {
            if let Ok(span) = text.parse::<Span>() {
                prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
            }
        }

        #[test]
        fn no_text_panics_as_span_or_size(text in ".*") {
            let _ = (text.parse::<Span>(), text.parse::<Size>());
        }
    }
}
