//! Linux: lists TCP sockets by netlink (`sock_diag(7)`).
//!
//! The text tables in `/proc/net` hold every connection, and the kernel walks its whole table for each read. That takes
//! milliseconds; this takes about 0.1 ms.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::status::Listener;

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `SOCK_DIAG_BY_FAMILY`, the type of the request and of each response.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// The length of `struct inet_diag_msg`, which begins a response.
const RESPONSE: usize = 72;

/// Returns every TCP socket that is in one of these states, which are numbered as in `tcp_states.h` of Linux.
///
/// # Errors
/// If the kernel returns an error: some sandboxes have no netlink.
pub(super) fn sockets_in(states: &[u8]) -> io::Result<Vec<Listener>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
    let states = states.iter().fold(0, |states, state| states | 1 << state);
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        request_sockets(&netlink, u8::try_from(family).unwrap_or_default(), states, &mut sockets)?;
    }
    Ok(sockets)
}

/// Requests the sockets of one address family. `states` has a bit for each state.
fn request_sockets(netlink: &OwnedFd, family: u8, states: u32, sockets: &mut Vec<Listener>) -> io::Result<()> {
    send(netlink.as_raw_fd(), &request(family, states), MsgFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, message, after)) = next_message(rest) {
            match kind {
                BY_FAMILY => sockets.extend(parse_socket(message)),
                DONE => return Ok(()),
                // NLMSG_ERROR, or a type that was not requested.
                _ => return Err(io::ErrorKind::Unsupported.into()),
            }
            rest = after;
        }
    }
}

/// Builds the request for the sockets of a family: `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(family: u8, states: u32) -> Vec<u8> {
    let mut request = Vec::with_capacity(72);
    request.extend(72_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    // Sequence number and sender: one request is under way at a time.
    request.extend([0; 8]);
    request.extend([family, TCP, 0, 0]);
    request.extend(states.to_ne_bytes());
    // Any address.
    request.extend([0; 48]);
    request
}

/// Splits off the first message: its type, its content, and the rest; `None` at the end.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let message = bytes.get(HEADER..length)?;
    Some((kind, message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Parses a `struct inet_diag_msg`; `None` if the message is too short.
fn parse_socket(message: &[u8]) -> Option<Listener> {
    let message = message.get(..RESPONSE)?;
    let port = u16::from_be_bytes(message[4..6].try_into().ok()?);
    let address = if i32::from(message[0]) == libc::AF_INET {
        IpAddr::from(<[u8; 4]>::try_from(&message[8..12]).ok()?)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(&message[8..24]).ok()?)
    };
    let uid = u32::from_ne_bytes(message[64..68].try_into().ok()?);
    let inode = u32::from_ne_bytes(message[68..72].try_into().ok()?);
    Some(Listener { address: SocketAddr::new(address, port), uid, id: u64::from(inode) })
}
