//! One attempt of a health check. The error is the answer, in words.
//!
//! HTTP is spoken by hand: one GET over one connection to an address of this host, no redirects, no TLS, no names other
//! than `localhost`, which is both loopback addresses. What the other side sends is bounded in size and time.
//! Source: RFC 9112, sections 2.1, 3 and 4.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sarsen_store::manifest::Probe;

use crate::process::{Invocation, ProcessError, clean, describe_status, last_lines};
use crate::services::ServiceManager;

/// The longest response that is read, in bytes; the status line stands at its beginning.
const RESPONSE_BYTES_MAX: u64 = 64 << 10;

/// The longest single attempt, so that one that hangs does not use up the whole time of its check.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// How many characters of a foreign answer are shown.
const ANSWER_CHARACTERS_MAX: usize = 200;

/// Asks once; `left` is what is left of the check's time.
pub(super) fn run_probe(probe: &Probe, left: Duration, services: &dyn ServiceManager) -> Result<(), String> {
    match probe {
        Probe::Http { url, status } => get(url, *status, left.min(ATTEMPT_MAX)),
        Probe::Tcp { host, port } => connect(host, *port, Instant::now() + left.min(ATTEMPT_MAX)).map(drop),
        Probe::Command { command } => run_command(command, left),
        Probe::Unit { unit } => ask_unit(unit, services),
    }
}

fn run_command(command: &str, left: Duration) -> Result<(), String> {
    let done = Invocation::shell(command, left).run().map_err(|error| match &error {
        ProcessError::Deadline { output, .. } if !output.is_empty() => format!("{error}; it printed last: {}", shorten(output)),
        ProcessError::Deadline { .. } | ProcessError::Start { .. } | ProcessError::User { .. } | ProcessError::Watch { .. } => {
            error.to_string()
        }
    })?;
    if done.status.success() {
        return Ok(());
    }
    let output = if done.output.is_empty() { String::new() } else { format!(": {}", shorten(&last_lines(&done.output, 3))) };
    Err(format!("the command ended with {}{output}", describe_status(done.status)))
}

fn ask_unit(unit: &str, services: &dyn ServiceManager) -> Result<(), String> {
    let states = services.states(&[unit.to_owned()]).map_err(|error| error.to_string())?;
    match states.first() {
        Some(state) if state.active => Ok(()),
        Some(state) => Err(format!("unit `{unit}` is {}", state.state)),
        None => Err(format!("unit `{unit}` is unknown")),
    }
}

/// An `http://` URL in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    /// Host and port as they stand in the URL, for the `Host` field.
    authority: &'a str,
    host: &'a str,
    port: u16,
    /// Path and query, with the slash; never empty.
    path: String,
}

fn parse_url(url: &str) -> Result<Target<'_>, String> {
    let malformed = || format!("`{url}` is not an `http://` URL of an IP address or `localhost`");
    let rest = url.strip_prefix("http://").ok_or_else(malformed)?;
    if rest.bytes().any(|byte| byte <= b' ' || byte == 0x7f) || rest.contains('@') {
        return Err(malformed());
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = match authority.strip_prefix('[') {
        Some(address) => address.split_once(']').map(|(host, port)| (host, port.strip_prefix(':'))).ok_or_else(malformed)?,
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(80), str::parse).map_err(|_| malformed())?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Target { authority, host, port, path })
}

fn get(url: &str, expected: u16, time: Duration) -> Result<(), String> {
    let end = Instant::now() + time;
    let target = parse_url(url)?;
    let mut stream = connect(target.host, target.port, end)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: sarsen-activator\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        target.path, target.authority
    );
    stream.write_all(request.as_bytes()).map_err(|error| format!("{url} does not take the request: {error}"))?;
    let response = read_response(&mut stream, end).map_err(|error| format!("{url} does not answer: {error}"))?;
    let status = parse_status(&response).ok_or_else(|| format!("{url} does not answer in HTTP: {}", shorten(&clean(&response))))?;
    if status == expected {
        return Ok(());
    }
    Err(format!("{url} answers with status {status}, not {expected}"))
}

/// Reads until the end of the status line; the rest of the response is of no interest.
fn read_response(stream: &mut TcpStream, end: Instant) -> std::io::Result<Vec<u8>> {
    let mut response = Vec::new();
    let mut bounded = stream.take(RESPONSE_BYTES_MAX);
    let mut buffer = [0_u8; 4096];
    while !response.contains(&b'\n') {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        bounded.get_ref().set_read_timeout(Some(left))?;
        let length = bounded.read(&mut buffer).map_err(|error| {
            let late = error.kind() == std::io::ErrorKind::WouldBlock;
            if late { std::io::ErrorKind::TimedOut.into() } else { error }
        })?;
        if length == 0 {
            break;
        }
        response.extend_from_slice(&buffer[..length]);
    }
    Ok(response)
}

/// Reads `HTTP/1.x NNN`; anything else is not HTTP.
fn parse_status(response: &[u8]) -> Option<u16> {
    let line = response.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let digits = line.get(2..5)?;
    let framed = line.as_bytes().get(1) == Some(&b' ') && line.as_bytes().get(5).is_none_or(|&byte| byte == b' ' || byte == b'\r');
    (framed && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    if host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    Ok(vec![address.map_err(|_| format!("`{host}` is neither an IP address nor `localhost`"))?])
}

fn connect(host: &str, port: u16, end: Instant) -> Result<TcpStream, String> {
    let mut refused = String::new();
    for address in addresses(host)? {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), left) {
            Ok(stream) => {
                let time = Some(end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
                stream.set_write_timeout(time).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            // The first address is the one that people mean.
            Err(error) if refused.is_empty() => refused = format!("cannot connect to {host} port {port}: {error}"),
            Err(_) => {}
        }
    }
    Err(if refused.is_empty() { format!("cannot connect to {host} port {port} in time") } else { refused })
}

fn shorten(text: &str) -> String {
    let one_line = text.replace('\n', " | ");
    if one_line.chars().count() <= ANSWER_CHARACTERS_MAX {
        return one_line;
    }
    one_line.chars().take(ANSWER_CHARACTERS_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls_of_this_host_only() {
        let target = parse_url("http://127.0.0.1:8080/health?deep=1#part").unwrap();
        assert_eq!(target, Target { authority: "127.0.0.1:8080", host: "127.0.0.1", port: 8080, path: "/health?deep=1".to_owned() });
        let target = parse_url("http://[::1]?x").unwrap();
        assert_eq!((target.host, target.port, target.path.as_str()), ("::1", 80, "/?x"));
        for broken in
            ["https://127.0.0.1/", "http://a b/", "http://user@127.0.0.1/", "http://127.0.0.1:99999/", "http://[::1/", "http://h/\r\nX: y"]
        {
            assert!(parse_url(broken).is_err(), "{broken}");
        }
        assert!(addresses("example.org").is_err());
    }

    #[test]
    fn reads_status_lines_strictly() {
        for (line, status) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503\r\n", Some(503)),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/2 200\r\n", None),
            ("HTTP/1.1 20", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("", None),
        ] {
            assert_eq!(parse_status(line.as_bytes()), status, "{line:?}");
        }
    }
}
