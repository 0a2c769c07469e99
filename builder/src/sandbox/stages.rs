//! The two stages inside: the one that makes the namespaces, and process 1 in them.
//!
//! Both have the caller's socket as standard input: each reads one copy of the specification from it, one of them writes one report.
//! The script gets neither the socket nor any other descriptor. Both stages are single-threaded.
#![expect(clippy::disallowed_methods, reason = "owner of the processes in a sandbox")]

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::{ENTRY_ARGUMENT, Ending, Spec, mounts, network, privileges};

/// The second argument of process 1.
const INIT_ARGUMENT: &str = "init";

/// The longest message on the socket, in bytes: a script of some MiB with thousands of inputs.
const MESSAGE_BYTES_MAX: u32 = 64 << 20;

/// User and group inside, as in other builders, so that recipes which look at them see what they know.
const USER_INSIDE: u32 = 1000;
/// The group: `users`.
const GROUP_INSIDE: u32 = 100;

/// What a stage reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report {
    /// The script ran.
    Ended(Ending),
    /// It did not come to that.
    Failed(Failure),
}

/// A step of the set-up that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) operation: String,
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl Failure {
    /// For `map_err`: `operation` failed with an error number.
    pub(super) fn at<E: Into<io::Error>>(operation: impl Into<String>) -> impl FnOnce(E) -> Self {
        let operation = operation.into();
        move |error| {
            let error: io::Error = error.into();
            let refused = matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSPC | libc::EACCES | libc::EINVAL | libc::ENOSYS));
            Self { operation, reason: error.to_string(), hint: refused.then(hint) }
        }
    }

    /// `operation` failed for another reason.
    pub(super) fn text(operation: &str, reason: &dyn std::fmt::Display) -> Self {
        Self { operation: operation.to_owned(), reason: reason.to_string(), hint: None }
    }
}

/// Settings that forbid namespaces: file below `/proc/sys`, forbidding value, what to do.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("kernel/unprivileged_userns_clone", "0", "set the sysctl `kernel.unprivileged_userns_clone` to 1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "set the sysctl `kernel.apparmor_restrict_unprivileged_userns` to 0, or give sarsen an AppArmor profile with `userns`",
    ),
    ("user/max_user_namespaces", "0", "set the sysctl `user.max_user_namespaces` to 1000 or more"),
    ("user/max_mnt_namespaces", "0", "set the sysctl `user.max_mnt_namespaces` to 1000 or more"),
    ("user/max_net_namespaces", "0", "set the sysctl `user.max_net_namespaces` to 1000 or more"),
];

fn hint() -> String {
    for (file, forbidding, advice) in SETTINGS {
        let path = std::path::Path::new("/proc/sys").join(file);
        let value = sarsen_store::fsutil::read_file_bounded(&path, 64).ok();
        if value.is_some_and(|value| value.trim_ascii() == forbidding.as_bytes()) {
            return (*advice).to_owned();
        }
    }
    let general = "the usual settings allow it; inside a container, its runtime must allow user namespaces and mounting /proc \
        (docker: `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`)";
    general.to_owned()
}

/// Runs the stage that the second argument names.
pub(super) fn enter() -> ExitCode {
    let mut arguments = std::env::args().skip(2);
    let result = match (arguments.next().as_deref(), arguments.next()) {
        (Some(INIT_ARGUMENT), sign) => init(sign.as_deref()),
        (caller, _) => outer(caller),
    };
    match result {
        Ok(code) => code,
        Err(failure) => match send(&Report::Failed(failure)) {
            Ok(()) => ExitCode::SUCCESS,
            // Nobody listens any more.
            Err(_) => ExitCode::FAILURE,
        },
    }
}

/// The first stage: new namespaces, user mapping, process 1.
fn outer(caller: Option<&str>) -> Result<ExitCode, Failure> {
    die_with_parent()?;
    // Before the call above nobody would have been told of the caller's death; after it, everybody is.
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().to_string());
    if parent.as_deref() != caller {
        return Err(Failure::text("die with the parent", &"the caller has ended already"));
    }
    drop(receive()?);
    close_inherited()?;
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if user == 0 {
        // Refused where this root user is one of a user namespace; its groups mean nothing outside of that then.
        let _ = rustix::thread::set_thread_groups(&[]);
    }
    let flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    #[expect(deprecated, reason = "deprecated because CLONE_FILES through it is unsound; that flag is not among these")]
    rustix::thread::unshare(flags).map_err(Failure::at("make new namespaces"))?;
    // Without this an unprivileged process may not write a group mapping (user_namespaces(7)).
    write_proc("setgroups", "deny")?;
    write_proc("uid_map", &format!("{USER_INSIDE} {user} 1"))?;
    write_proc("gid_map", &format!("{GROUP_INSIDE} {group} 1"))?;
    // New credentials clear the death signal.
    die_with_parent()?;
    // Where memory runs out, a build goes before anything that the machine is there for.
    write_proc("oom_score_adj", "1000")?;
    privileges::keep_for_process_1()?;
    let (sign, _life) = sign_of_life()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(ENTRY_ARGUMENT).arg(INIT_ARGUMENT).arg(sign.as_raw_fd().to_string()).env_clear().stdin(Stdio::inherit());
    let status = command.status().map_err(Failure::at("start process 1"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Process 1: builds the root, drops privileges, runs the script, reports.
fn init(sign: Option<&str>) -> Result<ExitCode, Failure> {
    die_with_parent()?;
    end_without(sign)?;
    // Nobody inside may look into this process: it holds the socket.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(Failure::at("hide process 1"))?;
    let spec = receive()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::setsid().map_err(Failure::at("start a session"))?;
    rustix::system::sethostname(b"sarsen").map_err(Failure::at("set the host's name"))?;
    rustix::system::setdomainname(b"(none)").map_err(Failure::at("set the domain's name"))?;
    network::raise_loopback().map_err(Failure::at("bring up the loopback interface"))?;
    mounts::enter_root(&spec)?;
    privileges::drop_all()?;
    let mut command = Command::new("/bin/sh");
    command.arg("-eu").arg(mounts::SCRIPT_PATH).current_dir(mounts::BUILD_PATH).env_clear().envs(&spec.environment).stdin(Stdio::null());
    let mut child = command.spawn().map_err(Failure::at("start `/bin/sh`"))?;
    let ending = reap_until(&mut child)?;
    send(&Report::Ended(ending)).map_err(Failure::at("report"))?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the script, and for whatever else ends meanwhile: orphans become children of process 1.
///
/// When process 1 ends afterwards, the kernel kills all that is left.
fn reap_until(script: &mut std::process::Child) -> Result<Ending, Failure> {
    let script = i32::try_from(script.id()).map_err(|error| Failure::text("wait for the script", &error))?;
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == script => {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                return Ok(match (status.code(), status.signal()) {
                    (Some(code), _) => Ending::Exited(code),
                    (None, signal) => Ending::Signalled(signal.unwrap_or_default()),
                });
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::at("wait for the script")(error)),
        }
    }
}

fn die_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Failure::at("die with the parent"))
}

/// A pipe that says whether this process lives: process 1 cannot see its parent by number, which is outside of its namespace.
///
/// The first end is inherited; the second is closed by this process's death alone.
fn sign_of_life() -> Result<(PipeReader, PipeWriter), Failure> {
    let (reader, writer) = io::pipe().map_err(Failure::at("make a pipe for process 1"))?;
    rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).map_err(Failure::at("pass a pipe to process 1"))?;
    Ok((reader, writer))
}

/// Fails if the parent has ended; from now on its death is told. `sign` is the number of the pipe of [`sign_of_life`].
fn end_without(sign: Option<&str>) -> Result<(), Failure> {
    let failed = |reason: &dyn std::fmt::Display| Failure::text("die with the parent", reason);
    let number: i32 = sign.and_then(|sign| sign.parse().ok()).filter(|number| *number > 2).ok_or_else(|| failed(&"no sign of its life"))?;
    fcntl(number, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|error| failed(&error))?;
    // Opened anew, since the flag of the inherited end would be that of both.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let pipe = rustix::fs::open(format!("/proc/self/fd/{number}"), flags, rustix::fs::Mode::empty());
    match pipe.and_then(|pipe| rustix::io::read(pipe, &mut [0; 1])) {
        // Nothing to read, but a writer.
        Err(Errno::AGAIN) => Ok(()),
        Ok(_) => Err(failed(&"it has ended already")),
        Err(error) => Err(Failure::at("look for the parent")(error)),
    }
}

/// Marks everything above standard error, whoever opened it, to be closed when the next program starts (runc, CVE-2024-21626).
fn close_inherited() -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::at("list open descriptors")(error);
    for entry in std::fs::read_dir("/proc/self/fd").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(descriptor) = name.to_str().and_then(|name| name.parse::<i32>().ok()).filter(|descriptor| *descriptor > 2) else {
            continue;
        };
        // The one of the listing itself is closed by the time of the call, or marked already.
        let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
    Ok(())
}

fn write_proc(file: &str, text: &str) -> Result<(), Failure> {
    let path = format!("/proc/self/{file}");
    let written = std::fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(Failure::at(format!("write `{path}`")))
}

/// Reads one specification from the socket.
fn receive() -> Result<Spec, Failure> {
    let bytes = read_message(&mut DirectInput).map_err(Failure::at("read the specification"))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::text("read the specification", &error))
}

fn send(report: &Report) -> io::Result<()> {
    let bytes = serde_json::to_vec(report).map_err(io::Error::other)?;
    write_message(&mut DirectInput, &bytes)
}

/// Writes a message: its length as u32, little-endian, then the bytes.
pub(super) fn write_message(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the specification is longer than 64 MiB"))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)
}

/// Reads a message, and not one byte more.
pub(super) fn read_message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == u64::from(length) { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Standard input without a buffer, in both directions: what is read ahead here would be missing in the next stage.
struct DirectInput;

impl Read for DirectInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io::stdin(), buffer)?)
    }
}

impl Write for DirectInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A socket whose other end is closed must give an error, not a signal.
        Ok(rustix::net::send(io::stdin(), bytes, rustix::net::SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
