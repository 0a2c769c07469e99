//! The loopback interface, the only one in a build's network namespace.
//!
//! Brought up through rtnetlink(7): one `RTM_NEWLINK` message and its acknowledgement. Interface 1 is `lo` in every new namespace.

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// `nlmsghdr` and `ifinfomsg`, 16 bytes each.
const MESSAGE_BYTES: u32 = 32;
/// linux/rtnetlink.h.
const RTM_NEWLINK: u16 = 16;
/// `NLM_F_REQUEST` and `NLM_F_ACK`, linux/netlink.h.
const REQUEST_ACK: u16 = 1 | 4;
/// linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
/// net/if.h.
const IFF_UP: u32 = 1;
/// The index of `lo`.
const LOOPBACK: i32 = 1;

/// Brings `lo` up.
pub(super) fn raise_loopback() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    // An unconnected netlink socket sends to the kernel.
    send(&socket, &message(), SendFlags::empty())?;
    let mut answer = [0; 512];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let header = &answer[..length.min(answer.len())];
    match (header.get(4..6), header.get(16..20)) {
        (Some(kind), Some(code)) if kind == NLMSG_ERROR.to_ne_bytes() => match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
            0 => Ok(()),
            negative => Err(Errno::from_raw_os_error(-negative)),
        },
        _ => Err(Errno::PROTO),
    }
}

fn message() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(MESSAGE_BYTES.to_ne_bytes());
    bytes.extend(RTM_NEWLINK.to_ne_bytes());
    bytes.extend(REQUEST_ACK.to_ne_bytes());
    bytes.extend([1u32, 0].map(u32::to_ne_bytes).concat()); // sequence number, sender
    bytes.extend([0u8; 4]); // family, padding, device type
    bytes.extend(LOOPBACK.to_ne_bytes());
    bytes.extend([IFF_UP, IFF_UP].map(u32::to_ne_bytes).concat()); // flags, which of them to change
    bytes
}
