//! The link to the program on a target, for what calls it later: boot and dead man.

use std::path::{Path, PathBuf};

use sarsen_store::fsutil;

use crate::error::ActivateError;
use crate::layout::Layout;

/// The file of the program that runs now, also when it has been removed meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Lets the link that boot and dead-man units call lead to the program that runs now. Writes nothing if it does already.
pub fn adopt(layout: &Layout) -> Result<(), ActivateError> {
    let failed = |source| ActivateError::Io { action: "find the program behind", path: OWN_PROGRAM.into(), source };
    let program: PathBuf = std::fs::read_link(OWN_PROGRAM).map_err(failed)?;
    let (Some(directory), Some(name)) = (program.parent(), program.file_name()) else { return Ok(()) };
    let target = if directory == layout.binaries() { Path::new(name) } else { program.as_path() };
    if std::fs::read_link(layout.activator()).is_ok_and(|former| former == target) {
        return Ok(());
    }
    fsutil::create_dir_all(&layout.binaries(), 0o755)?;
    Ok(fsutil::replace_symlink(&layout.activator(), target)?)
}
