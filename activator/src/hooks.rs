//! Actions around the switch: runs the hooks of one phase, in order, and stops at the first failure.
//!
//! A hook is two shell commands. `verify` says by its exit code 0 that there is nothing to do; otherwise `update` does it.
//! An empty `verify` means that `update` always runs. With a trigger, `update` runs when it last succeeded for another one, and what
//! `verify` says counts only otherwise. That is known from `hooks.json`, whose entry goes before an `update` begins and comes back when it
//! has succeeded: one that failed or was cut off runs again, for whichever generation. Both get `SARSEN_ROOT`, `SARSEN_PROFILE` and `SARSEN_GENERATION`
//! beside the bare environment of [`crate::process`], start in `/`, and are killed with their process group when their
//! time is up. A `verify` that cannot be run or takes too long is a failure, not a "no".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sarsen_store::manifest::{Hook, Phase};
use serde::{Deserialize, Serialize};

use crate::error::{ActivateError, describe};
use crate::process::{Completed, Invocation, ProcessError, describe_status, last_lines};
use crate::statefile;

/// How many lines of a failed hook's output its error shows.
const OUTPUT_LINES: usize = 20;

/// What a hook is told about the generation that it works for.
#[derive(Debug, Clone)]
pub struct HookContext<'a> {
    /// The root of the installation.
    pub root: &'a Path,
    /// The profile.
    pub profile: &'a str,
    /// The generation that the hook belongs to.
    pub generation: u64,
    /// The file of [`HookRecords`].
    pub records: PathBuf,
}

/// For which triggers hooks succeeded on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HookRecords {
    /// The trigger of the last success, by `component/name`.
    succeeded: BTreeMap<String, String>,
}

impl HookRecords {
    /// Reads the file; no file is no success.
    pub fn read(path: &Path) -> Result<Self, ActivateError> {
        Ok(statefile::read(path)?.unwrap_or_default())
    }

    /// Whether a hook must run whatever else is as it was left: it has a trigger, and did not succeed for it.
    pub fn demand(&self, hook: &Hook) -> bool {
        !hook.trigger.is_empty() && self.succeeded.get(&name_of(hook)) != Some(&hook.trigger)
    }
}

/// A hook's name in records and plans.
pub fn name_of(hook: &Hook) -> String {
    format!("{}/{}", hook.component, hook.name)
}

/// What one hook did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRun {
    /// The component that declared it.
    pub component: String,
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: HookOutcome,
}

/// What came of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookOutcome {
    /// Its `verify` said that there is nothing to do.
    UpToDate,
    /// Its `update` ran.
    Updated,
}

/// A hook that failed; the ones after it did not run.
#[derive(Debug, thiserror::Error)]
#[error("hook `{component}/{name}` failed: {problem}")]
pub struct HookError {
    /// The component that declared it.
    pub component: String,
    /// Its name.
    pub name: String,
    /// What happened, with the last lines of its output.
    pub problem: String,
    /// Why it could not run to its end; nothing if it ended with another exit code than 0.
    #[source]
    pub source: Option<Box<ProcessError>>,
    /// The hooks of the phase that ran before it.
    pub done: Vec<HookRun>,
}

/// Runs the hooks of `phase` in order and says which did something.
///
/// Errors: [`HookError`] of the first that failed, with what was done before it.
pub fn run_hooks(hooks: &[Hook], phase: Phase, context: &HookContext<'_>) -> Result<Vec<HookRun>, HookError> {
    let mut done = Vec::new();
    for hook in hooks.iter().filter(|hook| hook.phase == phase) {
        match run_hook(hook, context) {
            Ok(outcome) => done.push(HookRun { component: hook.component.clone(), name: hook.name.clone(), outcome }),
            Err((problem, source)) => {
                return Err(HookError { component: hook.component.clone(), name: hook.name.clone(), problem, source, done });
            }
        }
    }
    Ok(done)
}

type Failure = (String, Option<Box<ProcessError>>);

fn run_hook(hook: &Hook, context: &HookContext<'_>) -> Result<HookOutcome, Failure> {
    let unreadable = |error: ActivateError| (format!("what hooks did before is not known: {}", describe(&error)), None);
    let triggered = !hook.trigger.is_empty();
    let demanded = triggered && HookRecords::read(&context.records).map_err(unreadable)?.demand(hook);
    if triggered && !demanded && hook.verify.is_empty() {
        return Ok(HookOutcome::UpToDate);
    }
    if !demanded && !hook.verify.is_empty() && run_command(&hook.verify, "verify", hook, context)?.status.success() {
        return Ok(HookOutcome::UpToDate);
    }
    if triggered {
        record_success(hook, None, context).map_err(unreadable)?;
    }
    let Completed { status, output } = run_command(&hook.update, "update", hook, context)?;
    if status.success() {
        if triggered {
            record_success(hook, Some(&hook.trigger), context).map_err(unreadable)?;
        }
        return Ok(HookOutcome::Updated);
    }
    Err((with_output(format!("`update` ended with {}", describe_status(status)), &output), None))
}

/// Writes down durably for which trigger a hook succeeded, or that it has not.
fn record_success(hook: &Hook, trigger: Option<&str>, context: &HookContext<'_>) -> Result<(), ActivateError> {
    let mut records = HookRecords::read(&context.records)?;
    let former = records.clone();
    match trigger {
        Some(trigger) => records.succeeded.insert(name_of(hook), trigger.to_owned()),
        None => records.succeeded.remove(&name_of(hook)),
    };
    if records == former { Ok(()) } else { statefile::write(&context.records, &records) }
}

fn run_command(command: &str, step: &str, hook: &Hook, context: &HookContext<'_>) -> Result<Completed, Failure> {
    let invocation = Invocation {
        environment: BTreeMap::from([
            ("SARSEN_GENERATION".to_owned(), context.generation.to_string()),
            ("SARSEN_PROFILE".to_owned(), context.profile.to_owned()),
            ("SARSEN_ROOT".to_owned(), context.root.display().to_string()),
        ]),
        user: hook.user.clone(),
        ..Invocation::shell(command, Duration::from_millis(hook.timeout_ms))
    };
    invocation.run().map_err(|error| {
        let output = if let ProcessError::Deadline { output, .. } = &error { output.as_str() } else { "" };
        (with_output(format!("`{step}` did not run to its end"), output), Some(Box::new(error)))
    })
}

fn with_output(problem: String, output: &str) -> String {
    if output.is_empty() { problem } else { format!("{problem}\n{}", last_lines(output, OUTPUT_LINES)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str, verify: &str, update: &str) -> Hook {
        Hook {
            name: name.to_owned(),
            component: "app".to_owned(),
            phase: Phase::PreSwitch,
            verify: verify.to_owned(),
            update: update.to_owned(),
            user: None,
            timeout_ms: 20_000,
            trigger: String::new(),
        }
    }

    fn run(hooks: &[Hook]) -> Result<Vec<HookRun>, HookError> {
        run_recorded(hooks, PathBuf::from("/nonexistent/hooks.json"))
    }

    fn run_recorded(hooks: &[Hook], records: PathBuf) -> Result<Vec<HookRun>, HookError> {
        let context = HookContext { root: Path::new("/srv/sarsen"), profile: "web", generation: 7, records };
        run_hooks(hooks, Phase::PreSwitch, &context)
    }

    #[test]
    fn a_trigger_runs_a_hook_until_it_has_succeeded_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let records = directory.path().join("hooks.json");
        let run = |trigger: &str, update: &str| {
            let hook = Hook { trigger: trigger.to_owned(), ..hook("h", "", update) };
            run_recorded(&[hook], records.clone()).map(|done| done[0].outcome).map_err(|_| "failed")
        };
        assert_eq!(run("a", "true"), Ok(HookOutcome::Updated));
        assert_eq!(run("a", "exit 1"), Ok(HookOutcome::UpToDate));
        assert_eq!(run("b", "exit 1"), Err("failed"));
        assert_eq!(run("a", "exit 1"), Err("failed"), "what failed for another trigger may have left anything behind");
        assert_eq!(run("b", "exit 1"), Err("failed"), "and is tried again");
        assert_eq!(run("b", "true"), Ok(HookOutcome::Updated));
        assert_eq!(run("b", "exit 1"), Ok(HookOutcome::UpToDate));
        let asked = Hook { trigger: "b".to_owned(), ..hook("h", "false", "true") };
        assert_eq!(run_recorded(&[asked], records.clone()).unwrap()[0].outcome, HookOutcome::Updated, "`verify` is asked as well");
        let told = Hook { trigger: "c".to_owned(), ..hook("h", "true", "true") };
        assert_eq!(run_recorded(&[told], records.clone()).unwrap()[0].outcome, HookOutcome::Updated, "a change is not asked about");
        sarsen_store::fsutil::replace_file(&records, b"{", 0o644).unwrap();
        assert_eq!(run("c", "true"), Err("failed"), "nothing is guessed from a damaged file");
    }

    #[test]
    fn runs_update_only_when_verify_says_so_and_only_in_its_phase() {
        let later = Hook { phase: Phase::PostSwitch, ..hook("later", "", "exit 1") };
        let done = run(&[hook("clean", "true", "exit 1"), hook("dirty", "false", "true"), hook("always", "", "true"), later]).unwrap();
        let outcomes: Vec<_> = done.iter().map(|run| (run.name.as_str(), run.outcome)).collect();
        assert_eq!(outcomes, [("clean", HookOutcome::UpToDate), ("dirty", HookOutcome::Updated), ("always", HookOutcome::Updated)]);
    }

    #[test]
    fn tells_hooks_their_root_profile_and_generation() {
        let command = r#"test "$SARSEN_ROOT $SARSEN_PROFILE $SARSEN_GENERATION $PWD" = "/srv/sarsen web 7 /""#;
        assert_eq!(run(&[hook("environment", "", command)]).unwrap().len(), 1);
    }

    #[test]
    fn a_failure_names_the_hook_its_exit_code_and_its_last_words_and_stops_the_phase() {
        let error = run(&[hook("first", "", "true"), hook("migrate", "", "echo no such table; exit 4"), hook("never", "", "true")]);
        let error = error.unwrap_err();
        assert_eq!(error.to_string(), "hook `app/migrate` failed: `update` ended with exit code 4\nno such table");
        assert_eq!(error.done.len(), 1);
    }

    #[test]
    fn an_unset_variable_and_a_deadline_are_failures() {
        assert!(run(&[hook("unset", "", "echo $NOT_SET")]).unwrap_err().to_string().contains("`update` ended with exit code 2"));
        let slow = Hook { timeout_ms: 200, ..hook("slow", "sleep 60", "true") };
        let error = run(&[slow]).unwrap_err();
        assert_eq!(error.to_string(), "hook `app/slow` failed: `verify` did not run to its end");
        assert!(matches!(error.source.as_deref(), Some(ProcessError::Deadline { .. })));
    }
}
