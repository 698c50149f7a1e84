//! TCP ports: whether one is free, and which processes listen.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, setsockopt, socket, sockopt,
};

use super::status::Listener;
use super::{platform, process};

/// What uses a port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PortUse {
    Free,
    /// A program listens, has bound the port, or has an open connection on it. These are its processes, without children
    /// that have its socket; those of other users may be missing.
    Taken(Vec<i32>),
    /// No program has a socket on the port. A server without `SO_REUSEADDR` closed connections, which block it for about
    /// a minute.
    Closing,
}

/// Returns what uses a port.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn port_use(port: u16) -> io::Result<PortUse> {
    if is_free(port)? {
        return Ok(PortUse::Free);
    }
    let mut holders = holders(port)?;
    if holders.is_empty() {
        holders = platform::holders_without_listening(port)?;
    }
    if holders.is_empty() && platform::has_closing_connections(port)? {
        return Ok(PortUse::Closing);
    }
    Ok(PortUse::Taken(pids_of(holders)?))
}

/// Returns whether a server could bind the port on every local address.
///
/// `SO_REUSEADDR` makes the check ignore connections in `TIME_WAIT`. On Linux it does so only if their server set it
/// too, and it ignores nothing else: one dual-stack bind conflicts with a listener on any address, v4 or v6. On macOS a
/// bind conflicts only with listeners on exactly its address (XNU `in_pcb.c`), so four addresses are tried. If a bind
/// without `SO_REUSEADDR` fails there too, lsof decides.
///
/// # Errors
/// If no socket can be created, as when this process has too many open files.
pub(crate) fn is_free(port: u16) -> io::Result<bool> {
    let candidates: &[BindCandidate] = if cfg!(target_os = "linux") {
        &[BindCandidate::AnyDual]
    } else {
        &[BindCandidate::AnyV4, BindCandidate::LocalV4, BindCandidate::AnyV6, BindCandidate::LocalV6]
    };
    for candidate in candidates {
        if !candidate.is_free(port, ReuseAddress::Yes)? {
            return Ok(false);
        }
    }
    let is_strictly_free = cfg!(target_os = "linux")
        || (BindCandidate::AnyV4.is_free(port, ReuseAddress::No)?
            && BindCandidate::AnyV6.is_free(port, ReuseAddress::No)?);
    Ok(is_strictly_free || listeners(port)?.is_empty())
}

/// Returns the processes that listen on a TCP port, without those that have the socket from their parent. Processes of
/// other users may be missing.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn listeners(port: u16) -> io::Result<Vec<i32>> {
    pids_of(holders(port)?)
}

/// Returns the processes that opened any of these sockets, each once.
fn pids_of(holders: Vec<(Listener, Vec<i32>)>) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for (_, holders) in holders {
        pids.extend(openers(&holders)?);
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Returns which of the processes that have one socket open do not have it from their parent.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn openers(pids: &[i32]) -> io::Result<Vec<i32>> {
    let mut openers = Vec::with_capacity(pids.len());
    for pid in pids {
        if !process::parent(*pid)?.is_some_and(|parent| pids.contains(&parent)) {
            openers.push(*pid);
        }
    }
    Ok(openers)
}

/// Returns the sockets that listen on a TCP port, each with the processes that have it open. A socket of another user
/// may have none, because its processes cannot be seen.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn holders(port: u16) -> io::Result<Vec<(Listener, Vec<i32>)>> {
    platform::holders(port)
}

/// Returns every listening TCP socket of this machine.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn all() -> io::Result<Vec<Listener>> {
    platform::listening_sockets()
}

/// Returns the sockets on which any of these processes listens, sorted by port and address.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn listens(pids: &[i32]) -> io::Result<Vec<Listener>> {
    let mut sockets = platform::listens(pids)?;
    sockets.sort_unstable_by_key(|socket| (socket.address.port(), socket.address, socket.id));
    sockets.dedup();
    Ok(sockets)
}

/// Returns the addresses of sockets without duplicates: with `SO_REUSEPORT` several sockets have one. The sockets are
/// sorted by address.
pub(crate) fn addresses(sockets: &[Listener]) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = sockets.iter().map(|socket| socket.address).collect();
    addresses.dedup();
    addresses
}

/// Returns whether this process sees the sockets of another one. It does not if they are in different network
/// namespaces, as in a sandbox.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn sees_network_of(pid: i32) -> io::Result<bool> {
    platform::sees_network_of(pid)
}

/// Starts to connect to a port of this machine without waiting. The socket becomes writable once it is connected.
///
/// # Errors
/// The error of the system call; the connection may be refused at once.
pub(crate) fn connect(port: u16, v6: bool) -> io::Result<TcpStream> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = stream_socket(family)?;
    super::terminal::set_nonblocking(&fd)?;
    let connected = if v6 {
        connect_to(&fd, &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0)))
    } else {
        connect_to(&fd, &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))
    };
    match connected {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd.into()),
        Err(error) => Err(error.into()),
    }
}

fn connect_to(socket: &OwnedFd, address: &dyn SockaddrLike) -> nix::Result<()> {
    nix::sys::socket::connect(socket.as_raw_fd(), address)
}

/// An address that a port check binds.
#[derive(Debug, Clone, Copy)]
enum BindCandidate {
    /// `::`, v4 included.
    AnyDual,
    /// `::`, v6 only.
    AnyV6,
    /// `::1`.
    LocalV6,
    /// `0.0.0.0`.
    AnyV4,
    /// `127.0.0.1`.
    LocalV4,
}

/// Whether a bind ignores connections in `TIME_WAIT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReuseAddress {
    Yes,
    No,
}

impl BindCandidate {
    /// Returns whether the address can be bound. On a machine without IPv6, `0.0.0.0` decides.
    fn is_free(self, port: u16, reuse: ReuseAddress) -> io::Result<bool> {
        match self.bind(port, reuse) {
            Ok(()) => Ok(true),
            Err(Errno::EADDRINUSE) => Ok(false),
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => match Self::AnyV4.bind(port, reuse) {
                Ok(()) => Ok(true),
                Err(Errno::EADDRINUSE) => Ok(false),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Binds a socket to the address and closes it.
    fn bind(self, port: u16, reuse: ReuseAddress) -> nix::Result<()> {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let v6 = |address| SockaddrIn6::from(SocketAddrV6::new(address, port, 0, 0));
        let v4 = |address| SockaddrIn::from(SocketAddrV4::new(address, port));
        let (inet, inet6) = (AddressFamily::Inet, AddressFamily::Inet6);
        match self {
            Self::AnyDual => bind_once(inet6, Some(false), &v6(Ipv6Addr::UNSPECIFIED), reuse),
            Self::AnyV6 => bind_once(inet6, Some(true), &v6(Ipv6Addr::UNSPECIFIED), reuse),
            Self::LocalV6 => bind_once(inet6, Some(true), &v6(Ipv6Addr::LOCALHOST), reuse),
            Self::AnyV4 => bind_once(inet, None, &v4(Ipv4Addr::UNSPECIFIED), reuse),
            Self::LocalV4 => bind_once(inet, None, &v4(Ipv4Addr::LOCALHOST), reuse),
        }
    }
}

/// Creates a TCP socket that programs do not inherit. On macOS, which has no `SOCK_CLOEXEC`, one that another thread starts
/// at this moment may.
fn stream_socket(family: AddressFamily) -> nix::Result<OwnedFd> {
    #[cfg(target_os = "linux")]
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    #[cfg(not(target_os = "linux"))]
    let fd = socket(family, SockType::Stream, SockFlag::empty(), None)?;
    #[cfg(not(target_os = "linux"))]
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// Binds a new socket and closes it.
fn bind_once(
    family: AddressFamily,
    v6_only: Option<bool>,
    address: &dyn SockaddrLike,
    reuse: ReuseAddress,
) -> nix::Result<()> {
    let socket = stream_socket(family)?;
    if let Some(v6_only) = v6_only {
        setsockopt(&socket, sockopt::Ipv6V6Only, &v6_only)?;
    }
    if reuse == ReuseAddress::Yes {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    use crate::os::clock::comes_true;

    #[test]
    fn a_listener_on_any_local_address_is_found() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            assert!(!is_free(port).unwrap(), "{address}");
            let me = nix::unistd::getpid().as_raw();
            assert!(comes_true(|| listeners(port).unwrap() == [me]), "{address}");
            let listens_there = |pid| addresses(&listens(&[pid]).unwrap()).contains(&listener.local_addr().unwrap());
            assert!(listens_there(me) && !listens_there(1), "{address}");
            let (socket, pids) = holders(port).unwrap().pop().unwrap();
            assert_eq!((socket.uid, pids.contains(&me)), (nix::unistd::getuid().as_raw(), true), "{address}");
            assert!(all().unwrap().contains(&socket), "{address}");
            drop(listener);
            assert!(comes_true(|| is_free(port).unwrap()), "{address}");
        }
    }

    #[test]
    fn a_v6_only_listener_is_found() {
        let listener = stream_socket(AddressFamily::Inet6).unwrap();
        setsockopt(&listener, sockopt::Ipv6V6Only, &true).unwrap();
        let any = SockaddrIn6::from(std::net::SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, 0, 0, 0));
        bind(listener.as_raw_fd(), &any).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let port = nix::sys::socket::getsockname::<SockaddrIn6>(listener.as_raw_fd()).unwrap().port();
        assert!(!is_free(port).unwrap());
    }

    #[test]
    fn a_connection_in_time_wait_does_not_take_the_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        // The side that closes first keeps the connection in TIME_WAIT: here that is the server's port.
        drop(server);
        drop(client);
        drop(listener);
        assert!(comes_true(|| is_free(port).unwrap()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn closed_connections_of_a_server_without_reuseaddr_are_no_process() {
        let listener = stream_socket(AddressFamily::Inet).unwrap();
        bind(listener.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0))).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let listener = TcpListener::from(listener);
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let me = nix::unistd::getpid().as_raw();
        assert!(matches!(port_use(port).unwrap(), PortUse::Taken(pids) if pids.contains(&me)));
        // The connection passes through FIN_WAIT2 to TIME_WAIT.
        drop((server, listener));
        assert!(comes_true(|| port_use(port).unwrap() == PortUse::Closing));
        drop(client);
        assert!(comes_true(|| port_use(port).unwrap() == PortUse::Closing));
    }
}
