//! What an activation needs of the machine it runs on, and the real machine.
//!
//! The engine in [`crate::activate`] moves only links and records by itself; everything that reaches outside of the
//! profile's directory goes through [`Machine`], so that the engine can be driven by tests step by step.

use std::path::Path;
use std::time::{Duration, Instant};

use sarsen_store::fsutil::{self, FsError};
use sarsen_store::manifest::{Manifest, Phase, StateDirectory};
use sarsen_store::{ObjectRef, ObjectStore, StoreError};

use crate::binary;
use crate::clock::{self, Moment};
use crate::error::{ActivateError, describe};
use crate::health;
use crate::hooks::{self, HookContext, HookOutcome};
use crate::layout::ProfileLayout;
use crate::process::accounts::Account;
use crate::requirements;
use crate::services::{self, ServiceManager};

/// The pause between two looks at the decision of another process. A person does not notice it, a processor neither.
const POLL: Duration = Duration::from_millis(50);

/// The most problems of a bundle's objects that are listed.
const PROBLEMS_MAX: usize = 20;

/// The machine that an activation runs on.
pub trait Machine {
    /// What manages its services.
    fn services(&self) -> &dyn ServiceManager;

    /// What time it is.
    fn moment(&self) -> Moment;

    /// Waits a moment for another process's decision.
    fn pause(&self);

    /// Looks over the closure of a bundle and says in words what is wrong with it.
    fn check_closure(&self, bundle: &ObjectRef) -> Result<Vec<String>, ActivateError>;

    /// Says in words which requirements of a bundle are not met; `own_units` are running now for the same profile.
    fn check_requirements(&self, manifest: &Manifest, own_units: &[String]) -> Vec<String>;

    /// Makes the directories for mutable data that are missing.
    fn make_state_directories(&self, manifest: &Manifest) -> Result<(), ActivateError>;

    /// Runs the hooks of one phase; returns one line for each that did something, or why one failed.
    fn run_hooks(&self, manifest: &Manifest, phase: Phase, generation: u64) -> Result<Vec<String>, String>;

    /// Waits until the services, which have just been started, are healthy; or says why they are not. Ends at once with
    /// what `given_up` says, which is asked all the while.
    fn wait_healthy(&self, manifest: &Manifest, given_up: &dyn Fn() -> Option<String>) -> Result<(), String>;

    /// Lets the link that boot and dead-man units call lead to the program that runs now.
    fn adopt_program(&self) -> Result<(), ActivateError>;
}

/// The real machine, for one profile.
pub struct Host {
    profile: ProfileLayout,
    services: Box<dyn ServiceManager>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("profile", &self.profile).field("services", &self.services.name()).finish()
    }
}

impl Host {
    /// Looks at what the machine has.
    pub fn detect(profile: &ProfileLayout) -> Self {
        let services = services::detect(profile.layout().root(), profile.name().as_str());
        Self { profile: profile.clone(), services }
    }

    fn context(&self, generation: u64) -> HookContext<'_> {
        let (root, profile) = (self.profile.layout().root(), self.profile.name().as_str());
        HookContext { root, profile, generation, records: self.profile.hook_records() }
    }
}

impl Machine for Host {
    fn services(&self) -> &dyn ServiceManager {
        &*self.services
    }

    fn moment(&self) -> Moment {
        Moment::now()
    }

    fn pause(&self) {
        clock::pause(POLL);
    }

    fn check_closure(&self, bundle: &ObjectRef) -> Result<Vec<String>, ActivateError> {
        let failed = |error: StoreError| ActivateError::Machine { message: describe(&error) };
        let store = ObjectStore::open(self.profile.layout().root()).map_err(failed)?;
        let mut problems = Vec::new();
        let closure = match store.closure(std::slice::from_ref(bundle)) {
            Err(error @ StoreError::Missing { .. }) => return Ok(vec![describe(&error)]),
            closure => closure.map_err(failed)?,
        };
        for object in closure {
            problems.extend(store.check_object(&object).map_err(failed)?.iter().map(ToString::to_string));
            if problems.len() > PROBLEMS_MAX {
                problems.truncate(PROBLEMS_MAX);
                problems.push("there are more problems".to_owned());
                break;
            }
        }
        Ok(problems)
    }

    fn check_requirements(&self, manifest: &Manifest, own_units: &[String]) -> Vec<String> {
        let mut unmet = requirements::check_requirements(&manifest.requirements, own_units, self.services());
        unmet.extend(requirements::check_triggers(&manifest.services, self.services()));
        unmet
    }

    fn make_state_directories(&self, manifest: &Manifest) -> Result<(), ActivateError> {
        manifest.state_directories.iter().try_for_each(make_state_directory)
    }

    fn run_hooks(&self, manifest: &Manifest, phase: Phase, generation: u64) -> Result<Vec<String>, String> {
        let done = hooks::run_hooks(&manifest.hooks, phase, &self.context(generation)).map_err(|error| describe(&error))?;
        let updated = done.into_iter().filter(|run| run.outcome == HookOutcome::Updated);
        Ok(updated.map(|run| format!("hook {}/{} ran", run.component, run.name)).collect())
    }

    fn wait_healthy(&self, manifest: &Manifest, given_up: &dyn Fn() -> Option<String>) -> Result<(), String> {
        let units = crate::diff::running_units(manifest);
        let (services, begun) = (self.services(), Instant::now());
        health::wait_healthy(&manifest.health_checks, &units, services, begun, given_up).map_err(|error| describe(&error))
    }

    fn adopt_program(&self) -> Result<(), ActivateError> {
        binary::adopt(self.profile.layout())
    }
}

/// Makes a directory for mutable data if there is none. It gets its name last, so that it never has a wrong owner.
fn make_state_directory(wanted: &StateDirectory) -> Result<(), ActivateError> {
    let path = Path::new(&wanted.path);
    let unusable = |message: String| ActivateError::Machine { message };
    if path.is_dir() {
        return Ok(());
    }
    let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
        return Err(unusable(format!("`{}` cannot be a state directory: it is not absolute", wanted.path)));
    };
    let mode = u32::from_str_radix(&wanted.mode, 8).ok().filter(|mode| *mode <= 0o7777);
    let mode = mode.ok_or_else(|| unusable(format!("state directory `{}` has the mode `{}`, which is none", wanted.path, wanted.mode)))?;
    let describe_account = |error| unusable(format!("cannot make the state directory `{}`: {}", wanted.path, describe(&error)));
    let owner = wanted.user.as_deref().map(Account::find).transpose().map_err(describe_account)?;
    fsutil::create_dir_all(parent, 0o755)?;
    let temporary = parent.join(format!(".{}.{}", name.to_string_lossy(), fsutil::random_name()?));
    let named = give_name(&temporary, path, mode, owner.as_ref());
    if !matches!(named, Ok(true)) {
        // Nothing is in it, and the first error is the one to report.
        let _ = fsutil::remove_dir(&temporary);
    }
    if !named? && !path.is_dir() {
        return Err(unusable(format!("`{}` cannot be a state directory: something else stands there", wanted.path)));
    }
    Ok(())
}

fn give_name(temporary: &Path, path: &Path, mode: u32, owner: Option<&Account>) -> Result<bool, FsError> {
    let owner = owner.filter(|owner| owner.uid != Account::own().uid).map(|owner| (owner.uid, owner.gid));
    fsutil::create_owned_dir(temporary, mode, owner)?;
    let named = fsutil::rename_noreplace(temporary, path)?;
    fsutil::sync_dir(path.parent().unwrap_or(Path::new("/")))?;
    Ok(named)
}
