//! The program on a target: `serve` for operators, `activate` for one trial, `settle` for boot and dead man, `supervise` for
//! development, `rollback` for whoever stands at the machine.
//!
//! Arguments are read by hand: this program is pushed to every target and stays small. Standard output carries frames for
//! `serve` and `activate`, one line of outcome for the others; standard error carries what people should know.
//! Exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 rolled back, 5 rollback failed, 7 locked.

#![expect(clippy::wildcard_enum_match_arm, reason = "of all requests and responses each place here expects a few")]

mod arguments;

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use sarsen_activator::activate::{Confirmation, Engine, Task};
use sarsen_activator::error::describe;
use sarsen_activator::goback::Verification;
use sarsen_activator::layout::{Layout, ProfileLayout, ProfileName};
use sarsen_activator::machine::{Host, Machine};
use sarsen_activator::process::accounts::Account;
use sarsen_activator::protocol::{Claim, PROTOCOL_VERSION, REQUEST, RESPONSE, Request, Response, Trial};
use sarsen_activator::retention::{self, CollectError, Collected};
use sarsen_activator::{clock, serve, supervisor};
use sarsen_store::gc::Retention;
use sarsen_store::manifest::Identity;
use sarsen_store::wire::{FrameReader, FrameWriter};
use sarsen_store::{Digest, ObjectStore, fsutil};

use arguments::{Arguments, Command, USAGE};

/// How long a rollback by hand would wait for a confirmation, which it does not need.
const CONFIRM_TIMEOUT_MS: u64 = 60_000;

/// The longest program that is installed, in bytes; a debug build has some 30 MiB.
const BINARY_BYTES_MAX: u64 = 256 << 20;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            say(&format!("sarsen-activator: {error}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    let root = arguments.root.clone().unwrap_or_else(default_root);
    let layout = Layout::new(&root);
    match run(&arguments, &layout) {
        Ok(code) => code,
        Err(message) => {
            say(&format!("sarsen-activator: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, layout: &Layout) -> Result<ExitCode, String> {
    match &arguments.command {
        Command::Help => {
            print(USAGE);
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve => {
            serve::serve(layout, io::stdin().lock(), io::stdout().lock()).map(|()| ExitCode::SUCCESS).map_err(|error| describe(&error))
        }
        Command::Activate { profile } => activate(&layout.profile(profile)),
        Command::Settle { profile } => settle(layout, profile.as_ref()),
        Command::Supervise { profile, part } => {
            supervisor::supervise(layout.root(), profile.as_str(), *part).map(|()| ExitCode::SUCCESS).map_err(|error| describe(&error))
        }
        Command::Rollback { profile, to, reason } => rollback(&layout.profile(profile), *to, reason.clone()),
        Command::Collect { profile, retention } => collect(layout, profile.as_ref(), *retention),
        Command::Install { digest } => install(layout, *digest),
    }
}

/// The trial: its task comes by frames on standard input, its reports go by frames to standard output, if anybody listens.
fn activate(profile: &ProfileLayout) -> Result<ExitCode, String> {
    // A session of its own: neither the operator's terminal nor the end of the connection can signal it. It fails
    // only for the leader of a process group, which has what is wanted.
    let _ = rustix::process::setsid();
    let mut reader = FrameReader::new(io::stdin().lock());
    let identity = match read_request(&mut reader)? {
        Request::Hello { version: PROTOCOL_VERSION, identity, .. } => identity,
        other => return Err(format!("the task began with {other:?}")),
    };
    let task = match read_request(&mut reader)? {
        Request::Activate(activation) => Task::Activate(activation),
        Request::Rollback { to, trial } => Task::Rollback { to, trial },
        other => return Err(format!("the task is {other:?}")),
    };
    let writer = RefCell::new(FrameWriter::new(io::stdout()));
    let report = |response: Response| {
        let payload = serde_json::to_vec(&response).expect("strings and integers always serialise");
        let mut writer = writer.borrow_mut();
        // The trial goes on when nobody listens any more.
        let _ = writer.write(RESPONSE, &payload).and_then(|()| writer.flush());
    };
    let host = Host::detect(profile);
    let outcome = Engine { profile, machine: &host, report: &report }.carry_out(&task, Some(&identity), Confirmation::Awaited);
    let code = exit_code(&outcome);
    report(outcome);
    Ok(code)
}

fn read_request(reader: &mut FrameReader<impl io::Read>) -> Result<Request, String> {
    let frame = reader.read().map_err(|error| describe(&error))?.ok_or("there is no task on standard input")?;
    if frame.kind != REQUEST {
        return Err(format!("a message of kind {:#04x} is no task", frame.kind));
    }
    serde_json::from_slice(&frame.payload).map_err(|error| format!("the task is not understood: {error}"))
}

/// Gives this program its place below the root, if it is the one that the operator sent: what was cut short is not.
fn install(layout: &Layout, digest: Digest) -> Result<ExitCode, String> {
    let program = fsutil::read_file_bounded(Path::new("/proc/self/exe"), BINARY_BYTES_MAX).map_err(|error| describe(&error))?;
    let found = Digest::of(&program);
    if found != digest {
        return Err(format!("the received activator has the digest {found}, not {digest}"));
    }
    let place = layout.root().join("bin").join(format!("sarsen-activator-{digest}"));
    fsutil::replace_file(&place, &program, 0o755).map_err(|error| describe(&error))?;
    Ok(ExitCode::SUCCESS)
}

/// Settles what was left behind, in one profile or all.
fn settle(layout: &Layout, only: Option<&ProfileName>) -> Result<ExitCode, String> {
    let profiles = match only {
        Some(profile) => vec![profile.clone()],
        None => list_profiles(layout)?,
    };
    let mut code = ExitCode::SUCCESS;
    for name in profiles {
        let profile = layout.profile(&name);
        let host = Host::detect(&profile);
        // A trial of another boot is settled while this one goes on: services start when that is done.
        let rebooted = profile.read_pending().ok().flatten().is_some_and(|pending| pending.boot_id != host.moment().boot_id);
        let verification = if rebooted { Verification::LeftToBoot } else { Verification::Now };
        let engine = Engine { profile: &profile, machine: &host, report: &say_event };
        match engine.settle_if_free(verification) {
            Ok(Some(Response::RollbackFailed { .. })) => code = ExitCode::from(5),
            // One profile is named by its dead man, who comes again and again until he is let go.
            Ok(None) if only.is_some() && profile.directory().is_dir() => {
                engine.dismiss_dead_man().unwrap_or_else(|error| say(&format!("profile {name}: {}", describe(&error))));
            }
            Ok(_) => {}
            Err(error) => {
                say(&format!("profile {name}: {}", describe(&error)));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// Collects one profile or all, by a policy. Other profiles go on when one cannot be collected.
fn collect(layout: &Layout, only: Option<&ProfileName>, policy: Retention) -> Result<ExitCode, String> {
    let profiles = match only {
        Some(profile) => vec![profile.clone()],
        None => list_profiles(layout)?,
    };
    let store = ObjectStore::open(layout.root()).map_err(|error| describe(&error))?;
    let mut code = ExitCode::SUCCESS;
    for name in profiles {
        match retention::collect(&layout.profile(&name), &store, policy, clock::now()) {
            Ok(Collected { generations, report }) => {
                let numbers: Vec<String> = generations.iter().map(u64::to_string).collect();
                let given_up = if numbers.is_empty() { String::from("none") } else { numbers.join(", ") };
                print(&format!(
                    "profile {name}: generations given up: {given_up}; {} objects removed, {} bytes freed",
                    report.objects, report.bytes
                ));
            }
            Err(error) => {
                say(&format!("sarsen-activator: profile {name}: {}", describe(&error)));
                code = if matches!(error, CollectError::Locked { .. }) { ExitCode::from(7) } else { ExitCode::FAILURE };
            }
        }
    }
    Ok(code)
}

fn list_profiles(layout: &Layout) -> Result<Vec<ProfileName>, String> {
    let entries = match std::fs::read_dir(layout.profiles()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot list `{}`: {error}", layout.profiles().display())),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut names: Vec<ProfileName> = names.collect();
    names.sort();
    Ok(names)
}

/// Rolls back by hand: the same trial without a confirmation, since who asks stands at the machine.
fn rollback(profile: &ProfileLayout, to: Option<u64>, reason: Option<String>) -> Result<ExitCode, String> {
    let identity: Option<Identity> = profile.read_identity().map_err(|error| describe(&error))?;
    if identity.is_none() {
        return Err(format!("profile `{}` has never been deployed below `{}`", profile.name(), profile.layout().root().display()));
    }
    let nonce = fsutil::random_name().map_err(|error| describe(&error))?;
    let who = format!("{}@{}", Account::own().name, rustix::system::uname().nodename().to_string_lossy());
    let task = Task::Rollback {
        to,
        trial: Trial { nonce, confirm_timeout_ms: CONFIRM_TIMEOUT_MS, who, revision: None, message: reason, claim: Claim::OwnOnly },
    };
    let host = Host::detect(profile);
    let outcome = Engine { profile, machine: &host, report: &say_event }.carry_out(&task, None, Confirmation::NotNeeded);
    let code = exit_code(&outcome);
    match &outcome {
        Response::Committed { generation } => print(&format!("generation {generation} is current")),
        Response::Unchanged { generation } => print(&format!("generation {generation} was current already")),
        Response::RolledBack { generation: Some(number), reason } => print(&format!("generation {number} stays current: {reason}")),
        Response::RolledBack { generation: None, reason } => print(&format!("no generation is current: {reason}")),
        Response::RollbackFailed { reason, failure } => fail(&format!("{reason}; and going back failed: {failure}")),
        Response::Refused { reasons } => fail(&reasons.join("\n")),
        Response::Locked { holder } => fail(&format!("the profile is locked by {holder}")),
        Response::Failed { message } => fail(message),
        other => return Err(format!("unexpected outcome: {other:?}")),
    }
    Ok(code)
}

fn fail(message: &str) {
    say(&format!("sarsen-activator: {message}"));
}

fn exit_code(outcome: &Response) -> ExitCode {
    match outcome {
        Response::Committed { .. } | Response::Unchanged { .. } => ExitCode::SUCCESS,
        Response::Refused { .. } => ExitCode::from(3),
        Response::RolledBack { .. } => ExitCode::from(4),
        Response::RollbackFailed { .. } => ExitCode::from(5),
        Response::Locked { .. } => ExitCode::from(7),
        _ => ExitCode::FAILURE,
    }
}

fn say_event(response: Response) {
    if let Response::Event { message } = response {
        say(&message);
    }
}

/// Where the installation is if nobody says: what `connect = "local"` and ssh use too.
fn default_root() -> std::path::PathBuf {
    let account = Account::own();
    if account.uid == 0 {
        return "/var/lib/sarsen".into();
    }
    match std::env::var_os("XDG_DATA_HOME") {
        Some(data) if Path::new(&data).is_absolute() => Path::new(&data).join("sarsen"),
        _ => account.home.join(".local/share/sarsen"),
    }
}

/// Prints a line of outcome. A reader that is gone is no error.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Tells people something.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
