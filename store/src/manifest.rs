//! The bundle's manifest: everything one host needs, as data. Builder writes it, activator reads it.
//!
//! The text is `manifest.json` at the top of the bundle object: one JSON object, members in the order of the
//! fields below, indented by two spaces, final newline. `version` comes first and is read before anything else.
//! Lists that have no order of their own are sorted, so the same content gives the same bytes.
//! The normative text is `FORMAT.md`, section "Bundle manifest"; `fixtures/golden/manifest-v1.json` pins it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ObjectRef, RelPath};

/// The version of the manifest that this program writes, and the only one that it reads.
pub const MANIFEST_VERSION: u32 = 1;

/// The longest manifest, in bytes. A host with 500 services of 8 KiB each stays below it.
pub const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// The name of the manifest inside a bundle.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The directory of unit files inside a bundle.
pub const UNIT_DIRECTORY: &str = "unit.d";

/// What a bundle says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`MANIFEST_VERSION`].
    pub version: u32,
    /// Whom the bundle is for. A target refuses any other.
    pub identity: Identity,
    /// Where the objects live on the target: an absolute path, the store directory itself.
    pub store: String,
    /// Component instances, sorted by name.
    pub components: Vec<Component>,
    /// Services, in the order of components (what one requires of another decides) and of their declaration: they are started in this order and stopped in the reverse.
    pub services: Vec<Service>,
    /// Managed absolute paths, sorted by path.
    pub links: Vec<Link>,
    /// Directories for mutable data, sorted by path.
    pub state_directories: Vec<StateDirectory>,
    /// Actions around the switch, in order.
    pub hooks: Vec<Hook>,
    /// What must answer before the generation counts as healthy, in order.
    pub health_checks: Vec<HealthCheck>,
    /// What must exist on the host before anything is changed, in order.
    pub requirements: Vec<Requirement>,
}

/// The environment, host and profile that a bundle belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The project's name.
    pub project: String,
    /// The environment's name.
    pub environment: String,
    /// The host's name in the environment, without a domain.
    pub host: String,
    /// The profile on the target.
    pub profile: String,
}

/// One component instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// The component's name; also the name of its link in the bundle.
    pub name: String,
    /// The features chosen on this host, sorted.
    pub features: Vec<String>,
    /// Its immutable tree.
    pub object: ObjectRef,
}

/// A long-running process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The unit's file name, `<name>.service`; its text is `unit.d/<unit>` in the bundle.
    pub unit: String,
    /// The component it belongs to.
    pub component: String,
    /// Program and arguments; the program is an absolute path.
    pub command: Vec<String>,
    /// Program and arguments that make the running service read its configuration again; empty if it cannot.
    pub reload: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// The user it runs as; nobody in particular (the installing user, or root) if absent.
    pub user: Option<String>,
    /// The directory it starts in.
    pub working_directory: Option<String>,
    /// When it is started again after it ended.
    pub restart: Restart,
    /// What a changed value of means "reload, do not restart", as one digest in hexadecimal; empty if nothing does.
    pub reload_trigger: String,
    /// How long it may take to stop before it is killed, in milliseconds.
    pub stop_timeout_ms: u64,
    /// What an activation does with the unit.
    #[serde(default, skip_serializing_if = "Role::is_service")]
    pub role: Role,
}

/// What an activation does with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A process that runs while the generation is current: started, restarted, stopped.
    #[default]
    Service,
    /// What starts a job, such as a timer: as a service, but it runs nothing itself.
    Trigger,
    /// What a trigger starts: made known and otherwise left alone. One that is running goes on to its end.
    Job,
}

impl Role {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
    fn is_service(&self) -> bool {
        *self == Self::Service
    }
}

/// When a service is started again after it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Whatever its end was.
    Always,
    /// After a non-zero exit or a signal.
    OnFailure,
    /// Never.
    No,
}

/// A managed absolute path: a symbolic link on the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The absolute path on the target.
    pub path: String,
    /// What it points to: an absolute path.
    pub target: String,
    /// The component that declared it.
    pub component: String,
}

/// A directory for mutable data, outside all generations; made once, never removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateDirectory {
    /// The absolute path on the target.
    pub path: String,
    /// The owner; the installing user if absent.
    pub user: Option<String>,
    /// Permission bits, in octal text such as `0750`.
    pub mode: String,
    /// The component that declared it.
    pub component: String,
}

/// An action at activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The name, unique within the component.
    pub name: String,
    /// The component that declared it.
    pub component: String,
    /// When it runs.
    pub phase: Phase,
    /// A shell command that says by exit code 0 that there is nothing to do; empty: always run `update`.
    pub verify: String,
    /// The shell command that does it.
    pub update: String,
    /// The user it runs as; the installing user if absent.
    pub user: Option<String>,
    /// How long each command may take, in milliseconds.
    pub timeout_ms: u64,
    /// What a changed value of means that `update` must run, as one digest in hexadecimal; empty if nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trigger: String,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before anything is stopped or switched.
    PreSwitch,
    /// After the switch, before services are started.
    PostSwitch,
    /// After the generation was confirmed.
    PostConfirm,
    /// When this generation is given up and the recorded previous one returns.
    OnRollback,
}

/// Something that must answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// The name, unique within the component.
    pub name: String,
    /// The component that declared it.
    pub component: String,
    /// What is asked.
    pub probe: Probe,
    /// How long after the start of the services it may take until it succeeds, in milliseconds.
    pub timeout_ms: u64,
    /// The pause between two attempts, in milliseconds.
    pub interval_ms: u64,
    /// How many times in a row it must succeed.
    pub successes: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Probe {
    /// GET this `http://` URL; the status must be `status`.
    Http {
        /// The URL; its host is an IP address or `localhost`.
        url: String,
        /// The expected status code.
        status: u16,
    },
    /// Connect to `host`:`port`.
    Tcp {
        /// An IP address or `localhost`.
        host: String,
        /// The port.
        port: u16,
    },
    /// Run a shell command; exit code 0 is success.
    Command {
        /// The command, for `sh -eu -c`.
        command: String,
    },
    /// A unit is active.
    Unit {
        /// The unit's name.
        unit: String,
    },
}

/// What must exist on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Requirement {
    /// A program: an absolute path, or a name that is looked up in the target's default search path.
    Program {
        /// Path or name.
        program: String,
        /// The component that declared it.
        component: String,
    },
    /// A TCP port that nothing but the generation's own services listens on.
    Port {
        /// The port.
        port: u16,
        /// The component that declared it.
        component: String,
    },
    /// A user that the host knows.
    User {
        /// The user's name.
        user: String,
        /// The component that declared it.
        component: String,
    },
}

/// A manifest that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that a manifest is.
    #[error("the bundle's manifest is damaged")]
    Malformed(#[source] serde_json::Error),
    /// A version that this program does not know.
    #[error(
        "the bundle's manifest has version {found}, this sarsen reads version {MANIFEST_VERSION}: deploy with the sarsen that built it, or build it again with this one"
    )]
    Version {
        /// The version that the manifest states.
        found: u64,
    },
    /// Longer than [`MANIFEST_BYTES_MAX`].
    #[error("the bundle's manifest has {bytes} bytes, more than the {MANIFEST_BYTES_MAX} allowed")]
    TooLong {
        /// Its length in bytes.
        bytes: u64,
    },
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

impl Manifest {
    /// Writes the canonical text.
    ///
    /// # Panics
    ///
    /// Never: the fields are strings, integers and lists of them.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and integers always serialise");
        text.push('\n');
        text
    }

    /// Reads a manifest; the version is looked at first.
    ///
    /// Errors: [`ManifestError`], each kind apart, so that damage is not reported as a foreign version.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        let bytes = text.len() as u64;
        if bytes > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLong { bytes });
        }
        let VersionOnly { version: found } = serde_json::from_slice(text).map_err(ManifestError::Malformed)?;
        if found != u64::from(MANIFEST_VERSION) {
            return Err(ManifestError::Version { found });
        }
        serde_json::from_slice(text).map_err(ManifestError::Malformed)
    }

    /// The path of a unit's text inside the bundle.
    pub fn unit_path(unit: &str) -> Result<RelPath, crate::InvalidPath> {
        format!("{UNIT_DIRECTORY}/{unit}").parse()
    }
}
