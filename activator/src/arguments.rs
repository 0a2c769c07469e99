//! The arguments of `sarsen-activator`.

use std::ffi::OsString;
use std::path::PathBuf;

use sarsen_activator::layout::{self, ProfileName};
use sarsen_activator::supervisor::Part;
use sarsen_store::gc::Retention;
use sarsen_store::{Digest, InvalidDigest};

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
Usage: sarsen-activator COMMAND [--root DIR] [--profile NAME]

Commands:
  serve                              Answer an operator's session on standard input and output
  activate  --profile NAME           Carry out the task on standard input (used by serve)
  settle    [--profile NAME]         Give up trials that were left behind (used at boot)
  supervise --profile NAME           Run the development supervisor
  install   --digest DIGEST          Take the place of the activator with this BLAKE3 digest, if it is this program
  rollback  --profile NAME [--to N] [--reason TEXT]
                                     Return to the recorded previous generation, or to generation N; TEXT goes into the log
  collect   [--profile NAME] [--keep-last N] [--keep-days DAYS]
                                     Give up older generations (of the newest 10 and the last 30 days none), and remove what nobody needs

Options:
  --root DIR      The installation: /var/lib/sarsen for root, else ~/.local/share/sarsen
  --help          Print this";

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) root: Option<PathBuf>,
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Serve,
    Activate { profile: ProfileName },
    Settle { profile: Option<ProfileName> },
    Supervise { profile: ProfileName, part: Part },
    Rollback { profile: ProfileName, to: Option<u64>, reason: Option<String> },
    Install { digest: Digest },
    Collect { profile: Option<ProfileName>, retention: Retention },
}

/// What cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("no command is given")]
    NoCommand,
    #[error("`{0}` is not known here")]
    Unknown(String),
    #[error("`{0}` needs a value")]
    NoValue(&'static str),
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    #[error("`{command}` takes no `{option}`")]
    Misplaced { command: String, option: &'static str },
    #[error("`{0}` needs `--profile`")]
    NoProfile(String),
    #[error("the root `{0}` is not absolute")]
    RelativeRoot(String),
    #[error("`{0}` is not the number of a generation")]
    NotANumber(String),
    #[error("`{option}` wants a number, not `{value}`")]
    NotACount { option: &'static str, value: String },
    #[error("`install` needs `--digest`")]
    NoDigest,
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    #[error(transparent)]
    Profile(#[from] layout::InvalidProfile),
}

#[derive(Default)]
struct Typed {
    words: Vec<String>,
    root: Option<PathBuf>,
    profile: Option<ProfileName>,
    to: Option<u64>,
    reason: Option<String>,
    digest: Option<Digest>,
    keep_last: Option<u32>,
    keep_days: Option<u32>,
    worker: bool,
    help: bool,
}

impl Arguments {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, UsageError> {
        let typed = Typed::read(arguments)?;
        if typed.help {
            return Ok(Self { root: None, command: Command::Help });
        }
        let [name] = typed.words.as_slice() else {
            return Err(typed.words.get(1).map_or(UsageError::NoCommand, |word| UsageError::Unknown(word.clone())));
        };
        typed.check(name)?;
        let Typed { root, profile, to, reason, digest, worker, keep_last, keep_days, .. } = typed;
        let needed = |profile: Option<ProfileName>| profile.ok_or_else(|| UsageError::NoProfile(typed.words[0].clone()));
        let command = match name.as_str() {
            "serve" => Command::Serve,
            "activate" => Command::Activate { profile: needed(profile)? },
            "settle" => Command::Settle { profile },
            "supervise" => Command::Supervise { profile: needed(profile)?, part: if worker { Part::Worker } else { Part::Keeper } },
            "rollback" => Command::Rollback { profile: needed(profile)?, to, reason },
            "collect" => {
                let default = Retention::default();
                let keep_last = keep_last.unwrap_or(default.keep_last);
                Command::Collect { profile, retention: Retention { keep_last, keep_days: keep_days.unwrap_or(default.keep_days) } }
            }
            "install" => Command::Install { digest: digest.ok_or(UsageError::NoDigest)? },
            _ => return Err(UsageError::Unknown(name.clone())),
        };
        Ok(Self { root, command })
    }
}

impl Typed {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut typed = Self::default();
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy().into_owned();
            let mut value = |option| arguments.next().ok_or(UsageError::NoValue(option));
            match text.as_str() {
                "--help" | "-h" => typed.help = true,
                "--worker" => typed.worker = true,
                "--root" => {
                    let root = PathBuf::from(value("--root")?);
                    if !root.is_absolute() {
                        return Err(UsageError::RelativeRoot(root.display().to_string()));
                    }
                    set(&mut typed.root, root, "--root")?;
                }
                "--profile" => set(&mut typed.profile, value("--profile")?.to_string_lossy().parse()?, "--profile")?,
                "--digest" => set(&mut typed.digest, value("--digest")?.to_string_lossy().parse()?, "--digest")?,
                "--to" => {
                    let number = value("--to")?.to_string_lossy().into_owned();
                    set(&mut typed.to, layout::parse_generation_number(&number).ok_or(UsageError::NotANumber(number))?, "--to")?;
                }
                "--reason" => set(&mut typed.reason, value("--reason")?.to_string_lossy().into_owned(), "--reason")?,
                "--keep-last" => set(&mut typed.keep_last, count("--keep-last", &value("--keep-last")?)?, "--keep-last")?,
                "--keep-days" => set(&mut typed.keep_days, count("--keep-days", &value("--keep-days")?)?, "--keep-days")?,
                _ if text.starts_with('-') => return Err(UsageError::Unknown(text)),
                _ => typed.words.push(text),
            }
        }
        Ok(typed)
    }

    fn check(&self, command: &str) -> Result<(), UsageError> {
        let misplaced = |option| Err(UsageError::Misplaced { command: command.to_owned(), option });
        if self.to.is_some() && command != "rollback" {
            return misplaced("--to");
        }
        if self.reason.is_some() && command != "rollback" {
            return misplaced("--reason");
        }
        if self.digest.is_some() && command != "install" {
            return misplaced("--digest");
        }
        if self.keep_last.is_some() && command != "collect" {
            return misplaced("--keep-last");
        }
        if self.keep_days.is_some() && command != "collect" {
            return misplaced("--keep-days");
        }
        if self.worker && command != "supervise" {
            return misplaced("--worker");
        }
        if self.profile.is_some() && command == "serve" {
            return misplaced("--profile");
        }
        Ok(())
    }
}

fn count(option: &'static str, value: &OsString) -> Result<u32, UsageError> {
    let value = value.to_string_lossy();
    value.parse().map_err(|_| UsageError::NotACount { option, value: value.into_owned() })
}

fn set<T>(place: &mut Option<T>, value: T, option: &'static str) -> Result<(), UsageError> {
    if place.replace(value).is_some() { Err(UsageError::Twice(option)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Result<Command, &str>) {
        let parsed = Arguments::parse(line.split_whitespace().map(OsString::from));
        match expected {
            Ok(command) => assert_eq!(parsed.unwrap().command, command),
            Err(message) => assert_eq!(parsed.unwrap_err().to_string(), message),
        }
    }

    #[test]
    fn every_command_is_read_and_everything_else_refused() {
        let shop = || "shop".parse::<ProfileName>().unwrap();
        check("serve", Ok(Command::Serve));
        check("settle", Ok(Command::Settle { profile: None }));
        check("settle --root /r --profile shop", Ok(Command::Settle { profile: Some(shop()) }));
        check("--root /r rollback --profile shop --to 3", Ok(Command::Rollback { profile: shop(), to: Some(3), reason: None }));
        check("supervise --worker --profile shop", Ok(Command::Supervise { profile: shop(), part: Part::Worker }));
        let retention = |keep_last, keep_days| Retention { keep_last, keep_days };
        check("collect", Ok(Command::Collect { profile: None, retention: Retention::default() }));
        check(
            "collect --profile shop --keep-last 2 --keep-days 0",
            Ok(Command::Collect { profile: Some(shop()), retention: retention(2, 0) }),
        );
        check("anything --help", Ok(Command::Help));
        check("", Err("no command is given"));
        check("dance", Err("`dance` is not known here"));
        check("serve serve", Err("`serve` is not known here"));
        check("serve --profile shop", Err("`serve` takes no `--profile`"));
        check("settle --to 1", Err("`settle` takes no `--to`"));
        check("settle --keep-days 1", Err("`settle` takes no `--keep-days`"));
        check("collect --keep-last few", Err("`--keep-last` wants a number, not `few`"));
        check("rollback", Err("`rollback` needs `--profile`"));
        check("rollback --profile shop --to 0", Err("`0` is not the number of a generation"));
        check("rollback --profile shop --to", Err("`--to` needs a value"));
        check("serve --root r", Err("the root `r` is not absolute"));
        check("serve --root /a --root /b", Err("`--root` is given twice"));
        check(
            "settle --profile ../x",
            Err("`../x` cannot name a profile: expected 1 to 64 of `A-Za-z0-9_-.`, the first a letter or digit"),
        );
    }
}
