//! What is typed: commands and options, no more. Defaults that depend on the machine are found in `context`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sarsen_builder::package::Access;

use crate::commands::{build, check, completions, deploy, explain, history, init, lock, plan, rollback, show, status, store};

/// Deploy services to Linux hosts: built in a sandbox, copied by content, switched atomically, with a way back
#[derive(Debug, Parser)]
#[command(name = "sarsen", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Project directory [default: the nearest one with a sarsen.toml, from here upwards]
    #[arg(short = 'C', long, value_name = "DIR", global = true)]
    pub(crate) project: Option<PathBuf>,
    /// Form of the data on standard output
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    pub(crate) format: Format,
    /// Root of the local store and installation [default: the directory sarsen below `XDG_DATA_HOME` if that is set,
    /// else /var/lib/sarsen as root, ~/.local/share/sarsen as others]
    #[arg(long, value_name = "DIR", env = "SARSEN_ROOT", global = true)]
    pub(crate) root: Option<PathBuf>,
    /// When to use colour
    #[arg(long, value_enum, default_value_t = Colour::Auto, global = true)]
    pub(crate) color: Colour,
}

/// The forms of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs, with a version number
    Json,
}

/// When colour is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a small project that works
    Init(init::Arguments),
    /// Evaluate all environments and show what is wrong
    Check(check::Arguments),
    /// Show the evaluated hosts, components, steps and resources of an environment
    Show(show::Arguments),
    /// Explain a component of the project, or a step, function or key of the language
    Explain(explain::Arguments),
    /// Pin what comes from outside of the project in sarsen.lock
    Lock(lock::Arguments),
    /// Build, compare with what runs on the hosts, and show what a deployment would change
    Plan(plan::Arguments),
    /// Build the bundle of every host
    Build(build::Arguments),
    /// Bring all hosts of an environment to what the project says
    Deploy(deploy::Arguments),
    /// Bring all hosts of an environment back to an earlier generation
    Rollback(rollback::Arguments),
    /// Show what runs on the hosts
    Status(status::Arguments),
    /// Show the generations of the hosts
    History(history::Arguments),
    /// Look after the local store
    #[command(subcommand)]
    Store(store::Command),
    /// Print completions for a shell
    Completions(completions::Arguments),
}

/// The environment that a command is about.
#[derive(Debug, Args)]
pub(crate) struct Environment {
    /// Environment, a directory below environments/
    #[arg(value_name = "ENVIRONMENT")]
    pub(crate) environment: String,
}

/// What evaluation may do.
#[derive(Debug, Args)]
pub(crate) struct Evaluation {
    /// Fetch nothing that evaluation needs: packages must be in the store
    #[arg(long)]
    pub(crate) frozen: bool,
}

impl Evaluation {
    /// Whether packages that the store lacks are fetched.
    pub(crate) fn access(&self) -> Access {
        if self.frozen { Access::Frozen } else { Access::Network }
    }
}

/// How much is built at once.
#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// How many builds run at once [default: one per processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
