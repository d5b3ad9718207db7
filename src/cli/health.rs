//! `storekeeper health`: asks the server of these settings whether it is ready, for a supervisor that can run a command
//! and nothing else, such as a container without any other program in it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// How long connecting, and each read, may take.
const TIME_MAX: Duration = Duration::from_secs(3);
/// Bytes of the answer that are read at most.
const ANSWER_MAX: u64 = 16 * 1024;

/// Asks the server that listens at `bind`; says what it answers.
///
/// # Errors
/// When nobody answers there.
pub(super) fn ask(bind: SocketAddr) -> io::Result<ExitCode> {
    let mut connection = TcpStream::connect_timeout(&reachable(bind), TIME_MAX)?;
    connection.set_read_timeout(Some(TIME_MAX))?;
    connection.set_write_timeout(Some(TIME_MAX))?;
    write!(connection, "GET /health/ready HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    connection.take(ANSWER_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    writeln!(io::stdout(), "{body}")?;
    let ready = head.split(' ').nth(1) == Some("200");
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The address at which this machine itself reaches a server that listens at `bind`.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let address = match bind.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
    };
    SocketAddr::new(address, bind.port())
}
