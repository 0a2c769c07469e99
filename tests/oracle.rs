//! The oracle of deployments to this machine: what must hold after any fault, and after the next deployment.
//!
//! Whoever injects a fault into an activation, a confirmation, a rollback or a recovery asks here, in two steps: [`judge`] right after the
//! fault, before anybody has settled anything, and [`converge`] afterwards. The fixture is `mutations`, whose every part shows its version.

use std::collections::BTreeSet;
use std::fs;

use crate::world::World;

/// The version that `current` leads to; it must be there in full, and the store must be intact.
pub(crate) fn judge(world: &World) -> Result<String, String> {
    let note = world.root().join("profiles/mutations/current/mutations/note");
    let text = fs::read_to_string(&note).map_err(|error| format!("current is not complete: {}: {error}", note.display()))?;
    let version = text.trim().strip_prefix("version ").unwrap_or_default().to_owned();
    if version != "1" && version != "2" {
        return Err(format!("current is version `{version}`, neither old nor new"));
    }
    let verified = world.sarsen(&["store", "verify"]);
    if verified.code != 0 {
        return Err(format!("the store is damaged: {}{}", verified.stdout, verified.stderr));
    }
    Ok(version)
}

/// The next deployment, without flags, reaches version 2; nothing of version 1 or of the fault is left.
pub(crate) fn converge(world: &World) -> Result<(), String> {
    let again = world.sarsen(&["deploy", "dev", "--yes"]);
    let (status, history) = (world.sarsen(&["status", "dev"]), world.sarsen(&["history", "dev"]));
    world.end_processes();
    if again.code != 0 {
        return Err(format!("the next deployment ended with {}: {}", again.code, again.stderr));
    }
    if status.code != 0 || !status.stdout.contains("idle.service  active") {
        return Err(format!("the service does not run: {}{}", status.stdout, status.stderr));
    }
    if history.code != 0 {
        return Err(format!("the log is broken: {}", history.stderr));
    }
    let place = world.path().join("place");
    let listed = fs::read_dir(&place).map_err(|error| error.to_string())?.flatten();
    let names: BTreeSet<String> = listed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let expected = BTreeSet::from(["copy", "note", "note-2"].map(str::to_owned));
    let copy = fs::read_to_string(place.join("copy")).unwrap_or_default();
    let profile = world.root().join("profiles/mutations");
    let pending = profile.join("pending.json").exists();
    let generation = fs::read_link(profile.join("current")).unwrap_or_default();
    let good = fs::read_link(profile.join("good")).unwrap_or_default();
    let version = judge(world)?;
    if version != "2" || names != expected || copy != "version 2\n" || pending || generation != good {
        return Err(format!(
            "not converged: version {version}, {names:?}, copy `{}`, pending {pending}, current {} and good {}",
            copy.trim(),
            generation.display(),
            good.display()
        ));
    }
    Ok(())
}
