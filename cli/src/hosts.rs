//! The hosts of an environment as targets.

use std::time::Duration;

use sarsen_activator::deployment::{Host, HostDeployment};
use sarsen_activator::protocol::Claim;
use sarsen_activator::target::{Binary, Local, Ssh, Target};
use sarsen_builder::model::{Connect, Fleet, FleetHost};
use sarsen_builder::realise::Realised;
use sarsen_store::manifest::Identity;

use crate::context::Context;
use crate::error::{CommandError, Exit};

/// The hosts of an environment, without the ignored ones, in the order of their names.
pub(crate) fn hosts(context: &Context, fleet: &Fleet) -> Result<Vec<Host>, CommandError> {
    if fleet.hosts.iter().all(|host| host.ignore) {
        return Err(CommandError::new(Exit::Usage, format!("environment `{}` has no host to go to", fleet.environment))
            .hint("name one in [hosts], without `ignore = true`"));
    }
    if !context.activator.is_file() {
        return Err(CommandError::new(
            Exit::Failed,
            format!("there is no `{}`, which does the work on targets", context.activator.display()),
        )
        .hint("install sarsen-activator beside sarsen; in the source tree `cargo build --workspace` makes both"));
    }
    let binary = match fleet.connect {
        Connect::Local => None,
        Connect::Ssh => Some(Binary::read(&context.activator).map_err(|error| CommandError::of(Exit::Failed, &error))?),
    };
    fleet.hosts.iter().filter(|host| !host.ignore).map(|host| host_of(context, fleet, host, binary.as_ref())).collect()
}

/// The hosts of an environment with what they shall run.
pub(crate) fn deployments(context: &Context, fleet: &Fleet, realised: Realised) -> Result<Vec<HostDeployment>, CommandError> {
    let hosts = hosts(context, fleet)?;
    let mut bundles = realised.hosts.into_iter();
    let paired = hosts.into_iter().map(|host| {
        let bundle = bundles.find(|bundle| bundle.host == host.name()).expect("bundles come in the order of the hosts");
        HostDeployment { host, bundle: bundle.bundle, manifest: bundle.manifest }
    });
    Ok(paired.collect())
}

/// How many hosts are worked on at once.
pub(crate) fn jobs(fleet: &Fleet) -> usize {
    usize::try_from(fleet.jobs).unwrap_or(usize::MAX)
}

fn host_of(context: &Context, fleet: &Fleet, host: &FleetHost, binary: Option<&Binary>) -> Result<Host, CommandError> {
    let timeout = Duration::from_secs(fleet.timeout_s.into());
    let target: Box<dyn Target> = match binary {
        None => Box::new(Local { host: host.name.clone(), activator: context.activator.clone(), root: fleet.root.clone().into(), timeout }),
        Some(binary) => Box::new(Ssh {
            host: host.name.clone(),
            address: address(host).parse().map_err(|error| CommandError::of(Exit::Usage, &error))?,
            command: context.ssh.with(ssh_words(host)),
            activator: binary.clone(),
            root: fleet.root.parse().map_err(|error| CommandError::of(Exit::Usage, &error))?,
            timeout,
        }),
    };
    let identity = Identity {
        project: fleet.project.clone(),
        environment: fleet.environment.clone(),
        host: host.name.clone(),
        profile: fleet.profile.clone(),
    };
    Ok(Host { target, identity, claim: Claim::OwnOnly })
}

/// What `ssh` connects to.
fn address(host: &FleetHost) -> String {
    let address = host.ssh.address.as_ref().unwrap_or(&host.fqdn);
    host.ssh.user.as_ref().map_or_else(|| address.clone(), |user| format!("{user}@{address}"))
}

/// The options that the environment gives to `ssh`.
fn ssh_words(host: &FleetHost) -> Vec<String> {
    let port = host.ssh.port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]);
    let jump = host.ssh.jump.iter().flat_map(|jump| ["-J".to_owned(), jump.clone()]);
    port.chain(jump).collect()
}
