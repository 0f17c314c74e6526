//! The part of rtnetlink(7) needed to move network interfaces: five requests, encoded and decoded by hand in
//! safe code.
//!
//! Everything about network devices takes 24 KiB of the program; with netlink-packet-route it took 548 KiB;
//! see docs/decisions.md.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::sys::{Errno, weakened};

/// The size of a message header: length, type, flags, sequence number, sender; `struct nlmsghdr`.
const HEADER: usize = 16;
/// The size of `struct ifinfomsg`: family, type, index, flags, mask of the flags to change.
const LINK: usize = 16;
/// The size of `struct ifaddrmsg`: family, prefix length, flags, scope, interface index.
const ADDRESS: usize = 8;
/// Larger than any reply of the kernel. An error repeats the request, which is short, except in a weakened
/// build, where names may have any length.
const BUFFER: usize = if cfg!(feature = "weakened") { 128 << 10 } else { 64 << 10 };

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE_ONLY: u16 = 0x400 | 0x200;
/// `NLM_F_DUMP_INTR`: something changed while the reply was being written.
const INTERRUPTED: u16 = 16;
/// `NLMSG_ERROR`, also used for success, and `NLMSG_DONE`.
const OUTCOME: u16 = 2;
const DONE: u16 = 3;

/// The address attributes that are copied as they are: address, peer address, broadcast address and metric;
/// `IFA_ADDRESS`, `IFA_LOCAL`, `IFA_BROADCAST`, `IFA_RT_PRIORITY`. Labels are not, because they begin with
/// the interface's old name.
const CARRIED: [u16; 4] = [1, 2, 4, 9];
/// `IFA_FLAGS`, because the byte in the header has become too small.
const ALL_FLAGS: u16 = 8;
/// The flags set by users: `IFA_F_NODAD`, `HOMEADDRESS`, `MANAGETEMPADDR`, `NOPREFIXROUTE`, `MCAUTOJOIN`. The
/// kernel sets the others.
const ASKED_FOR: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;

/// A netlink socket for the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// The properties of an interface.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    pub index: i32,
    pub is_up: bool,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    scope: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Whether it was configured, not learned from the network; `IFA_F_PERMANENT`.
    pub fn is_permanent(&self) -> bool {
        self.flags & libc::IFA_F_PERMANENT != 0
    }

    /// Whether it is valid beyond this host or link; `RT_SCOPE_UNIVERSE`.
    pub fn is_global(&self) -> bool {
        self.scope == libc::RT_SCOPE_UNIVERSE
    }
}

impl Socket {
    pub fn open() -> Result<Self, Errno> {
        // NETLINK_ROUTE is 0, the default.
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Looks up an interface by name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Errno> {
        self.find(Request::new(libc::RTM_GETLINK, 0, &link(0, 0)).attribute(libc::IFLA_IFNAME, &text(name)))
    }

    /// Whether an interface has this index.
    pub fn is_used(&mut self, index: i32) -> Result<bool, Errno> {
        self.find(Request::new(libc::RTM_GETLINK, 0, &link(index, 0))).map(|link| link.is_some())
    }

    fn find(&mut self, request: Request) -> Result<Option<Link>, Errno> {
        match self.ask(request) {
            Err(Errno::NODEV) => Ok(None),
            answer => Ok(answer?.iter().find_map(|(kind, body)| parse_link(*kind, body))),
        }
    }

    /// Returns all addresses of an interface.
    pub fn addresses(&mut self, index: i32) -> Result<Vec<Address>, Errno> {
        loop {
            match self.ask(Request::new(libc::RTM_GETADDR, DUMP, &[0; ADDRESS])) {
                Err(Errno::INTR) => {}
                answer => {
                    let of_all = answer?.into_iter().filter_map(|(kind, body)| parse_address(kind, &body));
                    return Ok(of_all.filter(|(of, _)| *of == index).map(|(_, address)| address).collect());
                }
            }
        }
    }

    /// Moves the interface into `namespace`, with index `new_index` there and with name `name`, in which `%d`
    /// stands for a number chosen by the kernel.
    ///
    /// # Errors
    /// `EBUSY` if the index is taken there; `EEXIST` if the name is; `EINVAL` if an interface of this kind
    /// cannot be moved. After `EEXIST` it may have been moved nevertheless.
    pub fn move_link(
        &mut self,
        index: i32,
        namespace: BorrowedFd<'_>,
        new_index: i32,
        name: &str,
    ) -> Result<(), Errno> {
        let request = Request::new(libc::RTM_NEWLINK, 0, &link(index, 0))
            .attribute(libc::IFLA_IFNAME, &text(name))
            .attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())
            .attribute(libc::IFLA_NEW_IFINDEX, &new_index.to_ne_bytes());
        self.ask(request).map(drop)
    }

    pub fn set_up(&mut self, index: i32) -> Result<(), Errno> {
        self.ask(Request::new(libc::RTM_NEWLINK, 0, &link(index, libc::IFF_UP.unsigned_abs()))).map(drop)
    }

    /// Adds an address that the interface does not have yet.
    pub fn add_address(&mut self, index: i32, address: &Address) -> Result<(), Errno> {
        let mut body = [address.family, address.prefix, 0, address.scope].to_vec();
        body.extend(index.to_ne_bytes());
        let request = Request::new(libc::RTM_NEWADDR, CREATE_ONLY, &body)
            .attribute(ALL_FLAGS, &(address.flags & ASKED_FOR).to_ne_bytes());
        let carried = address.attributes.iter();
        self.ask(carried.fold(request, |request, (kind, value)| request.attribute(*kind, value))).map(drop)
    }

    /// Sends a request and returns the messages of the reply, each with its type and body.
    fn ask(&mut self, request: Request) -> Result<Vec<(u16, Vec<u8>)>, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = request.finish(self.sequence)?;
        rustix::net::send(&self.fd, &message, SendFlags::empty())?;
        let mut answer = Vec::new();
        let mut is_interrupted = false;
        let mut buffer = vec![0; BUFFER];
        loop {
            let receive = || rustix::net::recv(self.fd.as_fd(), &mut *buffer, RecvFlags::empty());
            let (_, length) = rustix::io::retry_on_intr(receive)?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((header, body, next)) = split(rest) {
                rest = next;
                if header.sequence != self.sequence {
                    continue;
                }
                is_interrupted |= header.flags & INTERRUPTED != 0;
                match header.kind {
                    OUTCOME | DONE => {
                        // A dump that succeeds may end with a length instead of an error.
                        let errno = body.first_chunk().map_or(0, |errno| i32::from_ne_bytes(*errno));
                        return match errno.checked_neg().filter(|errno| (1..4096).contains(errno)) {
                            Some(errno) => Err(Errno::from_raw_os_error(errno)),
                            None if is_interrupted => Err(Errno::INTR),
                            None => Ok(answer),
                        };
                    }
                    kind => answer.push((kind, body.to_vec())),
                }
            }
        }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
/// For fuzz targets: decodes a reply with arbitrary contents.
pub fn read_all(mut rest: &[u8]) {
    while let Some((header, body, next)) = split(rest) {
        assert!(next.len() < rest.len(), "a message that takes no byte of {rest:?}");
        rest = next;
        parse_link(header.kind, body);
        if let Some((index, address)) = parse_address(header.kind, body) {
            let again =
                [&[address.family, address.prefix, 0, address.scope], &index.to_ne_bytes()[..]].concat();
            let again =
                Request::new(libc::RTM_NEWADDR, 0, &again).attribute(ALL_FLAGS, &address.flags.to_ne_bytes());
            let again = address.attributes.iter().fold(again, |to, (kind, value)| to.attribute(*kind, value));
            let again = again.finish(1).unwrap_or_default();
            let read = split(&again).and_then(|(header, body, _)| parse_address(header.kind, body));
            assert_eq!(read, Some((index, address)));
        }
    }
}

/// A request being built.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | ACKNOWLEDGE | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self(bytes)
    }

    /// Appends an attribute: length, type, value, padding to a multiple of four bytes.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // All values are short: names, numbers and addresses.
        let mut length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        if weakened::is_off("CVE-2021-43784") {
            length = u16::try_from((value.len() + 4) & 0xffff).unwrap_or(u16::MAX);
        }
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self, sequence: u32) -> Result<Vec<u8>, Errno> {
        let length = u32::try_from(self.0.len()).map_err(|_| Errno::MSGSIZE)?;
        for (at, number) in [(0, length), (8, sequence)] {
            if let Some(place) = self.0.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_ne_bytes());
            }
        }
        Ok(self.0)
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// Splits off the first message: its header, its body, and the rest.
fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let header = Header { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)? };
    let body = bytes.get(HEADER..length)?;
    Some((header, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// `struct ifinfomsg` with `flags` to be set.
fn link(index: i32, flags: u32) -> [u8; LINK] {
    let mut body = [0; LINK];
    let words = [0, 0, 0, 0].into_iter().chain(index.to_ne_bytes());
    let words = words.chain(flags.to_ne_bytes()).chain(flags.to_ne_bytes());
    body.iter_mut().zip(words).for_each(|(to, from)| *to = from);
    body
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn parse_link(kind: u16, body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    (kind == libc::RTM_NEWLINK).then_some(())?;
    Some(Link { index: i32_at(body, 4)?, is_up: flags & libc::IFF_UP.unsigned_abs() != 0 })
}

/// Decodes an address and the index of its interface.
fn parse_address(kind: u16, body: &[u8]) -> Option<(i32, Address)> {
    let (&[family, prefix, flags, scope], _) = body.split_first_chunk()?;
    let index = i32_at(body, 4)?;
    (kind == libc::RTM_NEWADDR).then_some(())?;
    let mut address = Address { family, prefix, scope, flags: flags.into(), attributes: Vec::new() };
    let mut rest = body.get(ADDRESS..)?;
    while let Some(length) = u16_at(rest, 0).map(usize::from) {
        let (Some(kind), Some(value)) = (u16_at(rest, 2), rest.get(4..length)) else { break };
        if CARRIED.contains(&kind) {
            address.attributes.push((kind, value.to_vec()));
        } else if kind == ALL_FLAGS {
            address.flags = u32_at(value, 0).unwrap_or(address.flags);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((index, address))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes_but_not_in_their_length() {
        let message = Request::new(libc::RTM_NEWLINK, 0, &link(7, 1))
            .attribute(libc::IFLA_IFNAME, &text("ab"))
            .attribute(libc::IFLA_NEW_IFINDEX, &7_i32.to_ne_bytes())
            .finish(9)
            .unwrap();
        assert_eq!(message.len(), HEADER + LINK + 8 + 8);
        let (header, body, rest) = split(&message).unwrap();
        assert_eq!((header.kind, header.flags, header.sequence, rest.len()), (libc::RTM_NEWLINK, 5, 9, 0));
        assert_eq!(parse_link(header.kind, body), Some(Link { index: 7, is_up: true }));
        assert_eq!(u16_at(body, LINK), Some(7), "the length of the name with its NUL");
        assert_eq!(body.get(LINK + 4..LINK + 8), Some(b"ab\0\0".as_slice()));
    }

    #[test]
    fn an_address_is_read_as_far_as_it_is_carried_over() {
        let mut body = vec![2, 24, 0x80, 0];
        body.extend(7_i32.to_ne_bytes());
        let message = Request::new(libc::RTM_NEWADDR, 0, &body)
            .attribute(1, &[10, 0, 0, 1])
            .attribute(2, &[10, 0, 0, 1])
            .attribute(3, b"eth0\0")
            .attribute(ALL_FLAGS, &0x280_u32.to_ne_bytes())
            .finish(1)
            .unwrap();
        let (header, body, _) = split(&message).unwrap();
        let (index, address) = parse_address(header.kind, body).unwrap();
        assert_eq!((index, address.prefix, address.flags), (7, 24, 0x280));
        assert!(address.is_permanent() && address.is_global());
        assert_eq!(address.attributes, [(1, vec![10, 0, 0, 1]), (2, vec![10, 0, 0, 1])]);
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        let message = Request::new(libc::RTM_NEWADDR, 0, &[2, 24, 0, 0, 1]).finish(1).unwrap();
        assert!(split(message.get(..18).unwrap()).is_none());
        let (header, body, _) = split(&message).unwrap();
        assert!(parse_address(header.kind, body).is_none() && parse_link(header.kind, body).is_none());
    }

    /// Every system has `lo`, whose addresses have host scope.
    #[test]
    fn the_kernel_answers() {
        let mut socket = Socket::open().unwrap();
        let lo = socket.link("lo").unwrap().unwrap();
        assert!(socket.is_used(lo.index).unwrap());
        assert!(!socket.is_used(i32::MAX).unwrap());
        assert_eq!(socket.link("no-such-device").unwrap(), None);
        assert!(socket.addresses(lo.index).unwrap().iter().all(|address| !address.is_global()));
    }
}
