//! Several datagrams in one operation, and in one system call (sendmmsg(2), recvmmsg(2)).

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};
use wakebox_abi::op::{DATAGRAMS_MAX, SocketAddress, UdpReceiveMany, UdpSendMany};
use wakebox_abi::status::Status;

use super::udp::{ARRIVED, Sending, Udp, may_send, receive, receiving, refuse};
use super::{Start, Started, TokioBackend};
use crate::arena::ArenaSlice;
use crate::limits::LimitKind;
use crate::meter::Meter;
use crate::policy::check::Guard;

/// What stands before the bytes of each datagram that was received.
const HEAD: usize = SocketAddress::SIZE + 4;

/// Most bytes that are received in one call.
const MOST: usize = 256 << 10;

impl Start for UdpSendMany {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let sending = Sending::new(resources, self.socket, self.from, self.to)?;
        let each = self.each as usize;
        if each == 0 || sending.from.len() == 0 {
            return Err(Status::InvalidInput);
        }
        let most = each.saturating_mul(DATAGRAMS_MAX).min(sending.from.len());
        sending.start(self.socket, move |sending| {
            sending.metered(most, || send(sending, each, most))
        })
    }
}

/// Sends the first bytes of a buffer as datagrams of `each` bytes. Returns how many bytes were sent.
fn send(sending: &Sending, each: usize, most: usize) -> io::Result<usize> {
    let to = sending.to.as_ref();
    let (name, name_len) = to.map_or((ptr::null(), 0), |to| (to.as_ptr(), to.len()));
    sending.from.in_kernel(most, |base, len| {
        let mut parts = [libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        }; DATAGRAMS_MAX];
        // The last may be shorter, but not because the range was cut.
        let count = match len < most {
            true => len / each,
            false => len.div_ceil(each),
        };
        if count == 0 {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        for (index, part) in parts[..count].iter_mut().enumerate() {
            // Within the range, of which it is the address only.
            part.iov_base = base.wrapping_add(index * each).cast();
            part.iov_len = each.min(len - index * each);
        }
        let mut messages = messages(&mut parts[..count]);
        for message in &mut messages[..count] {
            message.msg_hdr.msg_name = name.cast_mut().cast();
            message.msg_hdr.msg_namelen = name_len;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let fd = sending.udp.as_raw_fd();
        // SAFETY: there are as many messages, whose parts lie in mapped guest memory, which `from` keeps mapped; the kernel reads
        // what the guest makes of the bytes meanwhile. The address is that of `to`, or none, and is not written to.
        let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count as u32, flags) };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        Ok(parts[..sent].iter().map(|part| part.iov_len).sum())
    })
}

/// Messages of one part each, which name nobody.
fn messages(parts: &mut [libc::iovec]) -> [libc::mmsghdr; DATAGRAMS_MAX] {
    // SAFETY: all zeroes is a value of it, which names nothing.
    let mut messages = [unsafe { std::mem::zeroed::<libc::mmsghdr>() }; DATAGRAMS_MAX];
    for (message, part) in messages.iter_mut().zip(parts) {
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
    }
    messages
}

impl Start for UdpReceiveMany {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let each = self.each as usize;
        if each < HEAD || into.len() < each {
            return Err(Status::InvalidInput);
        }
        receiving(resources, self.socket, move |udp, guard, meter| {
            receive_many(udp, &into, each, guard, meter)
        })
    }
}

/// Receives what datagrams are there, and writes those that may come to the guest. `None` if none of them may.
fn receive_many(
    udp: &Udp,
    into: &ArenaSlice,
    each: usize,
    guard: &Guard,
    meter: &Meter,
) -> io::Result<Option<usize>> {
    let room = each - HEAD;
    let most = (into.len() / each).min(DATAGRAMS_MAX);
    let most = most.min(MOST / room.max(1)).max(1);
    let taken = meter
        .take(LimitKind::NetworkIn, most * room)
        .map_err(io::Error::other);
    let most = match &taken {
        _ if room == 0 => most,
        Ok(taken) => taken.len() / room,
        Err(_) => 0,
    };
    if most == 0 {
        drop(taken);
        // What is left may do for one that is shorter.
        return Ok(receive_one(udp, into, each, guard, meter)?.map(|()| 1));
    }
    let mut given = 0;
    let mut bytes = 0;
    ARRIVED.with_borrow_mut(|arrived| {
        arrived.resize(arrived.len().max(most * room), 0);
        let received = receive_messages(udp, &mut arrived[..most * room], room, most)?;
        for (index, (count, from)) in received.into_iter().enumerate() {
            let from = from.as_socket();
            let Some(from) = from.filter(|from| may_send(udp, guard, Some(*from))) else {
                refuse(guard, from);
                continue;
            };
            let cell = into.behind(given * each).at_most(each);
            write_head(&cell, from, count);
            cell.behind(HEAD).fill(&arrived[index * room..][..count]);
            given += 1;
            bytes += count;
        }
        io::Result::Ok(())
    })?;
    taken?.keep(bytes);
    Ok((given > 0).then_some(given))
}

fn write_head(cell: &ArenaSlice, from: std::net::SocketAddr, count: usize) {
    let mut head = [0; HEAD];
    let (address, len) = head.split_at_mut(SocketAddress::SIZE);
    address.copy_from_slice(&SocketAddress(from).to_bytes());
    len.copy_from_slice(&(count as u32).to_le_bytes());
    cell.fill(&head);
}

/// Receives one datagram where several would have room.
fn receive_one(
    udp: &Udp,
    into: &ArenaSlice,
    each: usize,
    guard: &Guard,
    meter: &Meter,
) -> io::Result<Option<()>> {
    // The bytes where they belong; the address goes where their number does, and then to its place.
    let cell = into.behind(0).at_most(each);
    let Some(count) = receive(udp, &cell.behind(4), guard, meter)? else {
        return Ok(None);
    };
    let address = cell.behind(4).array::<{ SocketAddress::SIZE }>();
    cell.fill(&address.unwrap_or_default());
    cell.behind(SocketAddress::SIZE)
        .at_most(4)
        .fill(&(count as u32).to_le_bytes());
    Ok(Some(()))
}

/// Receives as many datagrams as there are, at most `most`, each into `room` bytes. Returns how many bytes of each there are, and
/// from whom.
fn receive_messages(
    udp: &Udp,
    arrived: &mut [u8],
    room: usize,
    most: usize,
) -> io::Result<Vec<(usize, SockAddr)>> {
    let base = arrived.as_mut_ptr();
    let mut parts = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; DATAGRAMS_MAX];
    for (index, part) in parts[..most].iter_mut().enumerate() {
        part.iov_base = base.wrapping_add(index * room).cast();
        part.iov_len = room;
    }
    let mut names: [_; DATAGRAMS_MAX] = std::array::from_fn(|_| SockAddrStorage::zeroed());
    let mut messages = messages(&mut parts[..most]);
    for (message, name) in messages[..most].iter_mut().zip(&mut names) {
        message.msg_hdr.msg_namelen = name.size_of();
        message.msg_hdr.msg_name = (&raw mut *name).cast();
    }
    let fd = udp.as_raw_fd();
    // SAFETY: there are as many messages; each has a part of `arrived` of its own and an address of its own, which nobody else
    // uses during the call. Without a time-out there is nothing else that is read.
    let received = unsafe {
        libc::recvmmsg(
            fd,
            messages.as_mut_ptr(),
            most as u32,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let address = |(message, name): (&libc::mmsghdr, SockAddrStorage)| {
        let len = message.msg_hdr.msg_namelen.min(name.size_of());
        // SAFETY: the kernel has written an address of that length, or none of that family.
        let address = unsafe { SockAddr::new(name, len) };
        ((message.msg_len as usize).min(room), address)
    };
    Ok(messages[..received]
        .iter()
        .zip(names)
        .map(address)
        .collect())
}
