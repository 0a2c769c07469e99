//! Drift: what of a generation is not as its activation left it, and the plan that takes it into account.
//!
//! Generations are compared by their manifests; a machine changes besides. A service that ended, or a managed path that somebody
//! removed, must not be reported as "nothing to do". What is looked at costs one question to the service manager and a
//! few calls to the file system; contents of objects are left to `verify`.

use std::path::Path;

use sarsen_store::manifest::{Manifest, Phase};

use crate::activate::{Engine, link_obstacle};
use crate::diff::{ActivationPlan, Drift, Loaded, plan_activation, put_right};
use crate::error::ActivateError;
use crate::hooks::{self, HookRecords};
use crate::statefile;

impl Engine<'_> {
    /// Plans what activating `new` changes on this machine as it is, where `old` is current, or nothing is.
    pub(crate) fn plan(&self, old: Option<&Loaded>, new: &Loaded) -> Result<ActivationPlan, ActivateError> {
        let mut plan = plan_activation(old, new);
        let drift = self.find_drift(&new.manifest, &plan.keep)?;
        put_right(&mut plan, &new.manifest, &drift);
        Ok(plan)
    }

    fn find_drift(&self, manifest: &Manifest, kept: &[String]) -> Result<Drift, ActivateError> {
        let mut drift = Drift::default();
        let states = self.machine.services().states(kept)?;
        drift.ended.extend(states.into_iter().filter(|state| !state.active).map(|state| state.unit));
        for link in &manifest.links {
            let path = Path::new(&link.path);
            // What stands in the way is refused later, in words.
            if link_obstacle(path).is_some() || statefile::read_link(path)?.as_ref() != Some(&link.target) {
                drift.links.insert(link.path.clone());
            }
        }
        let directories = manifest.state_directories.iter().map(|directory| directory.path.clone());
        drift.directories.extend(directories.filter(|path| !Path::new(path).is_dir()));
        let records = HookRecords::read(&self.profile.hook_records())?;
        let hooks = manifest.hooks.iter().filter(|hook| hook.phase != Phase::OnRollback && records.demand(hook));
        drift.hooks.extend(hooks.map(hooks::name_of));
        Ok(drift)
    }
}
