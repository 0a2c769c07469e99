//! From the project on disk to a model and to bundles, with everything that is told on the way.

use std::path::PathBuf;
use std::time::Duration;

use sarsen_builder::describe::Description;
use sarsen_builder::diagnostic::{Diagnostic, Severity, render_diagnostics};
use sarsen_builder::evaluator::{Evaluator, LIMITS};
use sarsen_builder::model::{Fleet, Model};
use sarsen_builder::package::{Access, PackageError, attach};
use sarsen_builder::plan::plan;
use sarsen_builder::realise::{BuildError, BuildEvent, Options, Realised, RecipeError, log_directory, realise};
use sarsen_builder::snapshot::{PROJECT_FILE, Snapshot, find_project};
use sarsen_builder::{Assessment, Input, Project as Settings, find_fleet, find_project_settings, sandbox};
use sarsen_store::ObjectStore;
use sarsen_store::gc::Retention;
use sarsen_store::signature::PublicKey;

use crate::context::Context;
use crate::error::{CommandError, Exit, chain};
use crate::render::{count, push_line, seconds};

/// A build that took longer than this is told about when it ends.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// A project as it was read.
#[derive(Debug)]
pub(crate) struct Project {
    /// Where it lies.
    pub(crate) directory: PathBuf,
    /// Its files.
    pub(crate) snapshot: Snapshot,
}

impl Project {
    /// Finds and reads the project.
    pub(crate) fn open(context: &Context) -> Result<Self, CommandError> {
        let directory = if context.project_is_given {
            let has_file = context.directory.join(PROJECT_FILE).is_file();
            has_file.then(|| context.directory.clone()).ok_or_else(|| {
                CommandError::new(Exit::Usage, format!("`{}` is no sarsen project: it has no {PROJECT_FILE}", context.directory.display()))
                    .hint("name a project with --project DIR, or make one there with `sarsen init`")
            })
        } else {
            find_project(&context.directory).ok_or_else(|| {
                CommandError::new(
                    Exit::Usage,
                    format!("no sarsen project here or in any directory above `{}`", context.directory.display()),
                )
                .hint("make one with `sarsen init`, or name one with --project DIR")
            })
        }?;
        let snapshot = Snapshot::read(&directory).map_err(|error| CommandError::of(Exit::Usage, &error))?;
        Ok(Self { directory, snapshot })
    }

    /// Finds and reads the project, with the packages that it has pinned.
    pub(crate) fn open_with_packages(context: &Context, access: Access) -> Result<Self, CommandError> {
        let Self { directory, snapshot } = Self::open(context)?;
        let attached = attach(&snapshot, &directory, access, || ObjectStore::open(&context.root));
        let snapshot = attached.map_err(|error| {
            let hint = match &error {
                PackageError::Frozen { .. } => "run `sarsen lock` or `sarsen check` without --frozen once, which fetches it",
                PackageError::Digest { .. } => {
                    "if the lock file was not changed by hand, look at the store with `sarsen store verify`; `sarsen lock --update NAME` pins anew"
                }
                PackageError::NoGit(_)
                | PackageError::Git { .. }
                | PackageError::NoReference { .. }
                | PackageError::Content { .. }
                | PackageError::TooLarge { .. }
                | PackageError::Empty { .. }
                | PackageError::Store(_)
                | PackageError::File(_)
                | PackageError::Read(_) => return CommandError::of(Exit::Failed, &error),
            };
            CommandError::of(Exit::Failed, &error).hint(hint)
        })?;
        Ok(Self { directory, snapshot })
    }

    /// Evaluates an environment; warnings are told, errors stop.
    pub(crate) fn model(&self, context: &Context, environment: &str) -> Result<Model, CommandError> {
        let Assessment { model, diagnostics } = self.assess(context, environment)?;
        let (errors, warnings): (Vec<Diagnostic>, Vec<Diagnostic>) =
            diagnostics.into_iter().partition(|diagnostic| diagnostic.severity == Severity::Error);
        if !warnings.is_empty() {
            context.say(self.render(context, &warnings).trim_end());
        }
        match model {
            Some(model) if errors.is_empty() => Ok(model),
            _ => Err(self.rejected(context, environment, &errors)),
        }
    }

    /// Finds the hosts of an environment, whatever state its components are in.
    pub(crate) fn fleet(&self, context: &Context, environment: &str) -> Result<Fleet, CommandError> {
        find_fleet(&self.snapshot, environment, local_root(context)?).map_err(|errors| self.rejected(context, environment, &errors))
    }

    /// What `sarsen.toml` says about generations that hosts keep.
    pub(crate) fn retention(&self, context: &Context) -> Result<Option<Retention>, CommandError> {
        Ok(self.settings(context)?.retention)
    }

    /// What `sarsen.toml` says.
    pub(crate) fn settings(&self, context: &Context) -> Result<Settings, CommandError> {
        find_project_settings(&self.snapshot).map_err(|errors| {
            CommandError::new(Exit::Usage, format!("`{PROJECT_FILE}` has {}", count(errors.len(), "error")))
                .after(self.render(context, &errors) + "\n")
        })
    }

    fn rejected(&self, context: &Context, environment: &str, errors: &[Diagnostic]) -> CommandError {
        CommandError::new(Exit::Usage, format!("environment `{environment}` has {}", count(errors.len(), "error")))
            .after(self.render(context, errors) + "\n")
    }

    /// Evaluates an environment.
    fn assess(&self, context: &Context, environment: &str) -> Result<Assessment, CommandError> {
        let local_root = local_root(context)?;
        let input = Input { snapshot: &self.snapshot, environment, local_root, workers: context.workers() };
        evaluator().assess(&input).map_err(|error| CommandError::of(Exit::Failed, &error))
    }

    /// What is wrong with environments, all if none is named.
    pub(crate) fn check(&self, context: &Context, environments: &[String]) -> Result<Vec<Diagnostic>, CommandError> {
        let input = Input { snapshot: &self.snapshot, environment: "", local_root: local_root(context)?, workers: context.workers() };
        evaluator().check(&input, environments).map_err(|error| CommandError::of(Exit::Failed, &error))
    }

    /// What the components say of themselves, and what is wrong with the definitions.
    pub(crate) fn describe(&self) -> Result<(Vec<Description>, Vec<Diagnostic>), CommandError> {
        evaluator().describe(&self.snapshot).map_err(|error| CommandError::of(Exit::Failed, &error))
    }

    /// Diagnostics as people read them.
    pub(crate) fn render(&self, context: &Context, diagnostics: &[Diagnostic]) -> String {
        render_diagnostics(diagnostics, &self.snapshot, context.colours_talk())
    }
}

/// This program, as the one that evaluates.
fn evaluator() -> Evaluator<'static> {
    Evaluator { program: sandbox::own_program(), limits: LIMITS }
}

/// The root as definitions see it where the environment is this machine.
fn local_root(context: &Context) -> Result<&str, CommandError> {
    context.root.to_str().ok_or_else(|| {
        CommandError::new(Exit::Usage, format!("the root `{}` is not UTF-8", context.root.display())).hint("give another with --root DIR")
    })
}

/// The keys that the project trusts; none where there is no project.
pub(crate) fn trusted_keys(context: &Context) -> Result<Vec<PublicKey>, CommandError> {
    if !context.project_is_given && find_project(&context.directory).is_none() {
        return Ok(Vec::new());
    }
    Ok(Project::open(context)?.settings(context)?.trusted_keys)
}

/// Opens the local store.
pub(crate) fn open_store(context: &Context) -> Result<ObjectStore, CommandError> {
    ObjectStore::open(&context.root).map_err(|error| {
        CommandError::of(Exit::Failed, &error).hint("the store lies below --root DIR, SARSEN_ROOT or the user's data directory")
    })
}

/// Makes the bundles of all hosts, telling what is built.
pub(crate) fn build(context: &Context, model: &Model, store: &ObjectStore, jobs: usize) -> Result<Realised, CommandError> {
    let plan = plan(model).map_err(|findings| {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        CommandError::new(Exit::Usage, format!("the plan of `{}` has {}", model.environment, count(findings.len(), "error")))
            .after(lines.join("\n"))
    })?;
    let events = |event: BuildEvent| match event {
        BuildEvent::Started { label } => context.say(&format!("building {label}")),
        BuildEvent::Waiting { label, holder } => context.say(&format!("waiting for {label}, which {holder} is building")),
        BuildEvent::Failed { label, .. } => context.say(&format!("failed {label}")),
        // Trees and bundles are made in no time; what takes long is worth a line.
        BuildEvent::Built { label, duration } if duration >= WORTH_TELLING => {
            context.say(&format!("built {label} in {}", seconds(duration)));
        }
        BuildEvent::Cached { .. } | BuildEvent::Built { .. } => {}
    };
    let options =
        Options { jobs, events: &events, log_directory: log_directory(store), sandbox_program: sandbox::own_program().to_owned() };
    realise(&plan, store, &options).map_err(|error| build_error(&error))
}

fn build_error(error: &BuildError) -> CommandError {
    let BuildError::Recipes { failures, .. } = error else { return CommandError::of(Exit::Failed, error) };
    let mut text = String::new();
    for failure in failures {
        let place = failure.at.as_ref().map(|at| format!("{}:{}:{}: ", at.file, at.line, at.column)).unwrap_or_default();
        push_line(&mut text, &format!("{place}{}: {}", failure.label, chain(&failure.error)));
    }
    let error = CommandError::of(Exit::Failed, error).after(text);
    if failures.iter().any(|failure| matches!(failure.error, RecipeError::Unsuccessful { .. })) {
        error.hint("a build has no network and sees only its sources, its inputs and /usr; the log has everything that it printed")
    } else {
        error
    }
}
