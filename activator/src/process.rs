//! The owner of child processes on a target: runs one program with a deadline and brings its last words home.
//!
//! A program gets a process group of its own, no standard input, an environment with nothing in it but what is stated
//! here, and a deadline at which the whole group is killed. Its output, both streams in one, is kept from the end and up
//! to [`OUTPUT_BYTES_MAX`]; control characters are taken out before anybody sees it, because it is foreign text.
//! Users are looked up in `accounts`, never through the C library: the binary is static.
#![expect(clippy::disallowed_methods, reason = "this file owns the child processes of the activator")]

use std::collections::BTreeMap;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use accounts::{Account, AccountError};

pub mod accounts;

/// The search path of every child.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a child's output is kept, in bytes: its end, where the reason of a failure stands.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// How long output is still read after the program ended, while a process that it left behind holds the pipe.
const DRAIN: Duration = Duration::from_millis(200);

/// A program to run.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The program: an absolute path, or a name that is looked up in [`SEARCH_PATH`].
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables beside `PATH`, `HOME` and `LANG`; they win over these.
    pub environment: BTreeMap<String, String>,
    /// The directory it starts in.
    pub directory: PathBuf,
    /// The user it runs as; whoever runs this process if absent.
    pub user: Option<String>,
    /// How long it may take until it is killed with all of its process group.
    pub deadline: Duration,
}

/// A program that ended by itself.
#[derive(Debug, Clone)]
pub struct Completed {
    /// How it ended.
    pub status: ExitStatus,
    /// The end of what it printed, without control characters other than line ends and tabs.
    pub output: String,
}

/// A program that did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Its user is unknown or cannot be used.
    #[error("cannot start `{program}` as user `{user}`")]
    User {
        /// The program.
        program: String,
        /// The user.
        user: String,
        /// The cause.
        #[source]
        source: AccountError,
    },
    /// It ran too long and was killed.
    #[error("`{program}` did not end within {milliseconds} ms and was killed")]
    Deadline {
        /// The program.
        program: String,
        /// The deadline in milliseconds.
        milliseconds: u128,
        /// The end of what it had printed.
        output: String,
    },
    /// The kernel would not let us watch it.
    #[error("cannot watch `{program}`")]
    Watch {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Invocation {
    /// A program with its arguments, started in `/` as the present user.
    pub fn new(program: &str, arguments: &[&str], deadline: Duration) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: BTreeMap::new(),
            directory: PathBuf::from("/"),
            user: None,
            deadline,
        }
    }

    /// A shell command that stops at the first failure and at unset variables.
    pub fn shell(command: &str, deadline: Duration) -> Self {
        Self::new("/bin/sh", &["-eu", "-c", command], deadline)
    }

    /// Runs the program to its end.
    ///
    /// Whatever is left of its process group when it ends is killed; a hook that wants to leave a process behind makes a
    /// session for it.
    pub fn run(&self) -> Result<Completed, ProcessError> {
        let watch = |source: io::Error| ProcessError::Watch { program: self.program.clone(), source };
        let end = Instant::now() + self.deadline;
        let (reader, writer) = io::pipe().map_err(watch)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.directory);
        command.stdout(writer.try_clone().map_err(watch)?).stderr(writer);
        let mut child = spawn(command, &self.environment, self.user.as_deref())?;
        let watched = watch_until(&mut child, reader, end);
        if watched.is_err() {
            // Nobody would ever stop it. That it cannot be waited for either is no worse than the error that is told.
            kill_group(child.id(), Signal::KILL);
            let _ = child.wait();
        }
        watched.map_err(watch)?.map_err(|output| ProcessError::Deadline {
            program: self.program.clone(),
            milliseconds: self.deadline.as_millis(),
            output,
        })
    }
}

/// Starts a prepared command with no input, its own process group and a clean environment, as `user` if one is named.
///
/// The credentials are dropped on a thread that ends here and that the child is started from: groups, then group, then
/// user, so that nothing is left to climb back with. Supplementary groups come from `/etc/group`.
pub fn spawn(mut command: Command, environment: &BTreeMap<String, String>, user: Option<&str>) -> Result<Child, ProcessError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let account = match user {
        None => Account::own(),
        Some(user) => {
            Account::find(user).map_err(|source| ProcessError::User { program: program.clone(), user: user.to_owned(), source })?
        }
    };
    command.env_clear().env("PATH", SEARCH_PATH).env("LANG", "C.UTF-8").env("HOME", &account.home);
    if user.is_some() {
        command.env("USER", &account.name).env("LOGNAME", &account.name);
    }
    command.envs(environment).stdin(Stdio::null()).process_group(0);
    let start = move || {
        if user.is_some() {
            account.assume()?;
        }
        // The command owns our ends of its pipes: they are closed when it is dropped here.
        command.spawn()
    };
    let started = std::thread::scope(|scope| scope.spawn(start).join());
    let started = started.unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")));
    started.map_err(|source| ProcessError::Start { program, source })
}

/// Kills every process of a group; one that is gone already is fine.
pub fn kill_group(leader: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // An error means that nobody is left, or nobody whom we may kill.
        let _ = kill_process_group(pid, signal);
    }
}

/// Takes control characters out of foreign text, so that it cannot write to a terminal what it likes.
///
/// Line ends and tabs stay; carriage returns and escape sequences do not.
pub fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let keep = |character: &char| !character.is_control() || matches!(character, '\n' | '\t');
    text.chars().filter(keep).collect::<String>().trim_end().to_owned()
}

/// The last `lines` lines of a text.
pub fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// How a program ended, in words: `exit code 3` or `signal 9`.
pub fn describe_status(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Reads the child's output until it ends or time is up; the inner error is the output of a child that was killed.
fn watch_until(child: &mut Child, mut reader: PipeReader, end: Instant) -> io::Result<Result<Completed, String>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let mut tail = Tail::default();
    let mut open = true;
    let in_time = loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut watched = vec![PollFd::new(&ended, PollFlags::IN)];
        if open {
            watched.push(PollFd::new(&reader, PollFlags::IN));
        }
        let ready = wait_ready(&mut watched, left)?;
        let exited = !watched[0].revents().is_empty();
        let readable = open && !watched[1].revents().is_empty();
        if readable {
            open = tail.read_from(&mut reader)?;
        } else if exited {
            break true;
        }
        if !ready || end <= Instant::now() {
            break exited;
        }
    };
    // Before the child is waited for, so that its number cannot have become another's.
    kill_group(child.id(), Signal::KILL);
    drain(&mut reader, &mut tail, open)?;
    let status = child.wait()?;
    let output = clean(&tail.into_bytes());
    Ok(if in_time { Ok(Completed { status, output }) } else { Err(output) })
}

fn drain(reader: &mut PipeReader, tail: &mut Tail, mut open: bool) -> io::Result<()> {
    let end = Instant::now() + DRAIN;
    while open && Instant::now() < end {
        let ready = {
            let mut watched = [PollFd::new(reader, PollFlags::IN)];
            wait_ready(&mut watched, end.saturating_duration_since(Instant::now()))?
        };
        open = ready && tail.read_from(reader)?;
    }
    Ok(())
}

/// Waits until one of the descriptors is ready; false when the time is up.
pub(crate) fn wait_ready(watched: &mut [PollFd<'_>], time: Duration) -> io::Result<bool> {
    let time = Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) };
    match poll(watched, Some(&time)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The end of a stream.
#[derive(Default)]
struct Tail(std::collections::VecDeque<u8>);

impl Tail {
    /// Reads what is there; false at the end of the stream.
    fn read_from(&mut self, reader: &mut (impl Read + AsFd)) -> io::Result<bool> {
        let mut buffer = [0_u8; 16 << 10];
        let length = match reader.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        self.0.extend(&buffer[..length]);
        let excess = self.0.len().saturating_sub(OUTPUT_BYTES_MAX);
        self.0.drain(..excess);
        Ok(length > 0)
    }

    fn into_bytes(self) -> Vec<u8> {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(command: &str, deadline: Duration) -> Result<Completed, ProcessError> {
        Invocation::shell(command, deadline).run()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn keeps_the_end_of_the_output_and_takes_out_control_characters() {
        let done = shell(r"head -c 300000 /dev/zero | tr '\0' a; printf '\033[31mred\r\n'; echo err >&2; exit 3", LONG).unwrap();
        assert_eq!(done.status.code(), Some(3));
        assert!(done.output.ends_with("a[31mred\nerr"), "{}", last_lines(&done.output, 1));
        assert!(done.output.len() <= OUTPUT_BYTES_MAX);
    }

    #[test]
    fn gives_the_child_nothing_but_the_stated_environment() {
        let mut invocation = Invocation::new("env", &[], LONG);
        invocation.environment.insert("X".to_owned(), "1".to_owned());
        let output = invocation.run().unwrap().output;
        let mut names: Vec<&str> = output.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LANG", "PATH", "X"]);
    }

    #[test]
    fn kills_the_whole_group_at_the_deadline_and_reports_what_was_said() {
        let begun = Instant::now();
        let error = shell("echo before; sleep 60 & sleep 60", Duration::from_millis(300)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(error.to_string(), "`/bin/sh` did not end within 300 ms and was killed");
        let ProcessError::Deadline { output, .. } = error else { panic!("not a deadline") };
        assert_eq!(output, "before");
    }

    #[test]
    fn does_not_wait_for_a_process_that_was_left_behind_with_the_pipe() {
        let begun = Instant::now();
        let done = shell("setsid sleep 5 & echo started", LONG).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(4));
        assert_eq!(done.output, "started");
    }

    #[test]
    fn names_a_program_and_a_user_that_do_not_exist() {
        let error = Invocation::new("/nonexistent/program", &[], LONG).run().unwrap_err();
        assert_eq!(error.to_string(), "cannot start `/nonexistent/program`");
        let mut invocation = Invocation::new("true", &[], LONG);
        invocation.user = Some("nobody-of-that-name".to_owned());
        assert_eq!(invocation.run().unwrap_err().to_string(), "cannot start `true` as user `nobody-of-that-name`");
    }

    #[test]
    fn drops_to_the_named_user_when_it_may() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut invocation = Invocation::shell("id -u; id -g; grep ^CapEff /proc/self/status; echo $HOME", LONG);
        invocation.user = Some("daemon".to_owned());
        assert_eq!(invocation.run().unwrap().output, "1\n1\nCapEff:\t0000000000000000\n/usr/sbin");
    }
}
