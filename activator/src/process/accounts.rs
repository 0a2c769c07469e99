//! Users and groups of this host, read from `/etc/passwd` and `/etc/group`.
//!
//! The activator is a static binary, and a static C library cannot load the host's name services: users that come from
//! LDAP or systemd-homed are unknown here. Units of systemd are not concerned, since systemd itself switches the user.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The longest account file that is read, in bytes; 100,000 users fit.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login name; empty for the present user when the host does not know it.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The primary group's number.
    pub gid: u32,
    /// The numbers of all groups, with the primary one, sorted.
    pub groups: Vec<u32>,
    /// The home directory.
    pub home: PathBuf,
}

/// A user that cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No line in `/etc/passwd` has that name.
    #[error("no user `{user}` in /etc/passwd")]
    Unknown {
        /// The name.
        user: String,
    },
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The path.
        path: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

impl Account {
    /// Looks a user up by name.
    ///
    /// Errors: [`AccountError::Unknown`], or a file that cannot be read.
    pub fn find(user: &str) -> Result<Self, AccountError> {
        let passwd = read(PASSWD)?;
        let group = read(GROUP)?;
        parse_account(&passwd, &group, |name, _| name == user).ok_or_else(|| AccountError::Unknown { user: user.to_owned() })
    }

    /// The user that runs this process; with `/` as home if the host does not know it.
    pub fn own() -> Self {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let known = read(PASSWD).ok().and_then(|passwd| parse_account(&passwd, "", |_, number| number == uid));
        known.unwrap_or_else(|| Self { name: String::new(), uid, gid, groups: vec![gid], home: PathBuf::from("/") })
    }

    /// Gives the calling *thread* this account's credentials for good; processes started from it inherit them.
    ///
    /// Asking for what the thread already is does nothing, so it needs no privilege.
    pub fn assume(&self) -> io::Result<()> {
        if geteuid().as_raw() == self.uid && getegid().as_raw() == self.gid {
            return Ok(());
        }
        let groups: Vec<Gid> = self.groups.iter().map(|&group| Gid::from_raw(group)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

fn read(path: &'static str) -> Result<String, AccountError> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    file.map_err(|source| AccountError::Read { path, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Finds the first account of a passwd text that `wanted` by name and number; malformed lines are passed over.
fn parse_account(passwd: &str, group: &str, wanted: impl Fn(&str, u32) -> bool) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let [name, _, uid, gid, _, home, _] = line.split(':').collect::<Vec<_>>().try_into().ok()?;
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        wanted(name, uid).then(|| Account { name: name.to_owned(), uid, gid, groups: parse_groups(group, name, gid), home: home.into() })
    })
}

fn parse_groups(group: &str, user: &str, primary: u32) -> Vec<u32> {
    let secondary = group.lines().filter_map(|line| {
        let [_, _, number, members] = line.split(':').collect::<Vec<_>>().try_into().ok()?;
        members.split(',').any(|member| member == user).then(|| number.parse().ok()).flatten()
    });
    let mut groups: Vec<u32> = secondary.chain([primary]).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_users_with_their_groups_and_passes_over_malformed_lines() {
        let passwd = "# text\nbroken:x:1\napp:x:-5:1::/a:/bin/sh\napp:x:1001:1002:App,,:/srv/app:/bin/sh\n+::::::\n";
        let group = "app:x:1002:\ndocker:x:99:root,app\nother:x:7:apple\nbroken\n";
        let found = parse_account(passwd, group, |name, _| name == "app").unwrap();
        let expected = Account { name: "app".to_owned(), uid: 1001, gid: 1002, groups: vec![99, 1002], home: "/srv/app".into() };
        assert_eq!(found, expected);
        assert_eq!(parse_account(passwd, group, |name, _| name == "ap"), None);
    }
}
