//! Actions around the switch: runs the hooks of one phase, in order, and stops at the first failure.
//!
//! A hook is two shell commands. `verify` says by its exit code 0 that there is nothing to do; otherwise `update` does it.
//! An empty `verify` means that `update` always runs. Both get `SARSEN_ROOT`, `SARSEN_PROFILE` and `SARSEN_GENERATION`
//! beside the bare environment of [`crate::process`], start in `/`, and are killed with their process group when their
//! time is up. A `verify` that cannot be run or takes too long is a failure, not a "no".

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sarsen_store::manifest::{Hook, Phase};

use crate::process::{Completed, Invocation, ProcessError, describe_status, last_lines};

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
    if !hook.verify.is_empty() && run_command(&hook.verify, "verify", hook, context)?.status.success() {
        return Ok(HookOutcome::UpToDate);
    }
    let Completed { status, output } = run_command(&hook.update, "update", hook, context)?;
    if status.success() {
        return Ok(HookOutcome::Updated);
    }
    Err((with_output(format!("`update` ended with {}", describe_status(status)), &output), None))
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
        }
    }

    fn run(hooks: &[Hook]) -> Result<Vec<HookRun>, HookError> {
        let context = HookContext { root: Path::new("/srv/sarsen"), profile: "web", generation: 7 };
        run_hooks(hooks, Phase::PreSwitch, &context)
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
