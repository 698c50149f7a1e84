//! Finds the port that a program could not use, in the last lines that it printed. Pure.

use regex::Regex;

use crate::logs;

/// How many lines are searched: enough for the stack trace that follows the message.
pub(super) const LINES: usize = 30;

/// Returns the port of the last line that reports an address in use; `None` if no line does, or it names no port.
pub(super) fn port_in(lines: &[Vec<u8>]) -> Option<u16> {
    // Node.js, Python, Go and Rust print the text of EADDRINUSE (`errno(3)`); gunicorn `Connection in use`, many others
    // `Port 3000 is already in use`.
    let report =
        Regex::new(r"(?i)\bEADDRINUSE\b|\baddress already in use\b|\bconnection in use\b|\bport\b.*\bin use\b");
    // `:::3000`, `('127.0.0.1', 3000)`, `port 3000`. A line may begin with a time, so the last one counts.
    let port = Regex::new(r"(?i)(?:\bport[ =:]+|:|', )(\d{1,5})\b");
    let (report, port) = (report.ok()?, port.ok()?);
    let mut found = lines.iter().rev().map(|line| logs::plain(line)).filter(|line| report.is_match(line));
    found.find_map(|line| port.captures_iter(&line).last()?[1].parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_the_messages_of_common_servers() {
        for (text, port) in [
            ("Error: listen EADDRINUSE: address already in use :::3000\n    at x (node:net:1908:16)", Some(3000)),
            ("12:30:45 listen tcp :8080: bind: address already in use", Some(8080)),
            (
                "[Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use",
                Some(8000),
            ),
            ("[ERROR] Connection in use: ('127.0.0.1', 8001)", Some(8001)),
            ("Address already in use\nPort 5000 is in use by another program.", Some(5000)),
            ("\u{1b}[31mError: Port 5173 is already in use\u{1b}[0m", Some(5173)),
            ("Address already in use - bind(2) for \"127.0.0.1\" port 3001 (Errno::EADDRINUSE)", Some(3001)),
            ("OSError: [Errno 98] Address already in use", None),
            ("listening on port 3000\nthe name is in use", None),
            ("port 99999 is already in use", None),
        ] {
            let lines: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
            assert_eq!(port_in(&lines), port, "{text}");
        }
    }
}
