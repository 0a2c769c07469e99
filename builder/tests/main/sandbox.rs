//! The sandbox, looked at from inside: each test runs a script as root (if the tests do) and as an ordinary user.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sarsen_builder::sandbox::{LOG_BYTES_MAX, Spec};

const PROBE: &str = env!("CARGO_BIN_EXE_sarsen-sandbox-probe");
const STORE: &str = "/var/lib/sarsen/store";
const NOBODY: u32 = 65534;

/// What came of a script.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) log: String,
    output: PathBuf,
    _directory: tempfile::TempDir,
}

/// A sandbox that is ready to be started.
struct Prepared {
    command: Command,
    directory: tempfile::TempDir,
}

/// Prepares to run `script` as `user`; the sandbox has one input `in` with a file `data`, and one output `out`.
fn prepare(user: u32, script: &str, timeout_s: u32) -> Prepared {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["root", "build", "in", "out"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("in").join("data"), "42").unwrap();
    fs::write(path("build").join("source"), "source").unwrap();
    // Programs below a home directory are out of reach for other users.
    let probe = path("probe");
    fs::copy(PROBE, &probe).unwrap();
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o755)).unwrap();
    let spec = Spec {
        script: script.to_owned(),
        environment: BTreeMap::from(
            [("PATH", "/usr/bin:/bin"), ("out", "/var/lib/sarsen/store/out")].map(|(k, v)| (k.to_owned(), v.to_owned())),
        ),
        root: path("root"),
        build: path("build"),
        store: STORE.into(),
        inputs: BTreeMap::from([("in".to_owned(), path("in"))]),
        outputs: BTreeMap::from([("out".to_owned(), path("out"))]),
    };
    fs::write(path("spec"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let mut command = Command::new(&probe);
    if user != current_user() {
        for name in ["", "root", "build", "in", "in/data", "out"] {
            chown(path(name), Some(user), Some(user)).unwrap();
        }
        command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]).arg(&probe);
    }
    command.arg("run").args([path("spec"), path("log")]).args([timeout_s.to_string(), "3600".to_owned()]);
    Prepared { command, directory }
}

pub(crate) fn run_as(user: u32, script: &str, timeout_s: u32) -> Ran {
    let Prepared { mut command, directory } = prepare(user, script, timeout_s);
    let status = command.status().unwrap();
    let log = String::from_utf8_lossy(&fs::read(directory.path().join("log")).unwrap_or_default()).into_owned();
    Ran { code: status.code().unwrap_or(-1), log, output: directory.path().join("out"), _directory: directory }
}

fn current_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The users to test as: this one, and an ordinary one if this one is root.
pub(crate) fn users() -> Vec<u32> {
    if current_user() == 0 { vec![0, NOBODY] } else { vec![current_user()] }
}

/// A shell function for what must not succeed; `!` would not do, since `set -e` passes over it.
const REFUSED: &str = "refused() { if \"$@\"; then echo \"not refused: $*\"; exit 99; fi; }\n";

/// Runs a script that has to succeed, as every user.
#[track_caller]
fn succeeds(script: &str) {
    for user in users() {
        let ran = run_as(user, &format!("{REFUSED}{script}"), 60);
        assert_eq!(ran.code, 0, "as user {user}:\n{}", ran.log);
    }
}

#[test]
fn inputs_are_visible_and_outputs_arrive() {
    for user in users() {
        let ran = run_as(user, "cat source /var/lib/sarsen/store/in/data > $out/both; mkdir $out/d; echo done", 60);
        assert_eq!((ran.code, ran.log.as_str()), (0, "done\n"), "as user {user}");
        assert_eq!(fs::read_to_string(ran.output.join("both")).unwrap(), "source42");
    }
}

#[test]
fn only_the_loopback_interface_exists_and_it_works() {
    succeeds("test \"$(sed -n '3,$p' /proc/net/dev | cut -d: -f1 | tr -d ' ')\" = lo");
    succeeds("refused timeout 5 bash -c 'exec 3<>/dev/tcp/192.0.2.1/80'");
    // Refused, not unreachable: the interface is up.
    succeeds("timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/9' 2>&1 | grep -q refused");
}

#[test]
fn nothing_undeclared_is_there() {
    succeeds(
        "for path in /root /home /var/lib/dpkg /etc/shadow /etc/ssh /sys /run /boot /dev/vda /dev/tty /dev/kmsg; do refused test -e $path; done",
    );
    succeeds("test \"$(ls /var/lib/sarsen/store | tr '\\n' ' ')\" = 'in out '");
    succeeds("test \"$(ls -A /tmp | wc -l)\" = 0");
    // Only this shell's own descriptors: standard ones, the script, the listing.
    succeeds(
        "ls -l /proc/self/fd >&2; for fd in /proc/$$/fd/*; do case \"$(readlink $fd)\" in /dev/null|pipe:*|/script) ;; *) exit 1 ;; esac; done",
    );
}

#[test]
fn nothing_but_outputs_and_scratch_can_be_written() {
    succeeds("for path in /x /etc/x /usr/x /dev/x /var/x /var/lib/sarsen/store/x /var/lib/sarsen/store/in/x; do refused touch $path; done");
    succeeds("refused sh -c 'echo x > /var/lib/sarsen/store/in/data'");
    succeeds("for path in /dev/null /usr /var/lib/sarsen/store/in /var/lib/sarsen/store/in/data; do refused chmod 777 $path; done");
    succeeds("for path in /proc/sys/kernel/core_pattern /proc/self/comm; do refused sh -c \"echo x > $path\"; done");
    succeeds("touch /tmp/x /build/x /dev/shm/x $out/x; echo > /dev/null");
}

#[test]
fn there_are_no_privileges() {
    succeeds("test \"$(grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | sort -u)\" = 0000000000000000");
    succeeds("grep -q '^NoNewPrivs:.1' /proc/self/status; grep -q '^Seccomp:.2' /proc/self/status");
    succeeds("test \"$(id -u):$(id -g)\" = 1000:100; test \"$(id -un)\" = build");
    succeeds("refused unshare -r true; refused unshare -n true; refused mount -t tmpfs x /tmp");
    succeeds("touch f; refused chmod 4755 f; refused chmod g+s f; chmod 755 f");
    succeeds(
        "python3 -c 'import os,sys\ntry: os.setxattr(\"source\",\"user.x\",b\"y\")\nexcept OSError as e: sys.exit(e.errno != 95)\nsys.exit(1)'",
    );
    succeeds("refused readlink /proc/1/exe; refused cat /proc/1/environ; ulimit -c | grep -qx 0");
}

#[test]
fn the_surroundings_are_fixed() {
    succeeds("test \"$(uname -n)\" = sarsen; test \"$(umask)\" = 0022; test \"$(pwd)\" = /build; test \"$(env | wc -l)\" -le 4");
    succeeds("refused read line; test -z \"${line:-}\"");
    // Threads work although clone3 is refused.
    succeeds("python3 -c 'import threading; t = threading.Thread(target=print); t.start(); t.join()'");
}

#[test]
fn the_exit_code_is_that_of_the_script() {
    for user in users() {
        assert_eq!(run_as(user, "exit 7", 60).code, 7);
        assert_eq!(run_as(user, "false; echo not reached", 60).code, 1);
        assert_eq!(run_as(user, "echo $unset", 60).code, 2);
        assert_eq!(run_as(user, "kill -TERM $$", 60).code, 101);
    }
}

#[test]
fn a_late_script_is_killed_with_all_its_children() {
    for user in users() {
        let started = Instant::now();
        let ran = run_as(user, "sleep 4711 & setsid sleep 4712 & echo started; sleep 4713", 1);
        assert_eq!((ran.code, ran.log.as_str()), (102, "started\n"));
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn what_the_script_leaves_running_does_not_outlive_it() {
    for user in users() {
        let started = Instant::now();
        let ran = run_as(user, "setsid sh -c 'while :; do echo x > $out/x; done' & sleep 4714 & exit 0", 60);
        assert_eq!(ran.code, 0, "{}", ran.log);
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!(fs::remove_dir_all(&ran.output).is_ok(), "something still writes");
    }
}

#[test]
fn a_killed_caller_takes_the_build_along() {
    for user in users() {
        let Prepared { mut command, directory } = prepare(user, "exec 3> $out/fifo; echo started >&3; setsid sleep 4715 & sleep 4716", 60);
        let fifo = directory.path().join("out").join("fifo");
        assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&fifo).status().unwrap().success());
        let mut caller = command.spawn().unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(fs::File::open(fifo).unwrap()).lines();
            told.send(lines.next().and_then(Result::ok)).unwrap();
            // The end comes when no process of the build is left.
            told.send(lines.next().and_then(Result::ok)).unwrap();
        });
        let limit = Duration::from_secs(20);
        assert_eq!(heard.recv_timeout(limit), Ok(Some("started".to_owned())));
        caller.kill().unwrap();
        caller.wait().unwrap();
        assert_eq!(heard.recv_timeout(limit), Ok(None), "as user {user}");
    }
}

#[test]
fn inherited_descriptors_do_not_reach_the_build() {
    let Prepared { command, directory } = prepare(current_user(), "test ! -e /proc/$$/fd/7; ls /proc/$$/fd", 60);
    let words: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_str().unwrap().to_owned()).collect();
    let status = Command::new("sh").args(["-c", "exec 7< /etc/passwd; exec \"$@\"", "sh"]).args(&words).status().unwrap();
    assert!(status.success(), "{:?}", fs::read_to_string(directory.path().join("log")));
}

/// Runs a script that may be silent for a second.
fn run_silently(user: u32, script: &str) -> Ran {
    let Prepared { mut command, directory } = prepare(user, script, 60);
    let words: Vec<std::ffi::OsString> = command.get_args().map(|word| if word == "3600" { "1".into() } else { word.to_owned() }).collect();
    command = Command::new(command.get_program());
    let status = command.args(words).status().unwrap();
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    Ran { code: status.code().unwrap_or(-1), log, output: directory.path().join("out"), _directory: directory }
}

#[test]
fn a_silent_script_is_killed_and_a_slow_one_is_not() {
    let slow = run_silently(current_user(), "for i in 1 2 3 4 5 6; do echo $i; sleep 0.4; done");
    assert_eq!(slow.code, 0, "{}", slow.log);
    let silent = run_silently(current_user(), "echo started; sleep 4717");
    assert_eq!((silent.code, silent.log.as_str()), (104, "started\n"));
}

#[test]
fn processes_and_files_have_limits() {
    let before = fs::read("/proc/sys/kernel/pid_max").unwrap();
    succeeds("bash -euc 'test $(ulimit -u) -le 4096; test $(ulimit -f) -le $((64 << 20))'");
    succeeds("refused truncate -s 65G big; truncate -s 63G big");
    succeeds("test \"$(cat /proc/self/oom_score_adj)\" = 1000");
    for user in users() {
        let bomb = "import os,sys\ntry:\n  for n in range(6000):\n    if os.fork() == 0: os.read(r, 1); os._exit(0)\nexcept OSError as e: print(n, e.errno); sys.exit(7)";
        let ran = run_as(user, &format!("exec python3 -c 'import os; r, w = os.pipe()\n{bomb}'"), 60);
        let count: u64 = ran.log.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(u64::MAX);
        assert!(ran.code == 7 && count <= 4096, "as user {user}: {} {}", ran.code, ran.log);
    }
    assert_eq!(fs::read("/proc/sys/kernel/pid_max").unwrap(), before, "the machine's own limit");
}

#[test]
fn a_stage_whose_parent_has_ended_does_not_go_on() {
    // The number of a process that is not the parent: as if the caller had ended before the stage asked for its death signal.
    for arguments in [&["__sandbox", "1"][..], &["__sandbox"], &["__sandbox", "init"], &["__sandbox", "init", "77"]] {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let status = Command::new(PROBE).args(arguments).stdin(std::os::fd::OwnedFd::from(theirs)).status().unwrap();
        assert!(status.success());
        let mut report = String::new();
        std::io::Read::read_to_string(&mut ours, &mut report).unwrap();
        assert!(report.contains("die with the parent"), "{arguments:?}: {report}");
    }
}

#[test]
fn a_long_log_is_cut() {
    let ran = run_as(current_user(), "head -c 20000000 /dev/zero; echo end", 60);
    assert_eq!(ran.code, 0);
    assert!((ran.log.len() as u64) < LOG_BYTES_MAX + 200);
}

#[test]
fn without_namespaces_the_error_names_the_setting() {
    // A user namespace in which no further one may be made.
    let directory = tempfile::tempdir().unwrap();
    let spec = directory.path().join("spec");
    let here = |name: &str| -> PathBuf { Path::new(directory.path()).join(name) };
    let empty = Spec {
        script: "true".to_owned(),
        environment: BTreeMap::new(),
        root: here("root"),
        build: here("build"),
        store: STORE.into(),
        inputs: BTreeMap::new(),
        outputs: BTreeMap::new(),
    };
    fs::write(&spec, serde_json::to_vec(&empty).unwrap()).unwrap();
    let script =
        format!("echo 0 > /proc/sys/user/max_user_namespaces; exec {PROBE} run {} {} 20 20", spec.display(), here("log").display());
    let status = Command::new("unshare").args(["--user", "--map-root-user", "sh", "-c", &script]).status().unwrap();
    let log = fs::read_to_string(here("log")).unwrap();
    assert_eq!(status.code(), Some(103), "{log}");
    assert!(log.starts_with("no sandbox possible: make new namespaces"), "{log}");
    assert!(log.contains("`user.max_user_namespaces`"), "{log}");
}
