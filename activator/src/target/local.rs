//! This machine as a target: the activator runs as a child, as the same user.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::child::{Child, Group};
use super::session::{Opening, Session};
use super::{Freshness, Target, TargetError};

/// This machine.
#[derive(Debug, Clone)]
pub struct Local {
    /// The host's name in the environment.
    pub host: String,
    /// The activator's binary, an absolute path.
    pub activator: PathBuf,
    /// The root of the installation.
    pub root: PathBuf,
    /// How long starting it may take.
    pub timeout: Duration,
}

impl Target for Local {
    fn name(&self) -> &str {
        &self.host
    }

    fn connect(&self, _freshness: Freshness) -> Result<Session, TargetError> {
        let mut command: Vec<OsString> = vec![self.activator.clone().into()];
        command.extend(["serve".into(), "--root".into(), self.root.clone().into()]);
        let (child, streams) = Child::start(&command, Group::Own).map_err(|source| TargetError::Start {
            host: self.host.clone(),
            program: self.activator.display().to_string(),
            source,
        })?;
        Session::open(&self.host, streams, Some(child), &Opening { timeout: self.timeout, binary: None })
    }
}
