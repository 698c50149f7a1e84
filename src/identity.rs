//! Names of services: `Key`, `ServiceHash`, `HashId`, `TailnetName`, `Target`. Pure: no I/O.

use std::fmt::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, TailnetError};
use crate::text::{is_deceptive, shorten};

/// The number of hexadecimal digits of a hash.
pub(crate) const HASH_LENGTH: usize = 10;
/// The fewest digits of a hash that name a service: two would match by chance among a few dozen services.
pub(crate) const SHORTEST_PREFIX: usize = 3;
/// The most bytes in a name on the tailnet: a DNS label (RFC 1035, 2.3.4).
const LONGEST_LABEL: usize = 63;
/// The most bytes in a key: a line of a terminal shows it whole, and its window can have its name.
const LONGEST_KEY: usize = 128;

/// The user's name for a service: 1 to 128 bytes, no control characters, no leading dash.
///
/// Records are read without this check, because the first devport allowed more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Key(String);

impl Key {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] if it cannot name a service.
    pub(crate) fn new(name: impl Into<String>) -> Result<Self> {
        let key = name.into();
        let why = if key.is_empty() {
            "is empty"
        } else if key.len() > LONGEST_KEY {
            "is longer than 128 bytes"
        } else if key.chars().any(char::is_control) {
            "contains a control character"
        } else if key.chars().any(|c| is_deceptive(c) || (c.is_whitespace() && c != ' ')) {
            "contains a character that is invisible or reverses the text"
        } else if key.starts_with('-') {
            "starts with a dash"
        } else {
            return Ok(Self(key));
        };
        Err(Error::InvalidKey { key: shorten(&key), why })
    }

    /// The name of a stack's service in its file: `web` of `shop@feat/web`. A key of another service may have slashes too.
    pub(crate) fn name_in_stack(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies a service in the registry: 10 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ServiceHash(String);

impl ServiceHash {
    /// Hashes a key with SHA-256.
    pub(crate) fn of_key(key: &Key) -> Self {
        Self::digest(key.as_str().as_bytes())
    }

    /// Hashes a service without a key: SHA-256 of the canonical directory and the words of the command, separated by
    /// NUL.
    pub(crate) fn of_command(cwd: &Path, words: &[String]) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let mut text = cwd.as_os_str().as_bytes().to_vec();
        for word in words {
            text.push(0);
            text.extend_from_slice(word.as_bytes());
        }
        Self::digest(&text)
    }

    /// Returns the first digits of SHA-256.
    fn digest(bytes: &[u8]) -> Self {
        Self(hex(&Sha256::digest(bytes)[..HASH_LENGTH / 2]))
    }

    /// Parses the hash in a file name or record; `None` if it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == HASH_LENGTH && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the shortest prefix of at least 3 digits that none of `others` has; the whole hash if they share all but
    /// its last digit.
    pub(crate) fn shortest_unique_prefix<'a>(&self, others: impl IntoIterator<Item = &'a Self>) -> HashId {
        let shared =
            others.into_iter().filter(|other| *other != self).map(|other| self.shared_digits(other)).max().unwrap_or(0);
        let length = (shared + 1).clamp(SHORTEST_PREFIX, HASH_LENGTH);
        HashId(self.0.chars().take(length).collect())
    }

    /// Returns how many leading digits two hashes share.
    fn shared_digits(&self, other: &Self) -> usize {
        self.0.bytes().zip(other.0.bytes()).take_while(|(a, b)| a == b).count()
    }
}

impl TryFrom<String> for ServiceHash {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a hash of {HASH_LENGTH} hexadecimal digits"))
    }
}

impl From<ServiceHash> for String {
    fn from(hash: ServiceHash) -> Self {
        hash.0
    }
}

impl fmt::Display for ServiceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The short name that devport prints: a prefix of the hash, frozen at registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct HashId(String);

impl HashId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HashId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service's name on the tailnet, without `svc:`: one lower-case DNS label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TailnetName(String);

impl TailnetName {
    /// Checks a name. Tailscale accepts DNS labels as names of services.
    ///
    /// # Errors
    /// [`TailnetError::InvalidName`] if it is not a DNS label.
    pub(crate) fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let good = (1..=LONGEST_LABEL).contains(&name.len())
            && name.chars().all(fine)
            && !name.starts_with('-')
            && !name.ends_with('-');
        if good { Ok(Self(name)) } else { Err(TailnetError::InvalidName { name }.into()) }
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TailnetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text that a user types to name a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target(String);

impl Target {
    /// Takes the text as typed. The registry finds out whether it names a service.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Interprets the target as a key; `None` if it cannot be one.
    pub(crate) fn as_key(&self) -> Option<Key> {
        Key::new(self.0.clone()).ok()
    }

    /// Interprets the target as a port in plain notation, neither `+19000` nor `019000`; `None` if it is not one.
    pub(crate) fn as_port(&self) -> Option<u16> {
        self.0.parse().ok().filter(|port: &u16| *port > 0 && port.to_string() == self.0)
    }
}

/// Returns the first hexadecimal digits of SHA-256.
pub(crate) fn hex_digest(bytes: &[u8], digits: usize) -> String {
    let mut text = hex(&Sha256::digest(bytes));
    text.truncate(digits);
    text
}

/// Returns bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(digits: &str) -> ServiceHash {
        ServiceHash::parse(digits).unwrap()
    }

    #[test]
    fn the_hash_of_a_key_is_that_of_the_first_devport() {
        assert_eq!(ServiceHash::of_key(&Key::new("myapp").unwrap()).as_str(), "c1b7024794");
    }

    #[test]
    fn the_hash_of_a_command_separates_its_words() {
        let of = |words: &[&str]| {
            ServiceHash::of_command(Path::new("/a"), &words.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_ne!(of(&["b c"]), of(&["b", "c"]));
        assert_ne!(of(&["b", ""]), of(&["b"]));
    }

    #[test]
    fn keys_are_short_printable_and_no_options() {
        for good in
            ["web/dashboard", "my.app", "a:b", "é", "#(touch x)", "end;", "@0", "{start}", "0", &"k".repeat(128)]
        {
            assert!(Key::new(good).is_ok(), "{good:?}");
        }
        for bad in
            ["", "-x", "a\nb", "a\tb", "\u{7f}", "\u{85}", "a\u{202e}b", "a\u{a0}b", "a\u{200b}", &"k".repeat(129)]
        {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_long_key_is_not_repeated_whole() {
        let error = Key::new("k".repeat(100_000)).unwrap_err().to_string();
        assert!(error.len() < 300, "{} bytes", error.len());
    }

    #[test]
    fn a_name_on_the_tailnet_is_a_dns_label() {
        for good in ["7", "0a1", "my-api", &"x".repeat(63)] {
            assert!(TailnetName::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "-a", "a-", "a.b", "a_b", "A", "svc:a", "é", &"x".repeat(64)] {
            assert!(TailnetName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_hashid_is_as_long_as_it_must_be() {
        let me = hash("abc4567890");
        let with = |others: &[&str]| {
            me.shortest_unique_prefix(&others.iter().map(|other| hash(other)).collect::<Vec<_>>()).to_string()
        };
        assert_eq!(with(&[]), "abc");
        assert_eq!(with(&["abd4567890"]), "abc");
        assert_eq!(with(&["abc5567890"]), "abc4");
        assert_eq!(with(&["abc4567891", "abc4000000"]), "abc4567890");
        assert_eq!(with(&["abc4567890"]), "abc", "itself does not count");
    }

    #[test]
    fn a_port_is_written_plainly() {
        let port = |text: &str| Target::new(text).as_port();
        assert_eq!(port("19000"), Some(19000));
        for text in ["+19000", "019000", " 19000", "19000 ", "0x4a38", "0", "65536", "-1", ""] {
            assert_eq!(port(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_as_target_key_or_hash(text in ".*") {
            let target = Target::new(text.clone());
            let _ = (target.as_key(), target.as_port(), ServiceHash::parse(&text));
        }

        #[test]
        fn a_hashid_is_a_prefix_that_no_other_hash_has(digits in proptest::collection::hash_set("[ab]{10}", 1..40)) {
            let hashes: Vec<_> = digits.iter().map(|digits| hash(digits)).collect();
            for me in &hashes {
                let id = me.shortest_unique_prefix(&hashes);
                prop_assert!(id.as_str().len() >= SHORTEST_PREFIX);
                prop_assert_eq!(hashes.iter().filter(|other| other.as_str().starts_with(id.as_str())).count(), 1);
            }
        }
    }
}
