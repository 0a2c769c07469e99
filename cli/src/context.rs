//! The owner of environment variables, working directory, clock, terminal and standard streams.
//!
//! Everything a command needs to know of its surroundings is read here, once, and passed on as values.
#![expect(clippy::disallowed_methods, reason = "this file owns the environment, the working directory and the clock")]
#![expect(clippy::unused_self, reason = "what a command reads and writes goes through its context")]

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sarsen_activator::target::SshCommand;
use serde::Serialize;

use crate::args::{Colour, Format, Global, Jobs};
use crate::error::{CommandError, Exit};

/// Where a root install lives.
const SYSTEM_ROOT: &str = "/var/lib/sarsen";

/// The activator's name, beside this program.
const ACTIVATOR: &str = "sarsen-activator";

/// The surroundings of a command.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where the project is looked for, and whether only there.
    pub(crate) directory: PathBuf,
    pub(crate) project_is_given: bool,
    /// The root of the local store and installation, absolute.
    pub(crate) root: PathBuf,
    pub(crate) format: Format,
    /// The command that stands for `ssh`.
    pub(crate) ssh: SshCommand,
    /// The activator's binary.
    pub(crate) activator: PathBuf,
    /// `user@machine`.
    pub(crate) who: String,
    /// The time at which the command began.
    pub(crate) now: SystemTime,
    processors: usize,
    can_ask: bool,
}

impl Context {
    /// Reads the surroundings.
    pub(crate) fn read(global: &Global) -> Result<Self, CommandError> {
        let choice = match global.color {
            Colour::Auto => anstream::ColorChoice::Auto,
            Colour::Always => anstream::ColorChoice::AlwaysAnsi,
            Colour::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        let here = std::env::current_dir()
            .map_err(|error| CommandError::new(Exit::Failed, "cannot find the current directory").because(&error))?;
        let root = global.root.clone().map_or_else(default_root, Ok)?;
        let ssh = match std::env::var("SARSEN_SSH") {
            Ok(text) => text.parse().map_err(|error| CommandError::new(Exit::Usage, "SARSEN_SSH").because(&error))?,
            Err(_) => SshCommand::default(),
        };
        let program =
            std::env::current_exe().map_err(|error| CommandError::new(Exit::Failed, "cannot find this program's file").because(&error))?;
        Ok(Self {
            directory: here.join(global.project.as_deref().unwrap_or(Path::new("."))).components().collect(),
            project_is_given: global.project.is_some(),
            root: here.join(root),
            format: global.format,
            ssh,
            activator: program.with_file_name(ACTIVATOR),
            who: who(),
            now: SystemTime::now(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            can_ask: io::stdin().is_terminal() && io::stderr().is_terminal(),
        })
    }

    /// How many builds run at once.
    pub(crate) fn jobs(&self, given: &Jobs) -> usize {
        given.jobs.map_or(self.processors, usize::from)
    }

    /// How many threads evaluate.
    pub(crate) fn workers(&self) -> usize {
        self.processors
    }

    /// Whether diagnostics are coloured.
    pub(crate) fn colours_talk(&self) -> bool {
        anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
    }

    /// Writes data. A reader that has gone away is no failure: the command goes on, and its exit code says what became of its work.
    pub(crate) fn print(&self, text: &str) -> Result<(), CommandError> {
        self.print_bytes(text.as_bytes())
    }

    /// Writes data that may be no text, as [`Self::print`].
    pub(crate) fn print_bytes(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut stream = io::stdout().lock();
        match stream.write_all(bytes).and_then(|()| stream.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CommandError::new(Exit::Failed, "cannot write to standard output").because(&error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes data as JSON: an object with a version and the members of `body`.
    pub(crate) fn print_json(&self, body: &impl Serialize) -> Result<(), CommandError> {
        #[derive(Serialize)]
        struct Document<'a, T> {
            version: u32,
            #[serde(flatten)]
            body: &'a T,
        }
        let text = serde_json::to_string_pretty(&Document { version: 1, body }).expect("strings, integers and lists always serialise");
        self.print(&(text + "\n"))
    }

    /// Writes a line of talk.
    pub(crate) fn say(&self, line: &str) {
        say(line);
    }

    /// Refuses early what would have to be asked where nobody can answer.
    pub(crate) fn require_consent(&self, yes: bool, what: &str) -> Result<(), CommandError> {
        if yes || self.can_ask {
            return Ok(());
        }
        Err(CommandError::new(Exit::Usage, format!("there is no terminal to ask on before the {what}"))
            .hint("give --yes to go on without asking, after a look at the plan"))
    }

    /// Asks; without a terminal the answer was given by `--yes`.
    pub(crate) fn consents(&self, yes: bool, question: &str) -> Result<bool, CommandError> {
        if yes {
            return Ok(true);
        }
        anstream::eprint!("{question} [y/N] ");
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| CommandError::new(Exit::Failed, "cannot read the answer").because(&error))?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

/// Writes a line to standard error; if nobody reads it, so be it.
pub(crate) fn say(line: &str) {
    let mut stream = anstream::stderr().lock();
    let _ = writeln!(stream, "{line}");
}

fn default_root() -> Result<PathBuf, CommandError> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // Who sets it means it, the superuser included.
    if let Some(data) = variable("XDG_DATA_HOME") {
        return Ok(data.join("sarsen"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(SYSTEM_ROOT));
    }
    variable("HOME").map(|home| home.join(".local/share/sarsen")).ok_or_else(|| {
        CommandError::new(Exit::Usage, "there is no place for the store: neither XDG_DATA_HOME nor HOME is an absolute path")
            .hint("give one with --root DIR or SARSEN_ROOT")
    })
}

fn who() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let id = rustix::process::geteuid();
    let user = user.unwrap_or_else(|| if id.is_root() { String::from("root") } else { format!("uid-{}", id.as_raw()) });
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{machine}").chars().filter(|c| !c.is_control()).take(200).collect()
}
