//! As much HTTP (RFC 9110) as a cloud's metadata server needs: one request, one answer, over a plain connection on the machine's
//! own link. Version 1.0 is spoken, so that the answer is not in chunks and ends with the connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::DATA_LIMIT_BYTES;

/// How long a server on the link may take to answer a connection, and to say anything.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest head of an answer.
const HEAD_LIMIT_BYTES: usize = 16 << 10;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'r> {
    pub method: &'static str,
    pub path: &'r str,
    pub headers: &'r [(&'r str, &'r str)],
}

/// Asks; gives the status and what came.
///
/// # Errors
/// No connection, no answer in time, or one that is no HTTP or too long.
pub(super) fn ask(server: SocketAddr, request: Request<'_>) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut text = format!("{} {} HTTP/1.0\r\nHost: {}\r\n", request.method, request.path, server.ip());
    for (name, value) in request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Content-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![];
    let limit = DATA_LIMIT_BYTES + u64::try_from(HEAD_LIMIT_BYTES).unwrap_or_default();
    stream.take(limit + 1).read_to_end(&mut answer)?;
    if u64::try_from(answer.len()).is_ok_and(|len| len > limit) {
        return Err(wrong("the answer is too long"));
    }
    parse(answer)
}

fn parse(mut answer: Vec<u8>) -> io::Result<(u16, Vec<u8>)> {
    let head = answer.get(..answer.len().min(HEAD_LIMIT_BYTES)).unwrap_or_default();
    let end = head.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| wrong("the answer is no HTTP"))?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer);
    let mut lines = head.lines();
    let status =
        lines.next().filter(|line| line.starts_with("HTTP/1.")).and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| wrong("the answer is no HTTP"))?;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") && value.trim().parse() != Ok(body.len()) {
            return Err(wrong("the answer is cut off"));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(wrong("the answer comes in chunks, which nobody asked for"));
        }
    }
    Ok((status, body))
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_no_http_or_cut_off_are_errors() {
        for answer in [
            "",
            "hello",
            "HTTP/1.0 200 OK\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(parse(answer.into()).is_err(), "{answer:?}");
        }
        assert!(
            parse([b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'x'; HEAD_LIMIT_BYTES], b"\r\n\r\n".to_vec()].concat())
                .is_err()
        );
    }

    #[test]
    fn status_and_body_are_told_apart() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\n\r\n\r\n".to_vec()).unwrap();
        assert_eq!(answer, (404, b"\r\n\r\n".to_vec()));
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n\r\n".to_vec()).unwrap(), (200, vec![]));
    }
}
