//! The listening socket, and how it is closed so that nobody who has come in is turned away.
//!
//! A socket that is closed resets the connections that wait in it to be accepted: their clients believe that they are
//! in, and may have asked already. So the door is shut in two steps. First nobody new gets onto the doorstep: the
//! system drops the packets by which connections begin, whose senders repeat them a second later. Whoever stands there
//! is let in. Then the socket is closed, and newcomers are refused.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;

/// A listening socket. It listens until this and all of [`listener`](Self::listener) are dropped.
pub(super) struct Door {
    socket: Socket,
    address: SocketAddr,
}

impl Door {
    /// Listens at an address; port 0 is any free one.
    ///
    /// # Errors
    /// What the system says: the port is taken, the address is none of this machine's.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of a server that was here before may still be ending.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same socket once more, to accept connections from.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn listener(&self) -> io::Result<TcpListener> {
        self.socket.try_clone().map(TcpListener::from)
    }

    /// From now on no connection begins; those that have begun can still be accepted.
    ///
    /// # Errors
    /// When the system can not do that. Connections then begin until the socket is closed.
    #[cfg(target_os = "linux")]
    pub(super) fn keep_newcomers_out(&self) -> io::Result<()> {
        use socket2::SockFilter;
        // The filter sees each packet from its TCP header on. Byte 13 has the flags, of which SYN begins a connection.
        const LOAD_BYTE: u16 = 0x30;
        const SKIP_UNLESS_SET: u16 = 0x45;
        const RETURN: u16 = 0x06;
        const FLAGS_AT: u32 = 13;
        const SYN: u32 = 0x02;
        const DROP: u32 = 0;
        const KEEP: u32 = u32::MAX;
        self.socket.attach_filter(&[
            SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
            SockFilter::new(SKIP_UNLESS_SET, 0, 1, SYN),
            SockFilter::new(RETURN, 0, 0, DROP),
            SockFilter::new(RETURN, 0, 0, KEEP),
        ])
    }

    /// From now on no connection begins: this system can not do that.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn keep_newcomers_out(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_stands_on_the_doorstep_comes_in_and_nobody_else() {
        let door = Door::open(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = door.address();
        let listener = door.listener().expect("a listener");
        let early = TcpStream::connect(address).expect("a connection");
        door.keep_newcomers_out().expect("a filter");
        // It may wait as long as it likes: nothing answers it.
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
        assert_eq!(late.expect_err("kept out").kind(), ErrorKind::TimedOut);

        let waiting = thread::spawn(move || TcpStream::connect(address));
        let (inside, _) = listener.accept().expect("who stood there");
        assert_eq!(inside.peer_addr().expect("an address"), early.local_addr().expect("an address"));
        listener.set_nonblocking(true).expect("set");
        assert_eq!(listener.accept().expect_err("nobody else").kind(), ErrorKind::WouldBlock);
        drop((door, listener));
        let refused = waiting.join().expect("no panic").expect_err("there is no door");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}
