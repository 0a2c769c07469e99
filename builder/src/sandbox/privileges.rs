//! Giving up everything that a build has no use for.
//!
//! Applied to process 1 of the sandbox, inherited by all others: no capability in any set, none obtainable (bounding set, no new
//! privileges), and three system call filters. Set-id bits are refused (CVE-2024-38531; `fchmodat2` is the one that other sandboxes
//! forgot, and a file can be made with them in the first place). Extended attributes answer as on a file system without them, since no object can hold any. Calls that make new namespaces,
//! mount, trace, or have had more holes than uses are refused, too. The store drops or refuses all of this again when it takes an output in.

use std::collections::BTreeMap;

use libc::c_long;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};

use super::stages::Failure;
use super::{FILE_BYTES_MAX, PROCESSES_MAX};

/// Set-user-id and set-group-id, each refused.
const SET_ID_BITS: [u64; 2] = [0o4000, 0o2000];

/// The highest number that a capability can have: the kernel's sets have 64 bits, asking for one that it does not know gives EINVAL.
const CAPABILITY_BITS: u32 = 64;

/// Calls that make a file: number, where its flags stand, where its mode stands.
const OPENING: &[(c_long, u8, u8)] = &[
    (libc::SYS_openat, 2, 3),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1, 2),
];

/// The flags with which the kernel looks at the mode; with others its place may hold anything.
const MAKING_FLAGS: [i32; 2] = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY];

/// The bit that marks x32 system calls, which are the same calls under other numbers.
const X32_BIT: c_long = 0x4000_0000;

/// Calls that are refused whatever their arguments are.
const REFUSED: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Can do much of what is filtered here without a filtered call.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// `setxattrat` and its relatives, Linux 6.13; the same numbers on every architecture.
const XATTR_AT: std::ops::RangeInclusive<c_long> = 463..=466;

const XATTR: &[c_long] = &[
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

/// What process 1 needs to build the root; it drops them before the script starts.
const NEEDED: [CapabilitySet; 3] = [CapabilitySet::SYS_ADMIN, CapabilitySet::NET_ADMIN, CapabilitySet::SETPCAP];

/// Lets the next program keep what it needs: without this, a user other than 0 loses all capabilities of a new namespace on `exec`.
pub(super) fn keep_for_process_1() -> Result<(), Failure> {
    let needed = NEEDED.into_iter().fold(CapabilitySet::empty(), |set, capability| set | capability);
    let sets = CapabilitySets { effective: needed, permitted: needed, inheritable: needed };
    rustix::thread::set_capabilities(None, sets).map_err(Failure::at("keep capabilities for process 1"))?;
    for capability in NEEDED {
        rustix::thread::configure_capability_in_ambient_set(capability, true).map_err(Failure::at("pass capabilities to process 1"))?;
    }
    Ok(())
}

/// Limits resources for good. See the table in [`super`].
fn limit_resources() -> Result<(), Failure> {
    let limits = [(Resource::Core, 0), (Resource::Nproc, PROCESSES_MAX), (Resource::Fsize, FILE_BYTES_MAX)];
    for (resource, most) in limits {
        // A limit that is lower already stays; nobody here could raise it.
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |known| known.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit).map_err(Failure::at("limit resources"))?;
    }
    Ok(())
}

/// Limits resources, drops capabilities, installs the filters.
pub(super) fn drop_all() -> Result<(), Failure> {
    limit_resources()?;
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true).map_err(Failure::at("no new privileges"))?;
    let unsupported = u32::try_from(libc::ENOTSUP).unwrap_or_default();
    let unknown = u32::try_from(libc::ENOSYS).unwrap_or_default();
    let refused = u32::try_from(libc::EPERM).unwrap_or_default();
    let xattr = XATTR.iter().copied().chain(XATTR_AT).map(|number| (number, Vec::new())).collect();
    // glibc falls back to clone(), whose flags a filter can see.
    // openat2() hides a mode in memory, as clone3() does flags; whoever knows it falls back, too.
    let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new()), (libc::SYS_openat2, Vec::new())]);
    for (rules, errno) in [(xattr, unsupported), (hidden, unknown), (refused_rules()?, refused)] {
        apply(rules, errno)?;
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), Failure> {
    for bit in 0..CAPABILITY_BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(Failure::at("drop capabilities for good")(error)),
        }
    }
    rustix::thread::clear_ambient_capability_set().map_err(Failure::at("drop ambient capabilities"))?;
    let none = CapabilitySets { effective: CapabilitySet::empty(), permitted: CapabilitySet::empty(), inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, none).map_err(Failure::at("drop capabilities"))
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn refused_rules() -> Result<Rules, Failure> {
    let mut rules: Rules = REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    let mut mode_calls = vec![(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (libc::SYS_fchmodat2, 2), (libc::SYS_mknodat, 2)];
    #[cfg(target_arch = "x86_64")]
    mode_calls.extend([(libc::SYS_chmod, 1), (libc::SYS_mknod, 1), (libc::SYS_creat, 1)]);
    for (number, argument) in mode_calls {
        let rule = |bit| rule(argument, SeccompCmpOp::MaskedEq(bit), bit);
        rules.insert(number, SET_ID_BITS.into_iter().map(rule).collect::<Result<_, _>>()?);
    }
    for (number, flags, mode) in OPENING {
        let mut making = Vec::new();
        for bit in SET_ID_BITS {
            for flag in MAKING_FLAGS {
                let flag = u64::try_from(flag).unwrap_or_default();
                let conditions =
                    [condition(*mode, SeccompCmpOp::MaskedEq(bit), bit)?, condition(*flags, SeccompCmpOp::MaskedEq(flag), flag)?];
                making.push(new_rule(conditions.into())?);
            }
        }
        rules.insert(*number, making);
    }
    let new_user = u64::try_from(libc::CLONE_NEWUSER).unwrap_or_default();
    rules.insert(libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(new_user), new_user)?]);
    rules.insert(libc::SYS_ioctl, vec![rule(1, SeccompCmpOp::Eq, libc::TIOCSTI)?, rule(1, SeccompCmpOp::Eq, libc::TIOCLINUX)?]);
    Ok(rules)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, Failure> {
    new_rule(vec![condition(argument, operator, value)?])
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Failure> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .map_err(|error| Failure::text("write a system call filter", &error))
}

/// A rule that holds where all conditions do.
fn new_rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, Failure> {
    SeccompRule::new(conditions).map_err(|error| Failure::text("write a system call filter", &error))
}

fn apply(mut rules: Rules, errno: u32) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::text("install a system call filter", error);
    if cfg!(target_arch = "x86_64") {
        let x32: Vec<_> = rules.iter().map(|(number, rules)| (number | X32_BIT, rules.clone())).collect();
        rules.extend(x32);
    }
    let architecture: TargetArch = std::env::consts::ARCH.try_into().map_err(|error| failed(&error))?;
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture).map_err(|error| failed(&error))?;
    let program: BpfProgram = filter.try_into().map_err(|error: seccompiler::BackendError| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}
