//! Injects errors and delays into single system calls with `strace(1)`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::{DEVPORT, TestEnv, eventually, process_state, skip, until};

/// The system calls that delete a file. Not every processor has `unlink`.
pub(crate) const UNLINK: &str = "?unlink,unlinkat";

/// The effect of strace on system calls with one path, or on all of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault<'a> {
    pub(crate) calls: &'a str,
    pub(crate) path: Option<&'a Path>,
    /// In the syntax of `inject=`: `error=EMFILE`, `delay_enter=1000000:when=1`.
    pub(crate) effect: &'a str,
}

/// Returns whether strace works here. If not, reports that the test is skipped.
pub(crate) fn is_missing() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let works = *WORKS.get_or_init(|| {
        let mut trace = Command::new("strace");
        trace.args(["-qq", "-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        trace.status().is_ok_and(|status| status.success())
    });
    if !works {
        skip("strace cannot trace processes here");
    }
    !works
}

impl TestEnv {
    /// Creates a strace command with a fault; the traced command is to be appended.
    fn strace(&self, fault: Fault<'_>) -> Command {
        let mut command = self.command("strace");
        command.args(["-f", "-qq", "-o", "/dev/null"]);
        command.args(fault.path.into_iter().flat_map(|path| [OsStr::new("-P"), path.as_os_str()]));
        command.arg("-e").arg(format!("trace={}", fault.calls));
        command.arg("-e").arg(format!("inject={}:{}", fault.calls, fault.effect));
        command
    }

    /// devport with a fault.
    pub(crate) fn faulty<I: IntoIterator<Item: AsRef<OsStr>>>(&self, fault: Fault<'_>, arguments: I) -> Command {
        let mut command = self.strace(fault);
        command.arg(DEVPORT).args(arguments);
        command
    }

    /// Runs devport in a directory of `work`, where it must succeed, and returns the records that its first thread
    /// opened, each as often as it did.
    #[track_caller]
    pub(crate) fn opened_records(&self, directory: &str, arguments: &[&str]) -> Vec<PathBuf> {
        let trace = self.path("trace");
        let mut command = self.command("strace");
        command.current_dir(self.file(directory)).args(["-qq", "-e", "trace=?open,openat", "-o"]).arg(&trace);
        self.finish(command.arg(DEVPORT).args(arguments)).ok();
        let text = fs::read_to_string(trace).unwrap();
        let paths = text.lines().filter_map(|line| line.split('"').nth(1)).map(PathBuf::from);
        paths
            .filter(|path| path.starts_with(self.state("services")) && path.extension() == Some("json".as_ref()))
            .collect()
    }

    /// Starts devport with a delay, and waits until it is delayed.
    pub(crate) fn delayed<I: IntoIterator<Item: AsRef<OsStr>>>(&self, fault: Fault<'_>, arguments: I) -> Child {
        let mut command = self.faulty(fault, arguments);
        let mut strace = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut checks = 0;
        until("devport is delayed, or has ended", || {
            checks = if is_held(strace.id()) { checks + 1 } else { 0 };
            // A traced process also stops briefly at each call, until strace is woken up.
            checks > 3 || strace.try_wait().unwrap().is_some()
        });
        strace
    }

    /// Attaches strace with a fault to a process.
    pub(crate) fn disturb(&self, pid: i32, fault: Fault<'_>) -> Disturbance {
        let mut command = self.strace(fault);
        command.arg("-p").arg(pid.to_string());
        let strace = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("strace is attached", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().any(|line| line == format!("TracerPid:\t{}", strace.id())).then_some(())
        });
        Disturbance { strace, pid }
    }
}

/// A fault in a running process, until this is dropped.
pub(crate) struct Disturbance {
    strace: Child,
    /// The process.
    pid: i32,
}

impl Disturbance {
    /// Waits until the process is delayed.
    pub(crate) fn until_delayed(&self) {
        let mut checks = 0;
        until("the process is delayed", || {
            checks = if is_stopped(self.pid) { checks + 1 } else { 0 };
            // See `delayed`.
            checks > 20
        });
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        // On SIGTERM strace detaches before it ends.
        super::signal(i32::try_from(self.strace.id()).unwrap(), "TERM");
        let _ = self.strace.wait();
    }
}

/// Waits until the traced command has ended. strace itself continues while the command's children run.
pub(crate) fn until_traced_ends(strace: &mut Child) {
    let (mut has_begun, mut checks) = (false, 0);
    until("the traced command has ended", || {
        let is_there = !traced(strace.id()).is_empty();
        has_begun |= is_there;
        checks = if is_there { 0 } else { checks + 1 };
        // A command that ended before the first check is not seen.
        (has_begun && !is_there) || checks > 200 || strace.try_wait().unwrap().is_some()
    });
}

/// Returns the commands that strace started, while they run.
fn traced(strace: u32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap_or_default();
    children.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Returns whether strace delays a thread of a traced process: the thread is stopped, and strace sleeps all the same. If
/// strace only lacked the time to continue the thread, it would be runnable.
fn is_held(strace: u32) -> bool {
    let is_asleep = process_state(i32::try_from(strace).unwrap()) == Some('S');
    is_asleep && traced(strace).into_iter().any(is_stopped)
}

/// Returns whether a tracer has stopped a thread of a process.
fn is_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok())
        .any(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" t")))
}
