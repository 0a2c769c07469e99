//! What lies in the trash and in quarantine, for the commands that are about space.

use sarsen_store::{Leftovers, ObjectStore};

use super::failed;
use crate::context::Context;
use crate::error::CommandError;
use crate::render::bytes;

/// Says how much there is, if there is anything.
pub(super) fn tell(store: &ObjectStore, context: &Context) -> Result<Leftovers, CommandError> {
    let leftovers = store.leftovers().map_err(failed)?;
    if leftovers.trash > 0 {
        context.say(&format!("{} in the trash: `sarsen store gc --yes` removes them for good", bytes(leftovers.trash)));
    }
    if leftovers.quarantine > 0 {
        let place = store.root().join("quarantine");
        context.say(&format!("{} in `{}`: repairs put them there, and only you remove them", bytes(leftovers.quarantine), place.display()));
    }
    Ok(leftovers)
}
