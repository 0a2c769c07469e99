//! The model: all hosts, component instances, steps and resources after evaluation, as plain data.
//!
//! Evaluation writes it, planning reads it. Whatever names a place in the store holds a placeholder id
//! ([`ObjectId::placeholder`]) where the real id will stand: ids are known only after building, have the same length,
//! and are filled in by `realise`. Nothing here refers to Starlark, to the clock or to the machine. That it can be serialised is for the pipe
//! between the two halves of one program (`evaluator.rs`); it is no format that anybody keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use sarsen_store::manifest::{Phase, Probe, Requirement, Restart};
use sarsen_store::{ObjectId, RelPath};
use serde::{Deserialize, Serialize};

use crate::diagnostic::Location;

/// One environment of a project, evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The project's name.
    pub project: String,
    /// The environment's name.
    pub environment: String,
    /// The profile on the targets.
    pub profile: String,
    /// The root of the installation on the targets, an absolute path.
    pub root: String,
    /// How targets are reached.
    pub connect: Connect,
    /// The user services and state directories belong to, unless a step says otherwise.
    pub service_user: Option<String>,
    /// How many hosts are worked on at once.
    pub jobs: u32,
    /// How long connecting to a host may take, in seconds.
    pub timeout_s: u32,
    /// The hosts, in the order of their names.
    pub hosts: Vec<HostModel>,
    /// Every provided resource, sorted by key, host, component, order of provision.
    pub resources: Vec<Resource>,
    /// Who requires what, sorted by key, host and component, each once.
    pub uses: Vec<ResourceUse>,
    /// All components of all hosts in the order that their requirements ask for; where these ask for nothing, by host and name.
    pub order: Vec<Place>,
}

impl Model {
    /// The hosts and how they are reached.
    pub fn fleet(&self) -> Fleet {
        let host =
            |host: &HostModel| FleetHost { name: host.name.clone(), fqdn: host.fqdn.clone(), ignore: host.ignore, ssh: host.ssh.clone() };
        Fleet {
            project: self.project.clone(),
            environment: self.environment.clone(),
            profile: self.profile.clone(),
            root: self.root.clone(),
            connect: self.connect,
            jobs: self.jobs,
            timeout_s: self.timeout_s,
            hosts: self.hosts.iter().map(host).collect(),
        }
    }

    /// Where objects live on the targets: `<root>/store`.
    pub fn store(&self) -> String {
        format!("{}/store", self.root)
    }
}

/// The hosts of an environment and how they are reached: what is known without evaluating a component.
///
/// The fields are those of [`Model`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// The project's name.
    pub project: String,
    /// The environment's name.
    pub environment: String,
    /// The profile on the targets.
    pub profile: String,
    /// The root of the installation on the targets.
    pub root: String,
    /// How targets are reached.
    pub connect: Connect,
    /// How many hosts are worked on at once.
    pub jobs: u32,
    /// How long connecting to a host may take, in seconds.
    pub timeout_s: u32,
    /// The hosts, in the order of their names.
    pub hosts: Vec<FleetHost>,
}

/// A host as a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetHost {
    /// The short name.
    pub name: String,
    /// The full name.
    pub fqdn: String,
    /// Neither connected to nor changed.
    pub ignore: bool,
    /// How `ssh` reaches it.
    pub ssh: SshSettings,
}

/// How a host is reached by ssh, beyond what the user's own configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshSettings {
    /// What to connect to instead of the full name.
    pub address: Option<String>,
    /// Whom to log in as.
    pub user: Option<String>,
    /// The port of the server.
    pub port: Option<u16>,
    /// The host to go through.
    pub jump: Option<String>,
}

impl SshSettings {
    /// These settings, and what they leave open as `below` has it.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            address: self.address.or(below.address),
            user: self.user.or(below.user),
            port: self.port.or(below.port),
            jump: self.jump.or(below.jump),
        }
    }
}

/// How targets are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connect {
    /// This machine.
    Local,
    /// The system's `ssh`.
    Ssh,
}

/// One host and what runs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostModel {
    /// The short name, as the environment writes it (a domain given there is cut off).
    pub name: String,
    /// The full name: `<name>.<host_domain>`, or the short name where there is no domain.
    pub fqdn: String,
    /// The platform, such as `debian12`.
    pub platform: Option<String>,
    /// Evaluated for the others' sake, but neither connected to nor changed.
    pub ignore: bool,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// How `ssh` reaches it.
    pub ssh: SshSettings,
    /// Component instances, in the order of [`Model::order`]: so they are activated.
    pub components: Vec<ComponentModel>,
}

/// A component on a host, by their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The host.
    pub host: String,
    /// The component.
    pub component: String,
}

/// Who comes first: whoever requires, or whoever provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Order {
    /// Whoever requires comes after whoever provides.
    After,
    /// Whoever requires comes before.
    Before,
    /// It does not matter.
    Free,
}

/// One component on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentModel {
    /// The component's name.
    pub name: String,
    /// The features chosen on this host, sorted.
    pub features: Vec<String>,
    /// Evaluated for the others' sake, but not part of the host's bundle.
    pub ignore: bool,
    /// Attributes as they were used; secrets are never here.
    pub attributes: BTreeMap<String, Attribute>,
    /// The placeholder of the component's own tree.
    pub output: ObjectId,
    /// All steps of the component and its sub-components, in the order they were added.
    pub steps: Vec<Step>,
    /// What the component logged, in order.
    pub messages: Vec<String>,
}

/// An attribute as it was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// The value, as text for people.
    pub value: String,
    /// Who gave it: `default`, `environment`, ``group `NAME` `` or ``host `NAME` ``.
    pub origin: String,
    /// Where.
    pub at: Location,
}

/// A value that one instance provides to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The key.
    pub key: String,
    /// The providing host.
    pub host: String,
    /// The providing component.
    pub component: String,
    /// The value as canonical JSON text.
    pub value: String,
}

/// That one instance requires what others provide.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceUse {
    /// The key.
    pub key: String,
    /// The requiring host.
    pub host: String,
    /// The requiring component.
    pub component: String,
    /// The only host whose values are wanted.
    pub of: Option<String>,
    /// Who comes first.
    pub order: Order,
    /// Whether it sees the values; if not, only the order is wanted.
    pub values: bool,
}

/// One declared piece of desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where it was declared.
    pub at: Location,
    /// The sub-components that it belongs to, from the outside inwards, such as `User(joe)`.
    pub within: Vec<String>,
    /// What it is.
    pub kind: StepKind,
}

/// The kinds of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepKind {
    /// A regular file of the component's tree, rendered at evaluation.
    File {
        /// Its path in the tree.
        path: RelPath,
        /// Its bytes; may hold placeholders.
        #[serde(with = "crate::evaluator::carriage::bytes")]
        content: Arc<[u8]>,
        /// Whether it may be executed; the mode on disk is 0555 or 0444.
        executable: bool,
    },
    /// An empty directory of the component's tree.
    Directory {
        /// Its path in the tree.
        path: RelPath,
    },
    /// A symbolic link of the component's tree.
    Symlink {
        /// Its path in the tree.
        path: RelPath,
        /// What it points to; may hold placeholders.
        target: String,
    },
    /// A sandboxed build.
    Build(Build),
    /// Wheels by their hashes from the package index, installed without network.
    PythonEnv(PythonEnv),
    /// A file by its digest, from the network.
    Fetch(Fetch),
    /// A long-running process.
    Service(Service),
    /// What runs at times.
    Timer(Timer),
    /// An action at activation.
    Hook {
        /// The name, unique in the component.
        name: String,
        /// When it runs.
        phase: Phase,
        /// Says whether there is nothing to do; empty: always update.
        verify: String,
        /// Does it.
        update: String,
        /// The user it runs as.
        user: Option<String>,
        /// How long each command may take, in milliseconds.
        timeout_ms: u64,
        /// Texts (paths, contents) whose change means that `update` must run; may hold placeholders.
        on_change: Vec<String>,
    },
    /// A directory for mutable data.
    StateDirectory {
        /// The absolute path on the target: `<root>/state/<profile>/<component>/<name>`.
        path: String,
        /// The owner.
        user: Option<String>,
        /// Permission bits.
        mode: u32,
    },
    /// A managed absolute path.
    Link {
        /// The absolute path on the target.
        path: String,
        /// What it points to; may hold placeholders.
        target: String,
    },
    /// What must answer before the generation counts as healthy.
    HealthCheck {
        /// The name, unique in the component.
        name: String,
        /// What is asked.
        probe: Probe,
        /// Until when it must succeed, in milliseconds after the services were started.
        timeout_ms: u64,
        /// The pause between attempts, in milliseconds.
        interval_ms: u64,
        /// How many times in a row it must succeed.
        successes: u32,
    },
    /// What must exist on the host before anything is changed.
    Requirement(Requirement),
}

/// A sandboxed build: a shell script, what it may see, and what it fills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The name; the object's name is `<component>-<name>`, with `-<output>` for outputs other than `out`.
    pub name: String,
    /// The script, run with `sh -eu`; may hold placeholders.
    pub script: String,
    /// What lies in the script's directory, each under its base name.
    pub sources: Vec<Source>,
    /// Environment variables; values may hold placeholders.
    pub environment: BTreeMap<String, String>,
    /// Placeholders that the build may see beyond those that its script and environment name.
    pub inputs: Vec<ObjectId>,
    /// Output names (`out` alone, or several, each a variable of the script) with their placeholders.
    pub outputs: BTreeMap<String, ObjectId>,
    /// How long it may take, in seconds.
    pub timeout_s: u64,
}

/// A source of a build: a file, or a directory with all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The base name under which the script finds it.
    pub name: String,
    /// Files, sorted by path: the path below `name` (nothing if the source is a file itself), bytes, executable.
    #[serde(with = "crate::evaluator::carriage::source_files")]
    pub files: Vec<(Option<RelPath>, Arc<[u8]>, bool)>,
}

/// A Python environment from a lock file with hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonEnv {
    /// The name; objects are `<component>-<name>-wheels` and `<component>-<name>`.
    pub name: String,
    /// The lock file's text: requirement lines `name==version --hash=sha256:...`, checked for form at evaluation.
    pub lock: String,
    /// The absolute path of the interpreter on build machine and target.
    pub python: String,
    /// The placeholder of the fetched wheels.
    pub wheels: ObjectId,
    /// The placeholder of the installed environment.
    pub output: ObjectId,
}

/// A file by its digest, from the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The name; the object is `<component>-<name>`.
    pub name: String,
    /// Where it can be had, tried in order.
    pub urls: Vec<String>,
    /// What it must have: `sha256:`, `sha512:` or `blake3:`, and lower-case hexadecimal digits.
    pub digest: String,
    /// The file's name in the object.
    pub file: String,
    /// The largest size, in bytes.
    pub size_max: u64,
    /// The placeholder of the object.
    pub output: ObjectId,
}

/// A long-running process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The name; the unit is `<name>.service`.
    pub name: String,
    /// Program and arguments; may hold placeholders.
    pub command: Vec<String>,
    /// Program and arguments that make it read its configuration again; empty if it cannot.
    pub reload: Vec<String>,
    /// Texts (paths, contents) whose change means "reload"; may hold placeholders.
    pub reload_on: Vec<String>,
    /// Environment variables; values may hold placeholders.
    pub environment: BTreeMap<String, String>,
    /// The user it runs as.
    pub user: Option<String>,
    /// The directory it starts in; may hold placeholders.
    pub working_directory: Option<String>,
    /// When it is started again.
    pub restart: Restart,
    /// The systemd service type: `simple`, `exec`, `notify` or `forking`.
    pub kind: String,
    /// Units that are started first.
    pub after: Vec<String>,
    /// How long it may take to stop, in milliseconds.
    pub stop_timeout_ms: u64,
    /// Further lines for the `[Service]` section, sorted by key.
    pub settings: BTreeMap<String, String>,
}

/// What runs at times: a service that ends, and when it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// What is started; its `kind` is `oneshot`. The units are `<name>.service` and `<name>.timer`.
    pub job: Service,
    /// Calendar events in the words of systemd.time(7), checked for form.
    pub calendar: Vec<String>,
    /// Seconds between two starts, the first counted from when the timer is started.
    pub every_s: Option<u64>,
    /// Up to so many seconds later, chosen anew each time; 0 for none.
    pub spread_s: u64,
    /// A calendar event that passed while the host was down is made up for.
    pub catch_up: bool,
}
