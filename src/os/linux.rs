//! Linux: what `/proc` knows of processes and sockets.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::process::{ProcessState, ProcessStatus};
use super::sock_diag;

/// Identifies this boot of the machine. Source: `random(4)`, `/proc/sys/kernel/random/boot_id`.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The processor that runs the calling thread; `None` if the kernel does not say.
pub(super) fn current_cpu() -> Option<usize> {
    nix::sched::sched_getcpu().ok()
}

/// Moves the calling thread to another processor than the given one, if it may use one, and lets it go
/// anywhere from there. A new thread begins where its parent runs, and on a machine that is asked for
/// nothing else it was seen to stay there for 2 to 4 ms.
pub(super) fn leave_cpu(cpu: Option<usize>) {
    let me = Pid::from_raw(0);
    let (Some(cpu), Ok(allowed)) = (cpu, sched_getaffinity(me)) else { return };
    let mut others = allowed;
    if others.unset(cpu).is_ok() && sched_setaffinity(me, &others).is_ok() {
        // It only was about the move.
        let _ = sched_setaffinity(me, &allowed);
    }
}

/// What the kernel says of a process; `None` if there is none. The start time is in clock ticks since
/// boot. Source: `proc_pid_stat(5)`, fields 2 to 5 and 22.
pub(super) fn process_status(pid: i32) -> Option<ProcessStatus> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name stands in parentheses and may itself hold parentheses and spaces.
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(ProcessStatus {
        name: name.to_owned(),
        state: match *fields.first()? {
            "Z" | "X" | "x" => ProcessState::Dead,
            _ => ProcessState::Alive,
        },
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// How much of processors' time a process has used. Source: `proc_pid_stat(5)`, fields 14 and 15.
pub(super) fn cpu_time(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(Duration::from_secs(ticks) / u32::try_from(per_second).ok()?)
}

/// How much memory a process uses, in bytes: its proportional set size, or all that it has in memory where
/// that may not be asked. Source: `proc_pid_smaps(5)`, `proc_pid_statm(5)`.
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

/// The children of a process, of all its threads.
pub(super) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // A kernel without CONFIG_PROC_CHILDREN; a thread that has ended has no children either way.
            Err(error) if error.kind() == io::ErrorKind::NotFound && thread.path().exists() => {
                return children_by_scan(pid);
            }
            Err(_) => {}
        }
    }
    found
}

/// The children of a process on a kernel that does not list them.
fn children_by_scan(parent: i32) -> Vec<i32> {
    all_pids().into_iter().filter(|pid| process_status(*pid).is_some_and(|status| status.parent == parent)).collect()
}

/// Every pid on the machine.
pub(super) fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The environment that the process was started with, NUL between variables; `None` if it may not be
/// read.
pub(super) fn environment(pid: i32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

/// The command line, words joined by blanks; `None` if there is none.
pub(super) fn command_line(pid: i32) -> Option<String> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = String::from_utf8_lossy(&words);
    let line = words.trim_end_matches('\0').replace('\0', " ");
    (!line.is_empty()).then_some(line)
}

/// The processes that listen on a TCP port, as far as we may see them, lowest pid first.
pub(super) fn listeners(port: u16) -> Vec<i32> {
    let sockets: HashSet<u64> =
        listening_sockets().into_iter().filter(|(address, _)| address.port() == port).map(|(_, inode)| inode).collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut pids = all_pids();
    pids.sort_unstable();
    pids.retain(|pid| socket_inodes(*pid).iter().any(|inode| sockets.contains(inode)));
    pids
}

/// The addresses on which some processes listen by TCP, as far as we may see them.
pub(super) fn listens(pids: &[i32]) -> Vec<SocketAddr> {
    let sockets = listening_sockets();
    if sockets.is_empty() {
        return Vec::new();
    }
    let open: HashSet<u64> = pids.iter().flat_map(|pid| socket_inodes(*pid)).collect();
    sockets.into_iter().filter(|(_, inode)| open.contains(inode)).map(|(address, _)| address).collect()
}

/// The inodes of the sockets that a process has open.
fn socket_inodes(pid: i32) -> Vec<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let inode = |link: &Path| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).filter_map(|link| inode(&link)).collect()
}

/// Every socket that listens by TCP: its address and its inode.
fn listening_sockets() -> Vec<(SocketAddr, u64)> {
    sock_diag::listening_sockets().unwrap_or_else(|_| listening_sockets_of_proc())
}

/// The same where there is no netlink. Source: `proc_pid_net(5)`; state 0A is LISTEN.
fn listening_sockets_of_proc() -> Vec<(SocketAddr, u64)> {
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(table) = fs::read_to_string(table) else { continue };
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(&"0A"), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else {
                continue;
            };
            if let (Some(address), Ok(inode)) = (socket_address(local), inode.parse()) {
                sockets.push((address, inode));
            }
        }
    }
    sockets
}

/// An address as the kernel writes it: words of 32 bits in the machine's byte order, then the port.
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

/// Makes orphaned descendants children of this process. Source: `PR_SET_CHILD_SUBREAPER(2const)`.
pub(super) fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netlink_and_proc_see_the_same_sockets() {
        let listeners =
            ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"].map(|address| std::net::TcpListener::bind(address).unwrap());
        for listener in listeners {
            let address = listener.local_addr().unwrap();
            let find =
                |sockets: Vec<(SocketAddr, u64)>| sockets.into_iter().find(|(there, _)| *there == address).unwrap();
            assert_eq!(find(sock_diag::listening_sockets().unwrap()), find(listening_sockets_of_proc()));
        }
    }
}
