//! System calls that neither the standard library nor nix wraps safely. The only file with `unsafe` code.

#![expect(unsafe_code, reason = "system calls without a safe wrapper; each block says why it is sound")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};

/// How a signal is sent, which the process that receives it can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalOrigin {
    /// Sent by `kill(2)`: `si_code` is `SI_USER`.
    Kill,
    /// Sent by `sigqueue(3)`: `si_code` is `SI_QUEUE`.
    Queue,
}

/// Whether the child gets a controlling terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ControllingTerminal {
    /// Its standard input, a pseudo-terminal.
    StandardInput,
    /// It gets none.
    None,
}

#[cfg_attr(
    target_os = "macos",
    expect(clippy::cast_lossless, reason = "TIOCSCTTY is a u32 there and a u64 here; `into` would be useless here")
)]
/// Makes the child leader of a new session with default signal dispositions. On Linux the kernel kills it when the
/// thread that starts it ends: `PR_SET_PDEATHSIG` is about threads, not processes.
pub(super) fn lead_own_session(command: &mut Command, terminal: ControllingTerminal) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        nix::unistd::setsid()?;
        if terminal == ControllingTerminal::StandardInput {
            // SAFETY: TIOCSCTTY takes an integer and touches no memory.
            nix::errno::Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY as _, 0) })?;
        }
        reset_signals()?;
        die_with_parent(parent)?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made (setsid, ioctl, rt_sigaction or signal,
    // sigemptyset, sigprocmask, prctl, getppid), nothing is allocated, and no lock is taken.
    unsafe { command.pre_exec(prepare) };
}

/// Makes the program leader of a new session without a terminal, so that it can outlive this process.
pub(super) fn detach_session(command: &mut Command) {
    let prepare = || {
        nix::unistd::setsid()?;
        reset_signals()?;
        Ok(())
    };
    // SAFETY: as in `lead_own_session`.
    unsafe { command.pre_exec(prepare) };
}

/// Returns whether this process ignores a signal.
pub(super) fn is_ignored(signal: i32) -> bool {
    let mut current = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, sigaction(2) only writes the current one, and initialises it if it returns 0.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), current.as_mut_ptr()) == 0
            && current.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Gives every signal its default disposition and unblocks all: exec(3) keeps ignored and blocked signals.
fn reset_signals() -> io::Result<()> {
    for number in 1..=LAST_SIGNAL {
        reset_signal(number);
    }
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Gives one signal its default disposition by the kernel's own call: glibc's `sigaction` refuses the two real-time
/// signals that it uses itself (`rt_sigaction(2)`).
#[cfg(target_os = "linux")]
fn reset_signal(number: i32) {
    // SAFETY: a kernel sigaction of zeros (at most 32 bytes) is SIG_DFL without flags and is only read. The kernel
    // refuses signals that cannot be changed (SIGKILL, SIGSTOP), which is harmless.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, number, [0_u64; 4].as_ptr(), std::ptr::null_mut::<u64>(), 8_usize);
    }
}

/// Gives one signal its default disposition.
#[cfg(target_os = "macos")]
fn reset_signal(number: i32) {
    // SAFETY: SIG_DFL is always a valid disposition. The kernel refuses signals that cannot be changed.
    unsafe { libc::signal(number, libc::SIG_DFL) };
}

/// The highest signal number, SIGRTMAX.
#[cfg(target_os = "linux")]
const LAST_SIGNAL: i32 = 64;
/// The highest signal number: macOS has no real-time signals.
#[cfg(target_os = "macos")]
const LAST_SIGNAL: i32 = 31;

/// Makes the kernel kill this process when its parent ends (`PR_SET_PDEATHSIG(2const)`). The parent may have ended
/// before the call, so it is checked afterwards.
#[cfg(target_os = "linux")]
fn die_with_parent(parent: nix::unistd::Pid) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// Does nothing: macOS has no such call. The hang-up of the pseudo-terminal ends most programs there.
#[cfg(target_os = "macos")]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
fn die_with_parent(_parent: nix::unistd::Pid) -> io::Result<()> {
    Ok(())
}

/// Returns whether `sigqueue(3)` sent a signal.
#[cfg(target_os = "linux")]
fn is_queued(info: &libc::siginfo_t) -> bool {
    info.si_code == libc::SI_QUEUE
}

/// Returns `false`: macOS has no `sigqueue(3)`.
#[cfg(target_os = "macos")]
fn is_queued(_info: &libc::siginfo_t) -> bool {
    false
}

/// Counts each arrival of a signal that was not sent by `sigqueue(3)` (`sigaction(2)`, `SI_QUEUE`).
pub(super) fn count_sent(signal: i32, counter: Arc<AtomicUsize>) -> io::Result<()> {
    let count = move |info: &libc::siginfo_t| {
        if !is_queued(info) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    };
    // SAFETY: the handler only changes an atomic number, which is async-signal-safe.
    unsafe { signal_hook_registry::register_sigaction(signal, count) }?;
    Ok(())
}

/// Ignores a signal in this process. Children get the default disposition back.
pub(super) fn ignore_signal(signal: Signal) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no handler.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }?;
    Ok(())
}

/// Returns the size of a terminal.
pub(super) fn window_size(terminal: impl AsFd) -> io::Result<libc::winsize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which `size` is.
    nix::errno::Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Sets the size of a terminal; the kernel sends SIGWINCH to its foreground process group if it changed.
pub(super) fn set_window_size(terminal: impl AsFd, size: libc::winsize) -> io::Result<()> {
    // SAFETY: TIOCSWINSZ reads one winsize, which `size` is.
    nix::errno::Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// Opens a descriptor that refers to this process even after its pid was reused (`pidfd_open(2)`).
#[cfg(target_os = "linux")]
pub(super) fn pidfd_open(pid: i32) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes two integers.
    let fd = nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just created this descriptor, and nothing else owns it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process that a pidfd refers to (`pidfd_send_signal(2)`).
#[cfg(target_os = "linux")]
pub(super) fn pidfd_send_signal(pidfd: &std::os::fd::OwnedFd, signal: i32, origin: SignalOrigin) -> io::Result<()> {
    // SAFETY: a siginfo of zeros is valid; it is filled as `sigqueue(3)` does before it is used.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    (info.si_signo, info.si_code) = (signal, libc::SI_QUEUE);
    let info = if origin == SignalOrigin::Queue { &raw const info } else { std::ptr::null() };
    // SAFETY: `info` is null, which means the same as kill(2), or points to a whole siginfo that outlives the call.
    nix::errno::Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0)
    })?;
    Ok(())
}

/// Sends a signal by number to a process, or to a process group if `pid` is negative. nix has no real-time signals.
pub(super) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes two integers.
    nix::errno::Errno::result(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Reaps one child that has ended, the one with this pid, or any for -1; returns its pid and raw status, or `None` if
/// there is none. nix's `waitpid` would reap a child that a real-time signal killed, and return an error.
pub(super) fn reap(pid: i32) -> Option<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid writes one integer, which `status` is.
        match nix::errno::Errno::result(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) }) {
            Ok(0) => return None,
            Ok(pid) => return Some((pid, status)),
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Returns freed heap pages to the system: a supervisor idles for days after its start-up.
pub(crate) fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) only releases memory that is already free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Reads one kernel structure about a process (`proc_pidinfo` in `<sys/proc_info.h>`); `None` if there is no such
/// process.
///
/// `argument` 1 with `PROC_PIDTBSDINFO` finds zombies too (XNU `proc_info.c`, `findzomb`).
#[cfg(target_os = "macos")]
pub(super) fn pid_info<T: PidInfo>(pid: i32, argument: u64) -> io::Result<Option<T>> {
    let mut info = std::mem::MaybeUninit::<T>::zeroed();
    let size = i32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the buffer has the size that is passed, and is valid for writes.
    let written = unsafe { libc::proc_pidinfo(pid, T::FLAVOR, argument, info.as_mut_ptr().cast(), size) };
    if written == size {
        // SAFETY: every bit pattern is a valid value of these plain structures, and the kernel has filled all of it.
        return Ok(Some(unsafe { info.assume_init() }));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) }
}

/// A plain structure of `<sys/proc_info.h>` that `proc_pidinfo` fills.
#[cfg(target_os = "macos")]
pub(super) trait PidInfo {
    /// The `flavor` argument of `proc_pidinfo`.
    const FLAVOR: i32;
}

#[cfg(target_os = "macos")]
impl PidInfo for libc::proc_bsdinfo {
    const FLAVOR: i32 = libc::PROC_PIDTBSDINFO;
}

#[cfg(target_os = "macos")]
impl PidInfo for libc::proc_taskinfo {
    const FLAVOR: i32 = libc::PROC_PIDTASKINFO;
}

/// Returns the length of a unit of Mach time in nanoseconds, as a fraction.
#[cfg(target_os = "macos")]
#[expect(deprecated, reason = "libc points to another crate for these two; the system call is not deprecated")]
pub(super) fn mach_timebase() -> (u32, u32) {
    let mut base = libc::mach_timebase_info { numer: 0, denom: 0 };
    // SAFETY: mach_timebase_info writes one structure, which `base` is.
    unsafe { libc::mach_timebase_info(&raw mut base) };
    (base.numer, base.denom.max(1))
}

/// Returns every pid on the machine (`proc_listallpids` in `<libproc.h>`).
#[cfg(target_os = "macos")]
pub(super) fn all_pids() -> io::Result<Vec<i32>> {
    let mut pids = vec![0_i32; 65_536];
    let bytes = i32::try_from(pids.len() * size_of::<i32>()).map_err(io::Error::other)?;
    // SAFETY: the buffer has the size that is passed, and is valid for writes.
    let count = unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), bytes) };
    // 0 is an error too: there is at least this process.
    pids.truncate(usize::try_from(count).ok().filter(|count| *count > 0).ok_or_else(io::Error::last_os_error)?);
    Ok(pids)
}

/// Reads a sysctl by its numbers into a buffer of at most `limit` bytes. Source: `sysctl(3)`.
#[cfg(target_os = "macos")]
pub(super) fn sysctl(name: &mut [i32], limit: usize) -> io::Result<Vec<u8>> {
    let mut size = limit;
    let mut value = vec![0_u8; limit];
    let count = u32::try_from(name.len()).map_err(io::Error::other)?;
    // SAFETY: the buffer has the size that is passed, and is valid for writes.
    nix::errno::Errno::result(unsafe {
        libc::sysctl(name.as_mut_ptr(), count, value.as_mut_ptr().cast(), &raw mut size, std::ptr::null_mut(), 0)
    })?;
    value.truncate(size);
    Ok(value)
}

/// Reads a sysctl by its name into a buffer of at most `limit` bytes. Source: `sysctlbyname(3)`.
#[cfg(target_os = "macos")]
pub(super) fn sysctl_by_name(name: &std::ffi::CStr, limit: usize) -> io::Result<Vec<u8>> {
    let mut size = limit;
    let mut value = vec![0_u8; limit];
    // SAFETY: the name ends with NUL; the buffer has the size that is passed, and is valid for writes.
    nix::errno::Errno::result(unsafe {
        libc::sysctlbyname(name.as_ptr(), value.as_mut_ptr().cast(), &raw mut size, std::ptr::null_mut(), 0)
    })?;
    value.truncate(size);
    Ok(value)
}

/// Waits until a child has ended without reaping it. For tests: nix has no `waitid` on macOS.
#[cfg(test)]
pub(super) fn wait_without_reaping(pid: i32) -> io::Result<()> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: waitid writes one siginfo, for which there is room.
    nix::errno::Errno::result(unsafe {
        libc::waitid(libc::P_PID, pid.unsigned_abs(), info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT)
    })?;
    Ok(())
}
