//! macOS: what libproc and sysctl know of processes, and lsof of sockets.

use std::io;

use super::process::{ProcessState, ProcessStatus};
use super::{spawn, sys};

/// Identifies this boot of the machine by the time at which it began. Source: `sysctl(3)`,
/// `KERN_BOOTTIME`.
pub(super) fn boot_id() -> io::Result<String> {
    let time = sys::sysctl(&mut [libc::CTL_KERN, libc::KERN_BOOTTIME])?;
    Ok(time.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The processor that runs the calling thread: the system does not say.
pub(super) fn current_cpu() -> Option<usize> {
    None
}

/// Moving a thread to another processor: the system leaves no choice, and spreads threads well itself.
pub(super) fn leave_cpu(_cpu: Option<usize>) {}

/// What the kernel says of a process; `None` if there is none. The start time is in microseconds
/// since 1970.
pub(super) fn process_status(pid: i32) -> Option<ProcessStatus> {
    let info = sys::bsd_info(pid)?;
    let name =
        info.pbi_comm.iter().take_while(|byte| **byte != 0).map(|byte| byte.cast_unsigned()).collect::<Vec<u8>>();
    Some(ProcessStatus {
        name: String::from_utf8_lossy(&name).into_owned(),
        state: if info.pbi_status == libc::SZOMB { ProcessState::Dead } else { ProcessState::Alive },
        parent: i32::try_from(info.pbi_ppid).ok()?,
        group: i32::try_from(info.pbi_pgid).ok()?,
        start_time: info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec,
    })
}

/// How much of processors' time a process has used: `ps` knows.
pub(super) fn cpu_time(pid: i32) -> Option<std::time::Duration> {
    let output = spawn::tool("ps").args(["-o", "time=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (minutes, seconds) = text.trim().rsplit_once(':')?;
    let minutes: f64 = minutes.rsplit(':').next()?.parse().ok()?;
    Some(std::time::Duration::from_secs_f64(minutes * 60.0 + seconds.parse::<f64>().ok()?))
}

/// How much memory a process uses, in bytes: `ps` knows.
pub(super) fn memory(pid: i32) -> Option<u64> {
    let output = spawn::tool("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().ok()? * 1024)
}

/// The children of a process.
pub(super) fn children(parent: i32) -> Vec<i32> {
    all_pids().into_iter().filter(|pid| process_status(*pid).is_some_and(|status| status.parent == parent)).collect()
}

/// Every pid on the machine.
pub(super) fn all_pids() -> Vec<i32> {
    sys::all_pids()
}

/// The argument count, path, words and environment of a process, as the kernel stores them; `None` if
/// they may not be read. Source: `sysctl(3)`, `KERN_PROCARGS2`.
fn arguments(pid: i32) -> Option<(usize, Vec<Vec<u8>>)> {
    let raw = sys::sysctl(&mut [libc::CTL_KERN, libc::KERN_PROCARGS2, pid]).ok()?;
    let (count, rest) = raw.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_ne_bytes(*count)).ok()?;
    // The path of the program, then padding, then the words and the variables.
    let path_end = rest.iter().position(|byte| *byte == 0)?;
    let words_start = path_end + rest[path_end..].iter().position(|byte| *byte != 0)?;
    Some((count, rest[words_start..].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()))
}

/// The environment that the process was started with, NUL between variables; `None` if it may not be
/// read.
pub(super) fn environment(pid: i32) -> Option<Vec<u8>> {
    let (count, strings) = arguments(pid)?;
    Some(strings.get(count..)?.join(&0))
}

/// The command line, words joined by blanks; `None` if there is none.
pub(super) fn command_line(pid: i32) -> Option<String> {
    let (count, strings) = arguments(pid)?;
    Some(String::from_utf8_lossy(&strings.get(..count)?.join(&b' ')).into_owned())
}

/// The processes that listen on a TCP port, as far as we may see them. Without `-sTCP:LISTEN`, lsof
/// would return clients too.
pub(super) fn listeners(port: u16) -> Vec<i32> {
    let arguments = ["-nP", &format!("-iTCP:{port}"), "-sTCP:LISTEN", "-Fp"].map(std::ffi::OsString::from);
    let Ok(output) = spawn::tool("lsof").args(arguments).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.strip_prefix('p')?.parse().ok()).collect()
}

/// The addresses on which some processes listen by TCP, as far as we may see them.
pub(super) fn listens(pids: &[i32]) -> Vec<std::net::SocketAddr> {
    let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let arguments = ["-nP", "-a", "-p", &list, "-iTCP", "-sTCP:LISTEN", "-Fn"].map(std::ffi::OsString::from);
    let Ok(output) = spawn::tool("lsof").args(arguments).output() else { return Vec::new() };
    let address = |line: &str| match line.strip_prefix('n')?.split_once("*:") {
        Some((_, port)) => Some(std::net::SocketAddr::from(([0, 0, 0, 0], port.parse().ok()?))),
        None => line.strip_prefix('n')?.parse().ok(),
    };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(address).collect()
}

/// macOS has no subreapers: a descendant that leaves the session is found by its parents or not at all.
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(super) fn become_subreaper() -> io::Result<()> {
    Ok(())
}
