//! `Probe`: one question that takes its time, without anybody waiting for it: a connection, a request, a command.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::os::clock::later;
use crate::os::process::ProcessIdentity;
use crate::os::socket;
use crate::registry::ExitHow;

/// How much of an answer is looked at, in bytes.
const LONGEST_STATUS_LINE: usize = 256;

/// What came of a question; an error is a sentence fragment for people.
pub(super) type Answer = Result<(), String>;

/// A question under way.
#[derive(Debug)]
pub(super) struct Probe {
    /// When it is given up.
    deadline: Instant,
    /// How long that was, for the message.
    limit: Duration,
    /// What is being done.
    work: Work,
}

/// What a probe does.
#[derive(Debug)]
enum Work {
    /// It connects.
    Connecting {
        /// The socket.
        stream: TcpStream,
        /// Where to.
        port: u16,
        /// Whether that is `::1`, the second attempt.
        v6: bool,
        /// What is asked then; `None`: nothing.
        request: Option<Request>,
    },
    /// It waits for the status line of an answer.
    Reading {
        /// The socket.
        stream: TcpStream,
        /// What came so far.
        read: Vec<u8>,
        /// The status that counts; `None`: 200 to 399.
        status: Option<u16>,
    },
    /// A command runs.
    Command(ProcessIdentity),
}

/// A request by HTTP.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The path.
    pub(super) path: String,
    /// The status that counts; `None`: 200 to 399.
    pub(super) status: Option<u16>,
}

impl Probe {
    /// Begins to connect to a port, and to ask something there.
    ///
    /// # Errors
    /// If that fails at once.
    pub(super) fn connect(port: u16, request: Option<Request>, limit: Duration, now: Instant) -> Result<Self, String> {
        let work = connecting(port, request)?;
        Ok(Self { deadline: later(now, limit), limit, work })
    }

    /// Waits for a command that was started.
    pub(super) fn command(process: ProcessIdentity, limit: Duration, now: Instant) -> Self {
        Self { deadline: later(now, limit), limit, work: Work::Command(process) }
    }

    /// When it is given up.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What is waited for; `None`: the end of a process.
    pub(super) fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.work {
            Work::Connecting { stream, .. } => Some((stream.as_fd(), PollFlags::POLLOUT)),
            Work::Reading { stream, .. } => Some((stream.as_fd(), PollFlags::POLLIN)),
            Work::Command(_) => None,
        }
    }

    /// Goes on as far as that goes without waiting; returns the answer when there is one.
    pub(super) fn step(&mut self, now: Instant) -> Option<Answer> {
        let answer = match &mut self.work {
            Work::Command(_) => None,
            Work::Connecting { .. } => self.connected(),
            Work::Reading { stream, read, status } => status_line(stream, read, *status),
        };
        if answer.is_none() && now >= self.deadline {
            self.abandon();
            return Some(Err(format!("no answer in {} s", self.limit.as_secs_f64())));
        }
        answer
    }

    /// A process has ended; `None` if it is not this probe's.
    pub(super) fn reaped(&self, pid: i32, how: ExitHow) -> Option<Answer> {
        match &self.work {
            Work::Command(process) if process.pid == pid => {
                Some(if how == ExitHow::Code(0) { Ok(()) } else { Err(format!("the command ended: {how}")) })
            }
            _ => None,
        }
    }

    /// Nobody wants to know any more.
    pub(super) fn abandon(&self) {
        if let Work::Command(process) = &self.work {
            // It leads a group of its own.
            let _ = process.signal_group(libc::SIGKILL);
        }
    }

    /// Sees whether the connection is there, and asks what is to be asked.
    fn connected(&mut self) -> Option<Answer> {
        let Work::Connecting { stream, port, v6, request } = &mut self.work else { return None };
        let failure = match stream.take_error() {
            Ok(error) => error,
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            if *v6 {
                return Some(Err(format!("port {port}: {}", crate::error::reason(&error))));
            }
            return match second_attempt(*port, request.take()) {
                Ok(work) => {
                    self.work = work;
                    None
                }
                Err(why) => Some(Err(why)),
            };
        }
        // Not connected yet, unless it has a peer.
        stream.peer_addr().ok()?;
        let Some(Request { path, status }) = request.take() else { return Some(Ok(())) };
        let text = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: devport\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        // It fits into the socket's buffer, which is empty.
        if let Err(error) = stream.write_all(text.as_bytes()) {
            return Some(Err(format!("port {port}: {}", crate::error::reason(&error))));
        }
        let stream = stream.try_clone().ok()?;
        self.work = Work::Reading { stream, read: Vec::new(), status };
        None
    }
}

/// Connects to 127.0.0.1, or to `::1` if that is refused at once.
fn connecting(port: u16, request: Option<Request>) -> Result<Work, String> {
    match socket::connect(port, false) {
        Ok(stream) => Ok(Work::Connecting { stream, port, v6: false, request }),
        Err(_) => second_attempt(port, request),
    }
}

/// Connects to `::1`.
fn second_attempt(port: u16, request: Option<Request>) -> Result<Work, String> {
    let stream =
        socket::connect(port, true).map_err(|error| format!("port {port}: {}", crate::error::reason(&error)))?;
    Ok(Work::Connecting { stream, port, v6: true, request })
}

/// Reads on; judges the status once it is there.
fn status_line(stream: &mut TcpStream, read: &mut Vec<u8>, wanted: Option<u16>) -> Option<Answer> {
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
    Some(judge(&String::from_utf8_lossy(line), wanted))
}

/// What a status line says. Source: RFC 9112, section 4.
fn judge(line: &str, wanted: Option<u16>) -> Answer {
    let mut words = line.split_ascii_whitespace();
    let version = words.next().unwrap_or_default();
    let status: Option<u16> = words.next().and_then(|word| word.parse().ok());
    match (status, wanted) {
        (Some(status), Some(wanted)) if version.starts_with("HTTP/") && status == wanted => Ok(()),
        (Some(status), None) if version.starts_with("HTTP/") && (200..400).contains(&status) => Ok(()),
        (Some(status), Some(wanted)) if version.starts_with("HTTP/") => {
            Err(format!("it answers with status {status} instead of {wanted}"))
        }
        (Some(status), None) if version.starts_with("HTTP/") => Err(format!("it answers with status {status}")),
        _ => Err("what answers does not speak HTTP".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_judged() {
        assert_eq!(judge("HTTP/1.1 200 OK\r", None), Ok(()));
        assert_eq!(judge("HTTP/1.0 302 Found\r", None), Ok(()));
        assert_eq!(judge("HTTP/1.1 500 Oh\r", None), Err("it answers with status 500".into()));
        assert_eq!(judge("HTTP/1.1 204 No Content\r", Some(204)), Ok(()));
        assert_eq!(judge("HTTP/1.1 200 OK\r", Some(204)), Err("it answers with status 200 instead of 204".into()));
        for line in ["", "SSH-2.0-OpenSSH_9.6", "HTTP/1.1", "220 200"] {
            assert_eq!(judge(line, None), Err("what answers does not speak HTTP".into()), "{line:?}");
        }
    }
}
