//! The pure comparison of two generations: what activating the new one changes on the host.

use serde::{Deserialize, Serialize};

/// What an activation changes, in the order in which it happens. Leaves no choice to the activation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationPlan {
    /// The new bundle is the current one: nothing happens.
    pub unchanged: bool,
    /// Units that are stopped before the switch: removed ones, and changed ones (restarted by stop and start).
    pub stop: Vec<String>,
    /// Units that are started after the switch: new and changed ones.
    pub start: Vec<String>,
    /// Units that are told to read their configuration again.
    pub reload: Vec<String>,
    /// Units that go on untouched.
    pub keep: Vec<String>,
    /// Managed paths that are made or changed.
    pub links_make: Vec<String>,
    /// Managed paths that are removed.
    pub links_remove: Vec<String>,
    /// Components that are new.
    pub components_added: Vec<String>,
    /// Components whose tree differs.
    pub components_changed: Vec<String>,
    /// Components that leave.
    pub components_removed: Vec<String>,
    /// Hooks that will be asked, as `component/name`.
    pub hooks: Vec<String>,
}
