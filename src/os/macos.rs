//! macOS: processes from libproc and sysctl, sockets from lsof.

use std::fs::Metadata;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;

use super::status::{Listener, ProcessState, ProcessStatus};
use super::{spawn, sys, tool};

/// The most bytes that a program's arguments and environment may have (`ARG_MAX` in `<sys/syslimits.h>`).
const ARG_MAX: usize = 1024 * 1024;
/// Time limit for lsof, which can hang on an unresponsive network mount.
const LSOF_LIMIT: Duration = Duration::from_secs(2);

/// Returns an id of this boot of the machine (XNU `kern_sysctl.c`, `kern.bootsessionuuid`). `kern.boottime` would not
/// do: it changes whenever the clock is set.
pub(super) fn boot_id() -> io::Result<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = BOOT_ID.get() {
        return Ok(id);
    }
    let id = sys::sysctl_by_name(c"kern.bootsessionuuid", 64)?;
    let id = id.split(|byte| *byte == 0).next().unwrap_or_default();
    let id = String::from_utf8_lossy(id).into_owned();
    Ok(BOOT_ID.get_or_init(|| id))
}

/// Returns `None`: macOS does not report the processor of a thread.
pub(super) fn current_cpu() -> Option<usize> {
    None
}

/// Does nothing: macOS spreads threads itself and offers no such call.
pub(super) fn leave_cpu(_cpu: Option<usize>) {}

/// Returns the kernel's status of a process, zombies included; `None` if it does not exist. The start time is in
/// microseconds since 1970.
pub(super) fn process_status(pid: i32) -> io::Result<Option<ProcessStatus>> {
    let Some(info) = sys::pid_info::<libc::proc_bsdinfo>(pid, 1)? else { return Ok(None) };
    let name: Vec<u8> = info.pbi_comm.iter().take_while(|byte| **byte != 0).map(|byte| byte.cast_unsigned()).collect();
    let id = |id: u32| i32::try_from(id).map_err(io::Error::other);
    Ok(Some(ProcessStatus {
        name: String::from_utf8_lossy(&name).into_owned(),
        state: if info.pbi_status == libc::SZOMB { ProcessState::Dead } else { ProcessState::Alive },
        parent: id(info.pbi_ppid)?,
        group: id(info.pbi_pgid)?,
        // `getsid` fails for a zombie.
        session: nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).map_or(0, nix::unistd::Pid::as_raw),
        start_time: info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec,
    }))
}

/// Returns the CPU time that a process has used; `None` if the kernel does not report it.
pub(super) fn cpu_time(pid: i32) -> Option<Duration> {
    let info = sys::pid_info::<libc::proc_taskinfo>(pid, 0).ok()??;
    let (numerator, denominator) = sys::mach_timebase();
    let units = u128::from(info.pti_total_user) + u128::from(info.pti_total_system);
    let nanoseconds = units * u128::from(numerator) / u128::from(denominator);
    Some(Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
}

/// Returns the resident memory of a process in bytes; `None` if the kernel does not report it.
pub(super) fn memory(pid: i32) -> Option<u64> {
    Some(sys::pid_info::<libc::proc_taskinfo>(pid, 0).ok()??.pti_resident_size)
}

/// Returns the children of a process.
pub(super) fn children(parent: i32) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for pid in all_pids()? {
        if status_if_visible(pid)?.is_some_and(|status| status.parent == parent) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// Like [`process_status`]; also `None` for another user's process, which the kernel does not describe to us.
pub(super) fn status_if_visible(pid: i32) -> io::Result<Option<ProcessStatus>> {
    match process_status(pid) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(None),
        status => status,
    }
}

/// Returns every pid on the machine.
pub(super) fn all_pids() -> io::Result<Vec<i32>> {
    sys::all_pids()
}

/// Returns the argument count, and the arguments and environment of a process as the kernel stores them; `None` if they
/// may not be read. One call reads both: between two calls the process could execute another program. Source:
/// `sysctl(3)`, `KERN_PROCARGS2`.
fn arguments(pid: i32) -> Option<(usize, Vec<Vec<u8>>)> {
    let raw = sys::sysctl(&mut [libc::CTL_KERN, libc::KERN_PROCARGS2, pid], ARG_MAX).ok()?;
    let (count, rest) = raw.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_ne_bytes(*count)).ok()?;
    // The path of the program, then padding, then the arguments and the variables.
    let path_end = rest.iter().position(|byte| *byte == 0)?;
    let words_start = path_end + rest[path_end..].iter().position(|byte| *byte != 0)?;
    Some((count, rest[words_start..].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()))
}

/// Returns the environment that the process was started with, separated by NUL; `None` if it may not be read, as for
/// Apple's own programs (XNU `kern_sysctl.c`, `sysctl_procargsx`).
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(super) fn environment(pid: i32) -> io::Result<Option<Vec<u8>>> {
    Ok(arguments(pid).and_then(|(count, strings)| Some(strings.get(count..)?.join(&0))))
}

/// Returns `None`: macOS has no cheap way to find out whether a process has a file open.
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(super) fn has_open(_pid: i32, _file: &Metadata) -> io::Result<Option<bool>> {
    Ok(None)
}

/// Returns the command line with spaces between the words; `None` if there is none.
pub(super) fn command_line(pid: i32) -> Option<String> {
    let (count, strings) = arguments(pid)?;
    Some(String::from_utf8_lossy(&strings.get(..count)?.join(&b' ')).into_owned())
}

/// Runs lsof and returns its output. It is in `/usr/sbin`, which a short `PATH` lacks. It exits with 1 if it finds
/// nothing.
fn lsof(arguments: &[&str]) -> io::Result<String> {
    let standard = Path::new("/usr/sbin/lsof");
    let program = if standard.exists() { standard } else { Path::new("lsof") };
    let child = spawn::tool(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let finished = tool::finish(child, LSOF_LIMIT)?;
    if finished.status.is_none() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "lsof did not respond"));
    }
    Ok(String::from_utf8_lossy(&finished.output).into_owned())
}

/// Returns the sockets that listen on a TCP port, each with the processes that have it open. Sockets of other users may
/// be missing.
pub(super) fn holders(port: u16) -> io::Result<Vec<(Listener, Vec<i32>)>> {
    let mut holders: Vec<(Listener, Vec<i32>)> = Vec::new();
    for (pid, socket) in listening(&[&format!("-iTCP:{port}")])? {
        match holders.iter_mut().find(|(known, _)| known.id == socket.id) {
            Some((_, pids)) => pids.push(pid),
            None => holders.push((socket, vec![pid])),
        }
    }
    Ok(holders)
}

/// Returns the sockets on which these processes listen. Processes of other users may be missing.
pub(super) fn listens(pids: &[i32]) -> io::Result<Vec<Listener>> {
    if pids.is_empty() {
        return Ok(Vec::new());
    }
    let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Ok(listening(&["-a", "-p", &list, "-iTCP"])?.into_iter().map(|(_, socket)| socket).collect())
}

/// Returns every listening TCP socket. Those of other users may be missing.
pub(super) fn listening_sockets() -> io::Result<Vec<Listener>> {
    Ok(listening(&["-iTCP"])?.into_iter().map(|(_, socket)| socket).collect())
}

/// Returns none: connections without a listener keep no port from a bind with `SO_REUSEADDR`.
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(super) fn holders_without_listening(_port: u16) -> io::Result<Vec<(Listener, Vec<i32>)>> {
    Ok(Vec::new())
}

/// Returns `false`: closed connections keep no port from a bind with `SO_REUSEADDR`.
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(super) fn has_closing_connections(_port: u16) -> io::Result<bool> {
    Ok(false)
}

/// Returns `true`: macOS has no network namespaces.
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(super) fn sees_network_of(_pid: i32) -> io::Result<bool> {
    Ok(true)
}

/// Lists the listening sockets that lsof finds by these options, each with its process. Without `-sTCP:LISTEN`, lsof
/// would list clients too.
fn listening(options: &[&str]) -> io::Result<Vec<(i32, Listener)>> {
    Ok(parse_listening(&lsof(&[&["-nP", "-sTCP:LISTEN", "-Fpudtn"], options].concat())?))
}

/// Parses the output of `lsof -Fpudtn` (`lsof(8)`): lines `p` and `u` with the process and its user; then for each
/// socket `t` with `IPv4` or `IPv6`, `d` with the address of its control block, and `n` with the address, where `*` is
/// any.
fn parse_listening(output: &str) -> Vec<(i32, Listener)> {
    let (mut pid, mut uid, mut is_v6, mut id) = (0, 0, false, 0);
    let mut sockets = Vec::new();
    for line in output.lines() {
        let Some((field, value)) = line.split_at_checked(1) else { continue };
        match field {
            "p" => pid = value.parse().unwrap_or_default(),
            "u" => uid = value.parse().unwrap_or_default(),
            "t" => is_v6 = value == "IPv6",
            "d" => id = u64::from_str_radix(value.trim_start_matches("0x"), 16).unwrap_or_default(),
            "n" => {
                let any = if is_v6 { "[::]" } else { "0.0.0.0" };
                let address = value.replacen('*', any, 1).parse::<SocketAddr>();
                sockets.extend(address.map(|address| (pid, Listener { address, uid, id })));
            }
            _ => {}
        }
    }
    sockets
}

/// Returns the working directory of a process, and whether it was deleted; `None` if it may not be read.
pub(super) fn working_directory(pid: i32) -> Option<(PathBuf, bool)> {
    let output = lsof(&["-a", "-p", &pid.to_string(), "-d", "cwd", "-Fn"]).ok()?;
    let path = PathBuf::from(output.lines().find_map(|line| line.strip_prefix('n'))?);
    let is_deleted = !path.exists();
    Some((path, is_deleted))
}

/// Returns the wall-clock time of a [`ProcessStatus::start_time`]; `None` if it is out of range.
pub(super) fn start_moment(start_time: u64) -> Option<Timestamp> {
    Timestamp::from_microsecond(i64::try_from(start_time).ok()?).ok()
}

/// Does nothing: macOS has no subreapers. A descendant that leaves the session is found by its environment or not at
/// all.
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(super) fn become_subreaper() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_read_by_its_family() {
        let read = parse_listening(
            "p7\nu501\nf3\ntIPv4\nd0x1f\nn*:3000\nf4\ntIPv6\nd0x2f\nn*:3000\np8\nu0\nf3\ntIPv6\nd0x3f\nn[::1]:8080\n",
        );
        let expected = [(7, "0.0.0.0:3000", 501, 0x1f), (7, "[::]:3000", 501, 0x2f), (8, "[::1]:8080", 0, 0x3f)];
        let expected =
            expected.map(|(pid, address, uid, id)| (pid, Listener { address: address.parse().unwrap(), uid, id }));
        assert_eq!(read, expected);
    }
}
