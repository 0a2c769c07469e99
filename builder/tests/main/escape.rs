//! Ways out of a sandbox, each tried inside of one, as root and as an ordinary user: `probes.py` is the table.
//!
//! Outside, somebody waits where a build could hand something over: behind an abstract socket (CVE-2024-27297), and behind a port of loopback.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::sandbox::{run_as, users};

/// Fewer probes than this mean that the table was not read to its end.
const PROBES_MIN: usize = 100;

#[test]
fn no_probe_gets_out() {
    for user in users() {
        let name = format!("sarsen-probe-{}-{user}", std::process::id());
        let waiting = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        waiting.set_nonblocking(true).unwrap();
        listening.set_nonblocking(true).unwrap();
        let port = listening.local_addr().unwrap().port();
        let spaces: Vec<String> = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
            .iter()
            .map(|kind| format!("'{kind}={}'", std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display()))
            .collect();
        let probes = include_str!("probes.py");
        let ran = run_as(
            user,
            &format!("cat > probes.py <<'EOF'\n{probes}\nEOF\nexec python3 probes.py {name} {port} {}", spaces.join(" ")),
            120,
        );
        let last = ran.log.lines().last().unwrap_or_default();
        let count: usize = last.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
        assert!(ran.code == 0 && count >= PROBES_MIN, "as user {user}, exit code {}:\n{}", ran.code, ran.log);
        assert_eq!(waiting.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody came to the abstract socket");
        assert_eq!(listening.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody came to the port");
    }
}

/// The same table where nothing protects: most must say so, or it would find nothing in a sandbox either.
#[test]
fn the_probes_see_what_is_open() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("probes.py"), include_str!("probes.py")).unwrap();
    let name = format!("sarsen-probe-open-{}", std::process::id());
    let _waiting = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let net = format!("net={}", std::fs::read_link("/proc/self/ns/net").unwrap().display());
    // Only the harmless ones: everything that would change the machine is left out by name.
    let harmless = "import re, sys\ntext = open(sys.argv.pop(1)).read()\n\
        keep = ('abstract socket of', 'descriptor over', \"port of the machine's loopback\\\"\", '/home\"', '/etc/shadow', 'processes outside', 'new user', 'namespace of')\n\
        lines = [l for l in text.split('\\n') if not l.startswith('    (\"') or any(k in l for k in keep)]\nexec('\\n'.join(lines))";
    let out = std::process::Command::new("python3")
        .args(["-c", harmless, "probes.py", &name, &listening.local_addr().unwrap().port().to_string(), &net])
        .env("out", directory.path())
        .current_dir(directory.path())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&out.stdout);
    for open in ["abstract socket of", "descriptor over", "port of the machine", "/home", "/etc/shadow", "namespace of the machine: net"] {
        assert!(log.contains(&format!("not refused: {open}")), "{open}: {log}{}", String::from_utf8_lossy(&out.stderr));
    }
}
