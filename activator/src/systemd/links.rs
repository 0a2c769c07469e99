//! The files that sarsen makes in systemd's directory.
//!
//! * `<unit>` -> `<profile>/current/unit.d/<unit>`: the definition;
//! * `<boot target>.wants/<unit>` -> the same: starts it at boot, as `systemctl enable` does for a unit elsewhere; not for jobs;
//! * `sarsen-settle-<installation>.service` and `sarsen-settle.service` with their links in the same place: files of our own.
//!
//! A link is ours if it leads into our profile's `current`; nothing else is ever overwritten or removed.

use std::fs;
use std::path::{Path, PathBuf};

use sarsen_store::fsutil::{self, FsError};
use sarsen_store::manifest::UNIT_DIRECTORY;

use super::SETTLE_UNIT;
use crate::services::ServiceError;

/// The longest unit file that is compared, in bytes; ours has a few hundred.
const UNIT_BYTES_MAX: u64 = 64 << 10;

/// The first line of a file that sarsen made.
const MARK: &str = "# Made by sarsen; changes are overwritten.\n";

/// Where links are made.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// systemd's directory of units.
    pub(super) directory: &'a Path,
    /// The target that wants units at boot.
    pub(super) target: &'a str,
    /// The profile's `current` link.
    pub(super) current: &'a Path,
}

/// What stands at a path.
enum Found {
    Nothing,
    Ours,
    Foreign,
}

impl Place<'_> {
    /// Makes the definitions of `units`, lets those of `wanted` start at boot, and removes our links of all others.
    ///
    /// Errors: [`ServiceError::Foreign`] before anything is changed.
    pub(super) fn install(&self, units: &[String], wanted: &[String]) -> Result<(), ServiceError> {
        let definitions = units.iter().map(|unit| (self.directory.join(unit), unit));
        let links: Vec<_> = definitions.chain(wanted.iter().map(|unit| (self.wants().join(unit), unit))).collect();
        for (path, _) in &links {
            if let Found::Foreign = self.look(path)? {
                return Err(ServiceError::Foreign { path: path.display().to_string() });
            }
        }
        fsutil::create_dir_all(&self.wants(), 0o755).map_err(file_error)?;
        for (path, unit) in &links {
            if let Found::Nothing = self.look(path)? {
                fsutil::replace_symlink(path, &self.definition(unit)).map_err(file_error)?;
            }
        }
        self.remove_others(&self.wants(), wanted)?;
        self.remove_others(self.directory, units)
    }

    /// Installs the unit `unit` that gives up interrupted trials of `root` at boot, and the one that all managed units wait for.
    pub(super) fn install_settle_unit(&self, root: &Path, unit: &str) -> Result<(), ServiceError> {
        self.install_own(unit, &render_settle_unit(root, self.target))?;
        self.install_own(SETTLE_UNIT, &render_settled_unit(self.target))
    }

    /// Installs and enables a file of our own. All installations write the same into one that they share.
    fn install_own(&self, unit: &str, text: &str) -> Result<(), ServiceError> {
        let path = self.directory.join(unit);
        let present = fsutil::read_file_if_exists(&path, UNIT_BYTES_MAX).map_err(file_error)?;
        if present.as_ref().is_some_and(|present| !present.starts_with(MARK.as_bytes())) {
            return Err(ServiceError::Foreign { path: path.display().to_string() });
        }
        if present.as_deref() != Some(text.as_bytes()) {
            fsutil::replace_file(&path, text.as_bytes(), 0o644).map_err(file_error)?;
        }
        let wanted = self.wants().join(unit);
        if fs::read_link(&wanted).ok().as_deref() != Some(path.as_path()) {
            fsutil::replace_symlink(&wanted, &path).map_err(file_error)?;
        }
        Ok(())
    }

    fn wants(&self) -> PathBuf {
        self.directory.join(format!("{}.wants", self.target))
    }

    fn definition(&self, unit: &str) -> PathBuf {
        self.current.join(UNIT_DIRECTORY).join(unit)
    }

    fn look(&self, path: &Path) -> Result<Found, ServiceError> {
        match fs::read_link(path) {
            Ok(target) if path.file_name().is_some_and(|unit| target == self.current.join(UNIT_DIRECTORY).join(unit)) => Ok(Found::Ours),
            Ok(_) => Ok(Found::Foreign),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::Nothing),
            // Not a link.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(Found::Foreign),
            Err(source) => Err(ServiceError::File { path: path.display().to_string(), source }),
        }
    }

    /// Removes our links in `directory` whose unit is not in `units`, those of an interrupted installation too.
    fn remove_others(&self, directory: &Path, units: &[String]) -> Result<(), ServiceError> {
        let unreadable = |source| ServiceError::File { path: directory.display().to_string(), source };
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let kept = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| units.iter().any(|unit| unit == name));
            if !kept && matches!(self.look(&path)?, Found::Ours) {
                fsutil::remove_file(&path).map_err(file_error)?;
            }
        }
        Ok(())
    }
}

fn file_error(error: FsError) -> ServiceError {
    ServiceError::File { path: error.path.display().to_string(), source: error.source }
}

fn settle_command(root: &Path) -> String {
    let root = root.display().to_string().replace('%', "%%");
    format!("ExecStart=\"{root}/bin/sarsen-activator\" settle --root \"{root}\"\n")
}

/// The unit that gives up interrupted trials: after local file systems, before everything that people call services.
fn render_settle_unit(root: &Path, boot_target: &str) -> String {
    format!(
        "{MARK}[Unit]\n\
         Description=Give up sarsen deployments that a restart interrupted\n\
         DefaultDependencies=no\n\
         RequiresMountsFor=\"{mounts}\"\n\
         After=local-fs.target\n\
         Before={SETTLE_UNIT} {boot_target} shutdown.target\n\
         Conflicts=shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         {command}\
         TimeoutStartSec=300\n\
         \n\
         [Install]\n\
         WantedBy={boot_target}\n",
        mounts = root.display(),
        command = settle_command(root),
    )
}

/// What managed units wait for, whichever installations there are: it starts when all of them were settled.
fn render_settled_unit(boot_target: &str) -> String {
    format!(
        "{MARK}[Unit]\n\
         Description=All sarsen installations are settled\n\
         DefaultDependencies=no\n\
         Before={boot_target} shutdown.target\n\
         Conflicts=shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=/bin/true\n\
         \n\
         [Install]\n\
         WantedBy={boot_target}\n",
    )
}
