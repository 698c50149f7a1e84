//! `Probe`: one running check that takes time (a connection, an HTTP request, a command) and never blocks the loop.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::os::clock::later;
use crate::os::process::ProcessIdentity;
use crate::os::socket;
use crate::registry::ExitHow;
use crate::text::{printable, shorten};

/// How many bytes of an HTTP response are read. A status line is shorter, and nothing else is needed.
const LONGEST_STATUS_LINE: usize = 256;

/// The result of a check; an error is a sentence fragment for people.
pub(crate) type CheckResult = Result<(), String>;

#[derive(Debug)]
pub(crate) struct Probe {
    /// What is checked, as the subject of a sentence: `GET /healthz`.
    subject: String,
    /// When it fails if it has no result by then.
    deadline: Instant,
    /// How long it may take.
    timeout: Duration,
    work: Work,
}

/// What a check waits for.
#[derive(Debug)]
enum Work {
    /// A connection.
    Connecting {
        stream: TcpStream,
        port: u16,
        /// Why the connection to 127.0.0.1 failed, if this is the second attempt, to `::1`.
        v4_failure: Option<io::Error>,
        /// The request to send once connected; `None` if a connection is enough.
        request: Option<Request>,
    },
    /// The status line of a response.
    Reading {
        stream: TcpStream,
        read: Vec<u8>,
        /// The expected status; `None` for any from 200 to 399.
        status: Option<u16>,
    },
    /// The exit of a command.
    Command(ProcessIdentity),
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// The expected status; `None` for any from 200 to 399.
    pub(crate) status: Option<u16>,
}

impl Probe {
    /// Starts to connect to a port of this machine, and then to send a request if there is one.
    ///
    /// # Errors
    /// If the connection fails at once.
    pub(crate) fn connect(
        port: u16,
        request: Option<Request>,
        timeout: Duration,
        now: Instant,
    ) -> Result<Self, String> {
        let subject =
            request.as_ref().map_or_else(|| format!("port {port}"), |request| format!("GET {}", request.path));
        Ok(Self { subject, deadline: later(now, timeout), timeout, work: connecting(port, request)? })
    }

    /// Waits for the exit of a command that was started with these words.
    pub(crate) fn command(words: &[String], process: ProcessIdentity, timeout: Duration, now: Instant) -> Self {
        let subject = shorten(&printable(&shell_words::join(words)));
        Self { subject, deadline: later(now, timeout), timeout, work: Work::Command(process) }
    }

    /// Returns when the check times out.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the pid of the check's command; `None` if it has none.
    pub(crate) fn pid(&self) -> Option<i32> {
        match &self.work {
            Work::Command(process) => Some(process.pid),
            Work::Connecting { .. } | Work::Reading { .. } => None,
        }
    }

    /// Returns the descriptor to poll; `None` if the check waits for an exit.
    pub(crate) fn poll_fd(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.work {
            Work::Connecting { stream, .. } => Some((stream.as_fd(), PollFlags::POLLOUT)),
            Work::Reading { stream, .. } => Some((stream.as_fd(), PollFlags::POLLIN)),
            Work::Command(_) => None,
        }
    }

    /// Advances the check as far as it goes without waiting; returns the result once there is one.
    pub(crate) fn step(&mut self, now: Instant) -> Option<CheckResult> {
        let result = match &mut self.work {
            Work::Command(_) => None,
            Work::Connecting { .. } => self.check_connection(),
            Work::Reading { stream, read, status } => read_status(stream, read)
                .map(|line| check_status(&line, *status).map_err(|result| format!("{} {result}", self.subject))),
        };
        if result.is_none() && now >= self.deadline {
            self.abandon();
            return Some(Err(self.timed_out(self.timeout)));
        }
        result
    }

    /// Handles the exit of a process; returns the result if it was this check's command.
    pub(crate) fn handle_exit(&self, pid: i32, how: ExitHow) -> Option<CheckResult> {
        match &self.work {
            Work::Command(process) if process.pid == pid => {
                let ended = match how {
                    ExitHow::Code(0) => return Some(Ok(())),
                    ExitHow::Code(code) => format!("exited with code {code}"),
                    other => format!("was {other}"),
                };
                Some(Err(format!("{} {ended}", self.subject)))
            }
            _ => None,
        }
    }

    /// Returns the failure of a check that took longer than `limit`.
    pub(crate) fn timed_out(&self, limit: Duration) -> String {
        let missing = match &self.work {
            Work::Command(_) => "did not finish",
            Work::Connecting { request: None, .. } => "accepted no connection",
            Work::Connecting { .. } | Work::Reading { .. } => "got no response",
        };
        format!("{} {missing} within {} s", self.subject, limit.as_secs_f64())
    }

    /// Kills the check's command, if it has one.
    pub(crate) fn abandon(&self) {
        if let Work::Command(process) = &self.work {
            // With its descendants: it leads a process group.
            let _ = process.signal_group(libc::SIGKILL);
        }
    }

    /// Checks whether the connection is established, and then sends the request.
    fn check_connection(&mut self) -> Option<CheckResult> {
        let Work::Connecting { stream, port, v4_failure, request } = &mut self.work else { return None };
        let failure = match stream.take_error() {
            Ok(error) => error,
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            let first = match v4_failure.take() {
                None if may_be_v6(&error) => error,
                first => return Some(Err(no_connection(*port, first.as_ref(), &error))),
            };
            return match connecting_v6(*port, request.take(), first) {
                Ok(work) => {
                    self.work = work;
                    None
                }
                Err(why) => Some(Err(why)),
            };
        }
        // A socket that still connects has no error and no peer (`connect(2)`, `getpeername(2)`).
        stream.peer_addr().ok()?;
        let Some(Request { path, status }) = request.take() else { return Some(Ok(())) };
        let text = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: devport\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        // One write is enough: the socket's buffer is empty, and larger than a request.
        if let Err(error) = stream.write_all(text.as_bytes()) {
            return Some(Err(no_connection(*port, None, &error)));
        }
        // The request is sent. Without a way to read the response, the check must not pass.
        let stream = match stream.try_clone() {
            Ok(stream) => stream,
            Err(error) => return Some(Err(no_connection(*port, None, &error))),
        };
        self.work = Work::Reading { stream, read: Vec::new(), status };
        None
    }
}

/// Starts to connect to 127.0.0.1, or to `::1` if nothing listens there.
fn connecting(port: u16, request: Option<Request>) -> Result<Work, String> {
    match socket::connect(port, false) {
        Ok(stream) => Ok(Work::Connecting { stream, port, v4_failure: None, request }),
        Err(error) if may_be_v6(&error) => connecting_v6(port, request, error),
        Err(error) => Err(no_connection(port, None, &error)),
    }
}

/// Returns whether a connection to 127.0.0.1 failed because the service may listen on `::1` only. After any other
/// failure, the one of `::1` would hide it.
fn may_be_v6(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | AddrNotAvailable | NetworkUnreachable)
}

/// Starts to connect to `::1`, after the connection to 127.0.0.1 has failed.
fn connecting_v6(port: u16, request: Option<Request>, v4_failure: io::Error) -> Result<Work, String> {
    match socket::connect(port, true) {
        Ok(stream) => Ok(Work::Connecting { stream, port, v4_failure: Some(v4_failure), request }),
        Err(error) => Err(no_connection(port, Some(&v4_failure), &error)),
    }
}

/// Explains why a connection failed. On a machine without IPv6, the failure of 127.0.0.1 says more than that of `::1`.
fn no_connection(port: u16, v4_failure: Option<&io::Error>, error: &io::Error) -> String {
    let lacks_v6 = may_be_v6(error) || error.raw_os_error() == Some(libc::EAFNOSUPPORT);
    let error = v4_failure.filter(|_| lacks_v6).unwrap_or(error);
    if error.kind() == io::ErrorKind::ConnectionRefused {
        format!("nothing listens on port {port}")
    } else {
        format!("could not connect to port {port}: {}", crate::error::reason(error))
    }
}

/// Reads more of a response; returns the status line once it is complete.
fn read_status(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
    let mut part = [0; LONGEST_STATUS_LINE];
    let ended = match stream.read(&mut part) {
        Ok(0) => true,
        Ok(count) => {
            read.extend_from_slice(&part[..count]);
            false
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
        Err(_) => true,
    };
    let line = read.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() == read.len() && !ended && read.len() < LONGEST_STATUS_LINE {
        return None;
    }
    Some(String::from_utf8_lossy(line).into_owned())
}

/// Checks a status line (RFC 9112, section 4). The error continues a sentence that begins with the request.
fn check_status(line: &str, expected: Option<u16>) -> CheckResult {
    let mut words = line.split_ascii_whitespace();
    let version = words.next().unwrap_or_default();
    let status: Option<u16> = words.next().and_then(|word| word.parse().ok());
    match (status, expected) {
        (Some(status), Some(expected)) if version.starts_with("HTTP/") && status == expected => Ok(()),
        (Some(status), None) if version.starts_with("HTTP/") && (200..400).contains(&status) => Ok(()),
        (Some(status), Some(expected)) if version.starts_with("HTTP/") => {
            Err(format!("returned {status}, not {expected}"))
        }
        (Some(status), None) if version.starts_with("HTTP/") => Err(format!("returned {status}")),
        _ => Err("got a response that is not HTTP".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_passes_with_the_expected_status_or_any_from_200_to_399() {
        assert_eq!(check_status("HTTP/1.1 200 OK\r", None), Ok(()));
        assert_eq!(check_status("HTTP/1.0 302 Found\r", None), Ok(()));
        assert_eq!(check_status("HTTP/1.1 500 Oh\r", None), Err("returned 500".into()));
        assert_eq!(check_status("HTTP/1.1 204 No Content\r", Some(204)), Ok(()));
        assert_eq!(check_status("HTTP/1.1 200 OK\r", Some(204)), Err("returned 200, not 204".into()));
        for line in ["", "SSH-2.0-OpenSSH_9.6", "HTTP/1.1", "220 200"] {
            assert_eq!(check_status(line, None), Err("got a response that is not HTTP".into()), "{line:?}");
        }
    }

    #[test]
    fn on_a_machine_without_ipv6_the_failure_of_127_0_0_1_is_reported() {
        let error = io::Error::from_raw_os_error;
        let refused = "nothing listens on port 7";
        let timed_out = "could not connect to port 7: connection timed out";
        for (v4, last, expected) in [
            (None, libc::ECONNREFUSED, refused),
            (None, libc::ETIMEDOUT, timed_out),
            (Some(libc::ECONNREFUSED), libc::ECONNREFUSED, refused),
            (Some(libc::ECONNREFUSED), libc::EADDRNOTAVAIL, refused),
            (Some(libc::ECONNREFUSED), libc::EAFNOSUPPORT, refused),
            // Something listens on ::1.
            (Some(libc::ECONNREFUSED), libc::ETIMEDOUT, timed_out),
        ] {
            let v4_failure = v4.map(error);
            assert_eq!(no_connection(7, v4_failure.as_ref(), &error(last)), expected, "{v4:?} {last}");
        }
    }
}
