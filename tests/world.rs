//! A place for one test: a copy of a fixture project, a home directory, a data directory and the processes started from it.
//!
//! Commands run with an environment of a few named variables, so that nothing of the machine's own comes in. Dropping the
//! world ends every process whose command line lies in it (services of the development supervisor outlive their deployment
//! on purpose), each by its id, and removes its files.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The user without any privilege that tests run as when it matters: Debian's `nobody`.
pub(crate) const NOBODY: u32 = 65534;

/// How long any one command may take. The longest is a first deployment to three hosts, some 20 s.
const COMMAND_DEADLINE: Duration = Duration::from_mins(5);

/// How long something that was started may take to become true.
const PATIENCE: Duration = Duration::from_secs(30);

/// The top of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the manifest lies one directory below the top")
}

/// The built `sarsen`.
pub(crate) fn sarsen_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sarsen"))
}

/// The built `sarsen-activator`, beside `sarsen`; cargo builds it only when the whole workspace is built.
pub(crate) fn activator_binary() -> PathBuf {
    let path = sarsen_binary().with_file_name("sarsen-activator");
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace` first, or tests/run", path.display());
    path
}

/// One place.
pub(crate) struct World {
    directory: tempfile::TempDir,
    user: Option<u32>,
    variables: Vec<(String, String)>,
    prefix: Vec<String>,
}

impl World {
    /// An empty place without a project.
    pub(crate) fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("sarsen-world-").tempdir().expect("a temporary directory");
        for name in ["home", "data", "bin", "project"] {
            fs::create_dir(directory.path().join(name)).expect("a directory of the world");
        }
        Self { directory, user: None, variables: Vec::new(), prefix: Vec::new() }
    }

    /// A place with a copy of `fixtures/projects/<fixture>`.
    pub(crate) fn of(fixture: &str) -> Self {
        let world = Self::empty();
        copy_tree(&repository().join("fixtures/projects").join(fixture), &world.project());
        world
    }

    /// Gives the whole place to a user, who runs everything from here on, from copies of the binaries that he can reach.
    pub(crate) fn owned_by(mut self, user: u32) -> Self {
        self.copy_binaries();
        give_tree(self.path(), user);
        self.user = Some(user);
        self
    }

    /// Sets a variable for all commands.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Lets commands reach the network as the machine's own configuration says: proxies, certificates, package indexes.
    pub(crate) fn with_network(mut self) -> Self {
        let wanted = |name: &str| name.starts_with("PIP_") || name.starts_with("SSL_CERT") || name.to_ascii_lowercase().ends_with("_proxy");
        self.variables.extend(std::env::vars().filter(|(name, _)| wanted(name)));
        self
    }

    /// Runs all commands through another program, such as `setpriv` or `nsenter`.
    pub(crate) fn through(mut self, prefix: &[&str]) -> Self {
        self.prefix = prefix.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The world's own directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The project's directory.
    pub(crate) fn project(&self) -> PathBuf {
        self.path().join("project")
    }

    /// Where programs of this world come first in the search path.
    pub(crate) fn bin(&self) -> PathBuf {
        self.path().join("bin")
    }

    /// The root of what is installed on the local machine, and the store of the build machine.
    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("data/sarsen")
    }

    /// Writes a file of the project, with its directories.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.project().join(path);
        fs::create_dir_all(path.parent().expect("a path in the project")).expect("a directory of the project");
        fs::write(&path, content).expect("a file of the project");
        if let Some(user) = self.user {
            give_tree(&self.project(), user);
        }
    }

    /// Appends to a file of the project.
    pub(crate) fn append(&self, path: &str, content: &str) {
        let old = fs::read_to_string(self.project().join(path)).expect("a file of the project");
        self.write(path, &(old + content));
    }

    /// Replaces the one occurrence of a text in a file of the project.
    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let old = fs::read_to_string(self.project().join(path)).expect("a file of the project");
        assert_eq!(old.matches(from).count(), 1, "`{from}` in {path}");
        self.write(path, &old.replace(from, to));
    }

    /// Copies both binaries into [`World::bin`]; `sarsen` finds its activator beside itself.
    pub(crate) fn copy_binaries(&self) {
        for binary in [sarsen_binary().to_path_buf(), activator_binary()] {
            let copy = self.bin().join(binary.file_name().expect("a file name"));
            if !copy.exists() {
                fs::copy(&binary, copy).expect("a copy of the binary");
            }
        }
    }

    /// Runs `sarsen` in the project's directory.
    pub(crate) fn sarsen(&self, arguments: &[&str]) -> Run {
        self.sarsen_in(&self.project(), arguments)
    }

    /// Runs `sarsen` in a directory.
    pub(crate) fn sarsen_in(&self, directory: &Path, arguments: &[&str]) -> Run {
        let copied = self.bin().join("sarsen");
        let binary = if copied.exists() { copied } else { sarsen_binary().to_path_buf() };
        self.run(directory, &binary, arguments)
    }

    fn run(&self, directory: &Path, program: &Path, arguments: &[&str]) -> Run {
        let mut words: Vec<String> = self.prefix.clone();
        if let Some(user) = self.user {
            words.extend(["setpriv".into(), format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()]);
        }
        words.push(program.display().to_string());
        words.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(directory).env_clear();
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.bin().display()));
        command.env("HOME", self.path().join("home")).env("XDG_DATA_HOME", self.path().join("data"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Run::of(&mut command, arguments, self.path())
    }

    /// Kills every process of this world, each by its id, until there is none. Tracers end by themselves with the last of what
    /// they trace, and write what they have seen.
    pub(crate) fn end_processes(&self) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for pid in left {
                let is_tracer = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "strace");
                if !is_tracer {
                    // It may have ended between the listing and here.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The processes whose command line lies in this world.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let needle = self.path().as_os_str().as_encoded_bytes();
        let own = std::process::id();
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        pids.filter(|&pid| pid != own)
            .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(needle.len()).any(|part| part == needle)))
            .filter_map(|pid| Pid::from_raw(i32::try_from(pid).expect("process ids are small")))
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end_processes();
        make_writable(self.directory.path());
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Run {
    /// What was asked, for messages.
    pub(crate) arguments: String,
    /// The exit code.
    pub(crate) code: i32,
    /// The data.
    pub(crate) stdout: String,
    /// The talk.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) took: Duration,
    /// The world's directory, which does not belong into snapshots.
    world: String,
}

impl Run {
    fn of(command: &mut Command, arguments: &[&str], world: &Path) -> Self {
        let started = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
        let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let status = loop {
            if let Some(status) = child.try_wait().expect("the command can be waited for") {
                break status;
            }
            if started.elapsed() > COMMAND_DEADLINE {
                child.kill().expect("the command can be killed");
                child.wait().expect("the command can be waited for");
                panic!("{arguments:?} did not end within {COMMAND_DEADLINE:?}\n{}", stderr.join().unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(2));
        };
        let took = started.elapsed();
        // A service that kept the pipe open would hang the test here: that is a defect of the program, and found as such.
        let text = |handle: thread::JoinHandle<String>| handle.join().expect("the output can be read");
        Self {
            arguments: arguments.join(" "),
            code: status.code().unwrap_or(-1),
            stdout: text(stdout),
            stderr: text(stderr),
            took,
            world: world.display().to_string(),
        }
    }

    /// Insists on an exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "sarsen {}\n--- stdout\n{}\n--- stderr\n{}", self.arguments, self.stdout, self.stderr);
        self
    }

    /// Insists on a text in the output, data or talk.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(said, "`{text}` in sarsen {}\n--- stdout\n{}\n--- stderr\n{}", self.arguments, self.stdout, self.stderr);
        self
    }

    /// The data as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("sarsen {}: {error}\n{}", self.arguments, self.stdout))
    }

    /// Exit code, data and talk for a snapshot: the world's directory, ids and times replaced.
    pub(crate) fn snapshot(&self) -> String {
        let text = format!("exit code: {}\n----- stdout\n{}----- stderr\n{}", self.code, self.stdout, self.stderr);
        let text = text.replace(&self.world, "$WORLD");
        let text: String = text.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        mask_times(&mask_ids(&text))
    }
}

/// Replaces identities: words of 32 characters of the store's alphabet, and digests.
fn mask_ids(text: &str) -> String {
    map_words(text, |word| {
        let id = word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let digest = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        (id || digest).then(|| "<id>".to_owned())
    })
}

/// Replaces durations: a number directly followed by, or one blank before, `s` or `ms`.
fn mask_times(text: &str) -> String {
    let mut words: Vec<String> = text.split_inclusive([' ', '\n']).map(str::to_owned).collect();
    for index in 0..words.len() {
        let unit = words[index].trim_end().trim_end_matches([',', ')', ':', '.']).to_owned();
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if (unit == "s" || unit == "ms") && index > 0 && number(words[index - 1].trim_end().trim_start_matches('(')) {
            let former = words[index - 1].trim_start_matches('(').trim_end().to_owned();
            words[index - 1] = words[index - 1].replace(&former, "<time>");
        } else if unit.strip_suffix("ms").or(unit.strip_suffix('s')).is_some_and(|text| number(text.trim_start_matches('('))) {
            let time = unit.trim_start_matches('(').to_owned();
            words[index] = words[index].replace(&time, "<time>");
        }
    }
    words.concat()
}

fn map_words(text: &str, replacement: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::new();
    let mut word = String::new();
    for character in text.chars().chain(std::iter::once('\n')) {
        if character.is_ascii_alphanumeric() {
            word.push(character);
            continue;
        }
        result.push_str(&replacement(&word).unwrap_or_else(|| word.clone()));
        word.clear();
        result.push(character);
    }
    result.pop();
    result
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.expect("a pipe was asked for").read_to_end(&mut bytes).expect("the output can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A TCP port that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Asks for `/` or another path; gives status and body, or nothing if nobody answers.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Waits until something is so, and insists that it becomes so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Copies a directory tree of plain files.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("a directory entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn give_tree(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("changing owners needs root");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            let path = entry.expect("a directory entry").path();
            if !path.is_symlink() {
                give_tree(&path, user);
            }
        }
    }
}

/// Objects are read-only, directories too; whoever removes them must be allowed to write first.
fn make_writable(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    let mode = fs::metadata(path).map_or(0o700, |metadata| metadata.mode());
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700));
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        make_writable(&entry.path());
    }
}
