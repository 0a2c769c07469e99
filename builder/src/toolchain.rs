//! The host toolchain's fingerprint: what builds see of the build machine, in one digest that enters every build's key.
//!
//! Builds see `/usr` and a few files of `/etc`. Hashing all of that costs seconds, so the fingerprint is made of the architecture,
//! `/etc/os-release`, and the names, versions and architectures of the installed Debian packages; without a dpkg database, of the names
//! and sizes in `/usr/bin`.
//!
//! What it cannot see: files put under `/usr` past the package manager (`/usr/local` above all), packages changed in place, the kernel,
//! and the processor's features. Two machines with equal fingerprints may differ in these; who needs more builds in a container of its own.

use std::path::{Path, PathBuf};

use sarsen_store::Digest;
use sarsen_store::canon::Encoder;
use sarsen_store::fsutil::{self, FsError};

/// The longest dpkg database that is read, in bytes: 5,000 packages have some 8 MiB.
const STATUS_BYTES_MAX: u64 = 64 << 20;

/// The longest os-release, in bytes.
const OS_RELEASE_BYTES_MAX: u64 = 64 << 10;

/// Why the toolchain cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// A file that exists cannot be read.
    #[error("the build machine's toolchain cannot be described")]
    File(#[from] FsError),
    /// The directory of programs cannot be listed.
    #[error("the build machine's toolchain cannot be described: `{}` cannot be listed", path.display())]
    Programs {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Computes the fingerprint of this machine.
pub fn read_host() -> Result<Digest, ToolchainError> {
    read(Path::new("/"))
}

/// Computes the fingerprint of the system below `root`.
fn read(root: &Path) -> Result<Digest, ToolchainError> {
    let os_release = fsutil::read_file_if_exists(&resolve(root, "etc/os-release"), OS_RELEASE_BYTES_MAX)?.unwrap_or_default();
    let mut encoder = Encoder::new("sarsen 2026 host toolchain v1");
    encoder.text(std::env::consts::ARCH).bytes(&os_release);
    if let Some(status) = fsutil::read_file_if_exists(&root.join("var/lib/dpkg/status"), STATUS_BYTES_MAX)? {
        let packages = installed_packages(&String::from_utf8_lossy(&status));
        encoder.tag(1).count(packages.len());
        for package in packages {
            encoder.text(&package);
        }
    } else {
        let programs = list_programs(&root.join("usr/bin"))?;
        encoder.tag(2).count(programs.len());
        for (name, size) in programs {
            encoder.bytes(&name).number(size);
        }
    }
    Ok(encoder.finish())
}

/// `/etc/os-release` is a link into `/usr/lib` on most systems, and the bounded reader follows none.
fn resolve(root: &Path, below: &str) -> PathBuf {
    let path = root.join(below);
    std::fs::canonicalize(&path).unwrap_or(path)
}

/// Returns `name version architecture` of each installed package, sorted.
fn installed_packages(status: &str) -> Vec<String> {
    let mut packages: Vec<String> = status
        .split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            field("Status")?.ends_with(" installed").then_some(())?;
            Some(format!("{} {} {}", field("Package")?, field("Version")?, field("Architecture").unwrap_or_default()))
        })
        .collect();
    packages.sort_unstable();
    packages
}

fn list_programs(directory: &Path) -> Result<Vec<(Vec<u8>, u64)>, ToolchainError> {
    let at = |source| ToolchainError::Programs { path: directory.to_owned(), source };
    let mut programs = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(at)? {
        let entry = entry.map_err(at)?;
        let size = entry.metadata().map_err(at)?.len();
        programs.push((entry.file_name().into_encoded_bytes(), size));
    }
    programs.sort_unstable();
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: b\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2\nDescription: x\n y\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: a\nStatus: install ok installed\nVersion: 1\n";

    #[test]
    fn only_installed_packages_count_in_any_order() {
        assert_eq!(installed_packages(STATUS), ["a 1 ", "b 2 amd64"]);
    }

    #[test]
    fn a_new_version_changes_the_fingerprint() {
        let root = tempfile::tempdir().unwrap();
        let fingerprint = |status: &str| {
            fsutil::create_dir_all(&root.path().join("var/lib/dpkg"), 0o755).unwrap();
            fsutil::replace_file(&root.path().join("var/lib/dpkg/status"), status.as_bytes(), 0o644).unwrap();
            read(root.path()).unwrap()
        };
        let before = fingerprint(STATUS);
        assert_eq!(before, fingerprint(&STATUS.replace("Description: x", "Description: z")));
        assert_ne!(before, fingerprint(&STATUS.replace("Version: 2", "Version: 3")));
    }

    #[test]
    fn without_dpkg_the_programs_count() {
        let root = tempfile::tempdir().unwrap();
        fsutil::create_dir_all(&root.path().join("usr/bin"), 0o755).unwrap();
        let empty = read(root.path()).unwrap();
        fsutil::replace_file(&root.path().join("usr/bin/cc"), b"1", 0o755).unwrap();
        assert_ne!(empty, read(root.path()).unwrap());
    }
}
