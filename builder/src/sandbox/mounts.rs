//! The root that a build sees, made from nothing.
//!
//! ```text
//! /            a tmpfs, read-only at last      /usr   the machine's, read-only, with all that is mounted below it
//! /bin /lib…   as on the machine               /etc   passwd, group, hosts; alternatives and ld.so.* of the machine
//! /proc        new, read-only                  /dev   null zero full random urandom, shm, fd
//! /tmp         a tmpfs                         /build the build's directory, writable
//! <store>      inputs read-only, outputs writable
//! /script      the script
//! ```
//!
//! /proc is read-only since the build's user may be the machine's root user: without any capability, but the owner of what lies in
//! /proc/sys. For the same reason device nodes are bound read-only, which forbids changing them and allows using them.
//! Nothing of the build's own content is there while mounts are made, so no link of it can lead them astray.
#![expect(clippy::disallowed_methods, reason = "writes into a tmpfs of its own mount namespace only")]

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::Spec;
use super::stages::Failure;

/// Where the script lies inside.
pub(super) const SCRIPT_PATH: &str = "/script";
/// The script's working directory inside.
pub(super) const BUILD_PATH: &str = "/build";

/// What a merged `/usr` has links for; other systems have directories, which are bound.
const ROOT_NAMES: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Files of the machine's `/etc` that belong to its toolchain.
const ETC_NAMES: &[&str] = &["alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"];

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

const DEVICE_LINKS: &[(&str, &str)] =
    &[("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")];

const PASSWD: &str =
    "root:x:0:0:root:/homeless:/bin/false\nbuild:x:1000:100:build:/homeless:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nusers:x:100:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost sarsen\n::1 localhost\n";

/// The size limit of the tmpfs that holds the root itself: mount points and a few small files.
const ROOT_OPTIONS: &std::ffi::CStr = c"mode=0755,size=64m";
const TMP_OPTIONS: &std::ffi::CStr = c"mode=1777";

/// Builds the root and makes it the root of this process. The mount namespace must be its own.
pub(super) fn enter_root(spec: &Spec) -> Result<(), Failure> {
    // Before anything else, so that no mount below is seen outside.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(Failure::at("make mounts private"))?;
    let root = Root { path: &spec.root };
    tmpfs(root.path, ROOT_OPTIONS)?;
    root.system()?;
    root.devices()?;
    root.etc()?;
    tmpfs(&root.directory("tmp")?, TMP_OPTIONS)?;
    root.file(SCRIPT_PATH.trim_start_matches('/'), &spec.script)?;
    root.bind(&spec.build, BUILD_PATH.trim_start_matches('/'), MountFlags::empty())?;
    root.store(spec)?;
    // Nothing inside can see the real /proc any more, so the new one comes last: mountinfo was needed until here.
    let proc = root.directory("proc")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", &proc, "proc", flags, None).map_err(Failure::at("mount a new /proc"))?;
    limit_processes(&proc)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | flags;
    rustix::mount::mount_remount(&proc, flags, "").map_err(Failure::at("make /proc read-only"))?;
    pivot(root.path)
}

/// Bounds the numbers, and so the count, of the processes of this pid namespace; the kernel reuses none of the first 300, so a few less can be had.
///
/// Since Linux 6.14 the setting belongs to the namespace. Before, it is the machine's, and root's builds could write it: hands off.
fn limit_processes(proc: &Path) -> Result<(), Failure> {
    if !has_own_pid_max(&rustix::system::uname().release().to_string_lossy()) {
        return Ok(());
    }
    let path = proc.join("sys/kernel/pid_max");
    fs::write(&path, super::PROCESSES_MAX.to_string()).map_err(at_path("limit the processes in", &path))
}

fn has_own_pid_max(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= (6, 14))
}

/// Makes `root` the root, drops the old one, and forbids writing to what is neither bound nor mounted elsewhere.
fn pivot(root: &Path) -> Result<(), Failure> {
    rustix::process::chdir(root).map_err(Failure::at("enter the new root"))?;
    // The old root is stacked over the new one and taken away, so no directory is needed to put it.
    rustix::process::pivot_root(".", ".").map_err(Failure::at("change the root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(Failure::at("leave the old root"))?;
    rustix::process::chdir("/").map_err(Failure::at("enter the new root"))?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount("/", flags, "").map_err(Failure::at("make the root read-only"))
}

struct Root<'a> {
    path: &'a Path,
}

impl Root<'_> {
    fn system(&self) -> Result<(), Failure> {
        self.bind(Path::new("/usr"), "usr", MountFlags::RDONLY)?;
        for name in ROOT_NAMES {
            let outside = Path::new("/").join(name);
            let Ok(metadata) = fs::symlink_metadata(&outside) else { continue };
            if metadata.is_symlink() {
                let target = fs::read_link(&outside).map_err(at_path("read the link", &outside))?;
                self.link(name, &target)?;
            } else {
                self.bind(&outside, name, MountFlags::RDONLY)?;
            }
        }
        Ok(())
    }

    fn devices(&self) -> Result<(), Failure> {
        self.directory("dev")?;
        for device in DEVICES {
            let outside = Path::new("/dev").join(device);
            let inside = format!("dev/{device}");
            self.file(&inside, "")?;
            self.bind_over(&outside, &inside, MountFlags::RDONLY | MountFlags::NOEXEC, MountFlags::NODEV)?;
        }
        for (name, target) in DEVICE_LINKS {
            self.link(&format!("dev/{name}"), Path::new(target))?;
        }
        tmpfs(&self.directory("dev/shm")?, TMP_OPTIONS)
    }

    fn etc(&self) -> Result<(), Failure> {
        self.directory("etc")?;
        for (name, text) in [("passwd", PASSWD), ("group", GROUP), ("hosts", HOSTS)] {
            self.file(&format!("etc/{name}"), text)?;
        }
        for name in ETC_NAMES {
            let outside = Path::new("/etc").join(name);
            let inside = format!("etc/{name}");
            match fs::symlink_metadata(&outside) {
                Ok(metadata) if metadata.is_dir() => self.bind(&outside, &inside, MountFlags::RDONLY)?,
                Ok(metadata) if metadata.is_file() => {
                    self.file(&inside, "")?;
                    self.bind_over(&outside, &inside, MountFlags::RDONLY, MountFlags::empty())?;
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn store(&self, spec: &Spec) -> Result<(), Failure> {
        let store = spec.store.strip_prefix("/").map_err(|error| Failure::text("place the store", &error))?;
        if ["usr", "proc", "dev", "etc", "build"].iter().any(|taken| store.starts_with(taken)) {
            return Err(Failure::text("place the store", &format!("no store can be at `{}` inside a build", spec.store.display())));
        }
        self.directory(&store.to_string_lossy())?;
        let inputs = spec.inputs.iter().map(|input| (input, MountFlags::RDONLY));
        let outputs = spec.outputs.iter().map(|output| (output, MountFlags::empty()));
        for ((name, outside), flags) in inputs.chain(outputs) {
            self.bind(outside, &store.join(name).to_string_lossy(), flags)?;
        }
        Ok(())
    }

    fn directory(&self, inside: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(inside);
        fs::create_dir_all(&path).map_err(at_path("make", &path))?;
        Ok(path)
    }

    fn file(&self, inside: &str, text: &str) -> Result<(), Failure> {
        let path = self.path.join(inside);
        fs::write(&path, text).map_err(at_path("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).map_err(at_path("set the mode of", &path))
    }

    fn link(&self, inside: &str, target: &Path) -> Result<(), Failure> {
        let path = self.path.join(inside);
        symlink(target, &path).map_err(at_path("link", &path))
    }

    /// Binds the directory `outside`, with what is mounted below it, to a new directory.
    fn bind(&self, outside: &Path, inside: &str, flags: MountFlags) -> Result<(), Failure> {
        self.directory(inside)?;
        self.bind_over(outside, inside, flags, MountFlags::empty())
    }

    /// Binds to something that exists. Set-id bits and device nodes are void in every mount, except for flags in `but`.
    fn bind_over(&self, outside: &Path, inside: &str, flags: MountFlags, but: MountFlags) -> Result<(), Failure> {
        let target = self.path.join(inside);
        rustix::mount::mount_bind_recursive(outside, &target).map_err(at_path("bind", outside))?;
        for mount in mounts_below(&target)? {
            let flags = (flags | MountFlags::NOSUID | MountFlags::NODEV | mount.flags) - but;
            rustix::mount::mount_remount(&mount.path, MountFlags::BIND | flags, "").map_err(at_path("restrict the mount", &mount.path))?;
        }
        Ok(())
    }
}

fn tmpfs(path: &Path, options: &std::ffi::CStr) -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(options)).map_err(at_path("mount a tmpfs on", path))
}

fn at_path<E: Into<io::Error>>(operation: &str, path: &Path) -> impl FnOnce(E) -> Failure {
    Failure::at(format!("{operation} `{}`", path.display()))
}

/// A mount and the flags that it has: they are locked where the mount comes from another user namespace, and have to be repeated.
struct Mount {
    path: PathBuf,
    flags: MountFlags,
}

/// Lists the mounts at and below `target`, from /proc/self/mountinfo (`proc_pid_mountinfo(5)`).
fn mounts_below(target: &Path) -> Result<Vec<Mount>, Failure> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read(path).map_err(at_path("read", path))?;
    Ok(parse_mounts(&String::from_utf8_lossy(&text)).into_iter().filter(|mount| mount.path.starts_with(target)).collect())
}

fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let mut fields = line.split(' ').skip(4);
        let path = unescape(fields.next()?);
        let flags = fields.next()?.split(',').fold(MountFlags::empty(), |flags, option| flags | flag(option));
        Some(Mount { path: path.into(), flags })
    };
    mountinfo.lines().filter_map(parse).collect()
}

fn flag(option: &str) -> MountFlags {
    match option {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        _ => MountFlags::empty(),
    }
}

/// Space, tab, line feed and backslash stand as `\ooo` in mountinfo.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_version_is_understood() {
        for (release, expected) in
            [("6.14.0", true), ("6.18.44-fc-v669", true), ("7.0", true), ("6.13.9-1-amd64", false), ("5.15", false), ("?", false)]
        {
            assert_eq!(has_own_pid_max(release), expected, "{release}");
        }
    }

    #[test]
    fn mountinfo_lines_are_understood() {
        let text = "36 35 98:0 /mnt1 /mnt/a\\040b ro,nosuid,noatime,idmapped master:1 - ext3 /dev/root rw,errors=continue\nshort\n";
        let mounts = parse_mounts(text);
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].path, Path::new("/mnt/a b"));
        assert_eq!(mounts[0].flags, MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOATIME);
    }
}
