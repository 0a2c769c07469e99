//! The project's source revision, if git knows it. Owns the one child process of the command line.
#![expect(clippy::disallowed_methods, reason = "this file owns the call of git")]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long git may take, in seconds; without an answer there is no revision.
const GIT_SECONDS: i64 = 10;

/// The commit that is checked out, with `-dirty` if tracked files differ from it; nothing outside a repository or without git.
pub(crate) fn revision(project: &Path) -> Option<String> {
    let commit = git(project, &["rev-parse", "--verify", "HEAD"])?;
    let commit = commit.trim();
    if commit.is_empty() || commit.len() > 64 || !commit.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let is_clean = git(project, &["diff", "--quiet", "HEAD", "--", "."]).is_some();
    Some(if is_clean { commit.to_owned() } else { format!("{commit}-dirty") })
}

/// Runs git; its output, if it succeeds in time. What is asked for is shorter than a pipe holds.
fn git(project: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(project).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    if !ended_in_time(&child) {
        // It may have ended just now; either way it is waited for below.
        let _ = child.kill();
    }
    let succeeded = child.wait().ok()?.success();
    let mut output = String::new();
    child.stdout.take()?.take(4096).read_to_string(&mut output).ok()?;
    succeeded.then_some(output)
}

fn ended_in_time(child: &Child) -> bool {
    let Ok(descriptor) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else { return false };
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&Timespec { tv_sec: GIT_SECONDS, tv_nsec: 0 })) == Ok(1)
}
