//! Linux: processes and sockets, from `/proc` and netlink.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::clock;
use super::sock_diag;
use super::status::{Listener, ProcessState, ProcessStatus};

/// `TCP_LISTEN` (`tcp_states.h` of Linux).
const LISTEN: u8 = 10;
/// The states of a socket that a process has, apart from those that listen and those of [`CLOSING`]: `TCP_ESTABLISHED`,
/// `TCP_SYN_SENT`, `TCP_CLOSE`, `TCP_CLOSE_WAIT`, and `TCP_BOUND_INACTIVE` of Linux 6.8. A connection in `TCP_SYN_RECV`
/// belongs to a listener.
const OPEN: [u8; 5] = [1, 2, 7, 8, 13];
/// The states of a connection that the local side has closed: `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`, `TCP_TIME_WAIT`,
/// `TCP_LAST_ACK` and `TCP_CLOSING`.
const CLOSING: [u8; 5] = [4, 5, 6, 9, 11];

/// Reads a file of `/proc`. The kernel reports their sizes as 0, so `fs::read` reads them in small pieces, which takes up
/// to three times as long.
fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(4096);
    File::open(path)?.read_to_end(&mut content)?;
    Ok(content)
}

/// Returns an id of this boot of the machine (`random(4)`, `/proc/sys/kernel/random/boot_id`). It cannot change while
/// this process lives, so it is read once.
pub(super) fn boot_id() -> io::Result<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = BOOT_ID.get() {
        return Ok(id);
    }
    let id = String::from_utf8_lossy(&read("/proc/sys/kernel/random/boot_id")?).trim().to_owned();
    Ok(BOOT_ID.get_or_init(|| id))
}

/// Turns "no such process" into `None`. Every other error means that the state of the process is unknown.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Like [`unless_gone`], and turns "permission denied" into `None` too.
fn unless_hidden<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        result => unless_gone(result),
    }
}

/// Returns the processor that runs the calling thread; `None` if the kernel does not report it.
pub(super) fn current_cpu() -> Option<usize> {
    nix::sched::sched_getcpu().ok()
}

/// Moves the calling thread to a processor other than `cpu`, then lifts the restriction. Linux starts a new thread on
/// its parent's processor and, on an idle machine, was measured to leave it there for 2 to 4 ms.
pub(super) fn leave_cpu(cpu: Option<usize>) {
    let me = Pid::from_raw(0);
    let (Some(cpu), Ok(allowed)) = (cpu, sched_getaffinity(me)) else { return };
    let mut others = allowed;
    if others.unset(cpu).is_ok() && sched_setaffinity(me, &others).is_ok() {
        // The restriction only served the move.
        let _ = sched_setaffinity(me, &allowed);
    }
}

/// Returns the kernel's status of a process; `None` if it does not exist. The start time is in clock ticks since boot.
/// Source: `proc_pid_stat(5)`, fields 2 to 5, 20 and 22.
pub(super) fn process_status(pid: i32) -> io::Result<Option<ProcessStatus>> {
    let Some(stat) = unless_gone(read(format!("/proc/{pid}/stat")))? else { return Ok(None) };
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no known form"));
    parse_status(&String::from_utf8_lossy(&stat)).ok_or_else(unreadable).map(Some)
}

/// Parses `/proc/PID/stat`.
fn parse_status(stat: &str) -> Option<ProcessStatus> {
    // The name is in parentheses and may itself contain parentheses and spaces.
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let threads: u64 = fields.get(17)?.parse().ok()?;
    Some(ProcessStatus {
        name: name.to_owned(),
        state: match *fields.first()? {
            // A zombie with more than one thread has only lost its main thread. `next-server` shuts down that way and
            // still serves meanwhile.
            "Z" if threads > 1 => ProcessState::Alive,
            "Z" | "X" | "x" => ProcessState::Dead,
            _ => ProcessState::Alive,
        },
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// Returns the CPU time that a process has used. Source: `proc_pid_stat(5)`, fields 14 and 15.
pub(super) fn cpu_time(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(Duration::from_secs(ticks) / u32::try_from(per_second).ok()?)
}

/// Returns the memory of a process in bytes: its proportional set size, or its resident set size if `smaps_rollup` may
/// not be read. Source: `proc_pid_smaps(5)`, `proc_pid_statm(5)`.
pub(super) fn memory(pid: i32) -> Option<u64> {
    let kilobytes = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix(" kB")?.parse().ok();
        line.map(|kilobytes: u64| kilobytes * 1024)
    };
    let pages = || -> Option<u64> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * u64::try_from(size).ok()?)
    };
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(kilobytes).or_else(pages)
}

/// Returns the children of all threads of a process; none if it is gone. The kernel may omit a child while others start
/// and exit, but an empty list is reliable. Source: `proc_tid_children(5)`.
pub(super) fn children(pid: i32) -> io::Result<Vec<i32>> {
    let Some(threads) = unless_gone(fs::read_dir(format!("/proc/{pid}/task")))? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for thread in threads {
        let Some(thread) = unless_gone(thread)? else { continue };
        match unless_gone(read(thread.path().join("children")))? {
            Some(list) => found.extend(
                String::from_utf8_lossy(&list).split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()),
            ),
            // The kernel lacks CONFIG_PROC_CHILDREN, unless the thread has ended: then it has no children.
            None if unless_gone(fs::metadata(thread.path()))?.is_some() => return children_by_scan(pid),
            None => {}
        }
    }
    Ok(found)
}

/// Returns the children of a process where the kernel has no list of them.
fn children_by_scan(parent: i32) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for pid in all_pids()? {
        if process_status(pid)?.is_some_and(|status| status.parent == parent) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// Returns every pid on the machine.
pub(super) fn all_pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// Returns the `/proc` directories that show the memory and files of a process: its own, or those of its threads if the
/// main thread has exited, because its own directory is empty then.
fn views_of(pid: i32) -> io::Result<Vec<PathBuf>> {
    let own = PathBuf::from(format!("/proc/{pid}"));
    let leader = unless_gone(read(own.join("stat")))?.unwrap_or_default();
    let is_zombie = String::from_utf8_lossy(&leader).rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z"));
    if !is_zombie {
        return Ok(vec![own]);
    }
    let Some(threads) = unless_gone(fs::read_dir(own.join("task")))? else { return Ok(Vec::new()) };
    let mut views = Vec::new();
    for thread in threads {
        views.extend(unless_gone(thread)?.map(|thread| thread.path()));
    }
    Ok(views)
}

/// Returns the environment that the process was started with, separated by NUL; `None` if the process is gone or its
/// environment may not be read.
pub(super) fn environment(pid: i32) -> io::Result<Option<Vec<u8>>> {
    let own = unless_hidden(read(format!("/proc/{pid}/environ")))?;
    // A process whose main thread has exited shows an empty environment, or none since Linux 6.18.
    if own.as_ref().is_some_and(|environment| !environment.is_empty()) {
        return Ok(own);
    }
    for view in views_of(pid)? {
        let environment = unless_hidden(read(view.join("environ")))?;
        if environment.as_ref().is_some_and(|environment| !environment.is_empty()) {
            return Ok(environment);
        }
    }
    Ok(own)
}

/// Returns whether a process has a file open; `None` if its descriptors may not be read.
pub(super) fn has_open(pid: i32, file: &Metadata) -> io::Result<Option<bool>> {
    let Some(descriptors) = unless_hidden(fs::read_dir(format!("/proc/{pid}/fd")))? else { return Ok(None) };
    for descriptor in descriptors {
        let Some(descriptor) = unless_gone(descriptor)? else { continue };
        // `metadata` follows the link to the open file itself, even if the file was renamed or deleted.
        let open = unless_hidden(fs::metadata(descriptor.path()))?;
        if open.is_some_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino())) {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

/// Returns the working directory of a process, and whether it was deleted; `None` if it may not be read.
pub(super) fn working_directory(pid: i32) -> Option<(PathBuf, bool)> {
    let link = PathBuf::from(format!("/proc/{pid}/cwd"));
    let path = fs::read_link(&link).ok()?;
    // The kernel appends this to the path of a deleted directory. A directory may also have such a name.
    let Some(deleted) = path.as_os_str().as_bytes().strip_suffix(b" (deleted)") else { return Some((path, false)) };
    let id = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    if id(&path).is_some_and(|named| Some(named) == id(&link)) {
        return Some((path, false));
    }
    Some((PathBuf::from(OsStr::from_bytes(deleted)), true))
}

/// Returns the wall-clock time of a [`ProcessStatus::start_time`]; `None` if the kernel does not report its clock.
pub(super) fn start_moment(start_time: u64) -> Option<Timestamp> {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let started = Duration::from_millis(start_time.checked_mul(1000)? / u64::try_from(per_second).ok()?);
    // Like the start time, this clock counts the time in which the machine was suspended (`clock_gettime(2)`).
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)?;
    clock::wall().checked_sub(up.checked_sub(started)?).ok()
}

/// Returns the command line with spaces between the words; `None` if there is none.
pub(super) fn command_line(pid: i32) -> Option<String> {
    let words = read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = String::from_utf8_lossy(&words);
    let line = words.trim_end_matches('\0').replace('\0', " ");
    (!line.is_empty()).then_some(line)
}

/// Returns the sockets that listen on a TCP port, each with the processes that have it open. Processes of other users
/// may be missing.
pub(super) fn holders(port: u16) -> io::Result<Vec<(Listener, Vec<i32>)>> {
    with_processes(sockets_on(port, &[LISTEN])?)
}

/// Returns the sockets that processes have on a TCP port without listening, each with those processes. A socket that no
/// process has open any more has no inode, such as one in `TIME_WAIT`; one that is only half closed has one.
pub(super) fn holders_without_listening(port: u16) -> io::Result<Vec<(Listener, Vec<i32>)>> {
    let mut sockets = sockets_on(port, &[&OPEN[..], &CLOSING].concat())?;
    sockets.retain(|socket| socket.id != 0);
    with_processes(sockets)
}

/// Adds to each socket the processes that have it open.
fn with_processes(sockets: Vec<Listener>) -> io::Result<Vec<(Listener, Vec<i32>)>> {
    let mut holders: Vec<(Listener, Vec<i32>)> = sockets.into_iter().map(|socket| (socket, Vec::new())).collect();
    if holders.is_empty() {
        return Ok(holders);
    }
    for pid in all_pids()? {
        let open = socket_inodes(pid)?;
        for (socket, pids) in &mut holders {
            if open.contains(&socket.id) {
                pids.push(pid);
            }
        }
    }
    Ok(holders)
}

/// Returns the sockets on which these processes listen. Processes of other users may be missing.
pub(super) fn listens(pids: &[i32]) -> io::Result<Vec<Listener>> {
    let sockets = listening_sockets()?;
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let mut open = HashSet::new();
    for pid in pids {
        open.extend(socket_inodes(*pid)?);
    }
    Ok(sockets.into_iter().filter(|socket| open.contains(&socket.id)).collect())
}

/// Returns the inodes of a process's open sockets; none if it is gone or may not be read.
fn socket_inodes(pid: i32) -> io::Result<Vec<u64>> {
    let inode = |link: &Path| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok();
    let mut inodes = Vec::new();
    for view in views_of(pid)? {
        let Some(descriptors) = unless_hidden(fs::read_dir(view.join("fd")))? else { continue };
        for descriptor in descriptors {
            let Some(descriptor) = unless_hidden(descriptor)? else { continue };
            inodes.extend(unless_hidden(fs::read_link(descriptor.path()))?.and_then(|link| inode(&link)));
        }
    }
    Ok(inodes)
}

/// Returns whether a process is in the network namespace of this one: only its sockets are listed
/// (`network_namespaces(7)`).
pub(super) fn sees_network_of(pid: i32) -> io::Result<bool> {
    Ok(fs::read_link("/proc/self/ns/net")? == fs::read_link(format!("/proc/{pid}/ns/net"))?)
}

/// Returns every listening TCP socket.
pub(super) fn listening_sockets() -> io::Result<Vec<Listener>> {
    sockets_in(&[LISTEN])
}

/// Returns whether the port has connections that its server has closed, and that the kernel keeps for up to a minute.
pub(super) fn has_closing_connections(port: u16) -> io::Result<bool> {
    Ok(!sockets_on(port, &CLOSING)?.is_empty())
}

/// Returns every socket on a local TCP port that is in one of these states.
fn sockets_on(port: u16, states: &[u8]) -> io::Result<Vec<Listener>> {
    let mut sockets = sockets_in(states)?;
    sockets.retain(|socket| socket.address.port() == port);
    Ok(sockets)
}

/// Returns every TCP socket that is in one of these states.
fn sockets_in(states: &[u8]) -> io::Result<Vec<Listener>> {
    sock_diag::sockets_in(states).or_else(|_| sockets_of_proc(states))
}

/// Reads the sockets in these states from text tables, where netlink is missing. Source: `proc_pid_net(5)`.
fn sockets_of_proc(states: &[u8]) -> io::Result<Vec<Listener>> {
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // The second table is missing on a machine without IPv6.
        let Some(table) = unless_gone(fs::read_to_string(table))? else { continue };
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(state), Some(uid), Some(inode)) =
                (fields.get(1), fields.get(3), fields.get(7), fields.get(9))
            else {
                continue;
            };
            if !u8::from_str_radix(state, 16).is_ok_and(|state| states.contains(&state)) {
                continue;
            }
            if let (Some(address), Ok(uid), Ok(id)) = (socket_address(local), uid.parse(), inode.parse()) {
                sockets.push(Listener { address, uid, id });
            }
        }
    }
    Ok(sockets)
}

/// Parses an address of `/proc/net/tcp`: 32-bit words in the machine's byte order, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

/// Makes orphaned descendants children of this process (`PR_SET_CHILD_SUBREAPER(2const)`).
pub(super) fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_dead_only_when_its_last_thread_is() {
        let state = |letter: &str, threads: u32| {
            let stat = format!("7 (a) b) {letter} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 4711 0 0");
            let status = parse_status(&stat).unwrap();
            assert_eq!((status.name.as_str(), status.parent, status.group, status.start_time), ("a) b", 1, 7, 4711));
            status.state
        };
        assert_eq!(state("Z", 1), ProcessState::Dead);
        assert_eq!(state("X", 1), ProcessState::Dead);
        assert_eq!(state("Z", 2), ProcessState::Alive);
        assert_eq!(state("T", 1), ProcessState::Alive);
        assert!(parse_status("7 (a").is_none());
    }

    #[test]
    fn only_a_missing_process_is_gone() {
        let from = |code: i32| unless_gone::<()>(Err(io::Error::from_raw_os_error(code)));
        assert!(matches!((from(libc::ENOENT), from(libc::ESRCH)), (Ok(None), Ok(None))));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EIO, libc::EACCES] {
            assert!(from(code).is_err(), "{code}");
        }
    }

    #[test]
    fn netlink_and_proc_see_the_same_sockets() {
        let listeners =
            ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"].map(|address| std::net::TcpListener::bind(address).unwrap());
        for listener in listeners {
            let address = listener.local_addr().unwrap();
            let find = |sockets: Vec<Listener>| {
                sockets.into_iter().find(|socket| socket.address.port() == address.port()).unwrap()
            };
            assert_eq!(find(sock_diag::sockets_in(&[LISTEN]).unwrap()), find(sockets_of_proc(&[LISTEN]).unwrap()));
            // The connection ends in TIME_WAIT.
            let client = std::net::TcpStream::connect(address).unwrap();
            drop(listener.accept().unwrap());
            drop(client);
            assert_eq!(find(sock_diag::sockets_in(&CLOSING).unwrap()), find(sockets_of_proc(&CLOSING).unwrap()));
        }
    }
}
