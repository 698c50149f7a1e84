//! Names and numbers of signals.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The signals that a supervisor does not relay to its service: SIGKILL and SIGSTOP cannot be caught (signal(7)), the
/// next six report a fault of the process itself, and a supervisor ignores the last two, so that it can write to its
/// terminal from the background.
pub(crate) const NOT_RELAYED: [i32; 10] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGPIPE,
    libc::SIGABRT,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// The highest signal number: `SIGRTMAX` on Linux (`signal(7)`), `NSIG - 1` on macOS.
pub(crate) const LAST: i32 = if cfg!(target_os = "linux") { 64 } else { 31 };

/// Parses a signal's name, with or without `SIG`, in any case, or its number; `None` if there is no such signal.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=LAST).contains(number));
    }
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Signal::from_str(&name).map(|signal| signal as i32).ok()
}

/// Returns a signal's name, or its number if it has none.
pub(crate) fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| signal.to_string(), |signal| signal.to_string())
}

/// Returns the exit code of a command that a signal has ended, as shells report it: 128 and the number.
pub(crate) fn exit_code(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |number| number.saturating_add(128))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["HUP", "hup", "SIGHUP", "sighup", "1"] {
            assert_eq!(parse(text), Some(1), "{text}");
        }
        for text in ["", "0", "-1", "65", "99", "SIG", "FOO", "1.0", "+x", "+18", "99999999999"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!((name(15), name(40)), ("SIGTERM".into(), "40".into()));
    }

    proptest! {
        #[test]
        fn no_name_panics(text in ".*") {
            let _ = parse(&text);
        }
    }
}
