//! The keys of `sarsen.toml` and `environment.toml`: one list, which the language reference prints.
//!
//! A key that is read and does not stand here ends every test that reads it; a key that stands here and is not read is refused as
//! unknown when the reference's examples are evaluated.

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// The section it belongs to; [`PROJECT_FILE`](crate::snapshot::PROJECT_FILE) and `environment.toml` for the sections themselves.
    pub(crate) section: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
    /// What its values are.
    pub(crate) values: &'static str,
    /// What holds if it is not given; empty for "nothing".
    pub(crate) default: &'static str,
    /// What it means.
    pub(crate) text: &'static str,
    /// A value as TOML has it; empty for sections.
    pub(crate) example: &'static str,
}

/// The files, whose keys are sections.
pub(crate) const FILES: [&str; 2] = ["sarsen.toml", "environment.toml"];

/// The keys of a host that is a table.
pub(crate) const HOST: &str = "[hosts] NAME";

/// The keys of a package.
pub(crate) const PACKAGE: &str = "[packages] NAME";

/// The keys of `[ssh]`, and of `ssh` of a host or group.
pub(crate) const SSH: &str = "[ssh]";

const fn key(
    section: &'static str,
    name: &'static str,
    values: &'static str,
    default: &'static str,
    text: &'static str,
    example: &'static str,
) -> Key {
    Key { section, name, values, default, text, example }
}

/// All keys, in the order in which they are explained.
#[rustfmt::skip]
pub(crate) const KEYS: &[Key] = &[
    key("sarsen.toml", "project", "table", "", "what the project is; required", ""),
    key("[project]", "name", "`a-z0-9-`, begins with a letter", "", "the project's name, and the profile's on the targets; required", "\"shop\""),
    key("[project]", "trusted_keys", "list of `\"name:base64\"`", "none", "public keys; `sarsen store import` takes what one of them has signed", "[\"ci-1:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"]"),
    key("sarsen.toml", "retention", "table", "all generations stay", "which generations hosts keep after a deployment", ""),
    key("[retention]", "keep_last", "1 to 100000", "10", "the newest so many stay; a generation stays if either key wants it", "5"),
    key("[retention]", "keep_days", "0 to 36500", "30", "those of the last so many days stay", "14"),
    key("sarsen.toml", "packages", "table", "", "packages of components from other repositories: `load(\"@NAME//lib/x.star\", ...)`; `sarsen lock` pins them", ""),
    key(PACKAGE, "git", "URL or path", "", "the repository, laid out as a project; a path is relative to the project directory; required", "\"https://git.example.net/web.git\""),
    key(PACKAGE, "rev", "40 or 64 of `0-9a-f`", "", "a commit; one of `rev`, `tag` and `branch` is required", "\"0123456789abcdef0123456789abcdef01234567\""),
    key(PACKAGE, "tag", "tag", "", "a tag, as it is when it is locked", "\"v1\""),
    key(PACKAGE, "branch", "branch", "", "a branch, as it is when it is locked", "\"main\""),
    key("environment.toml", "environment", "table", "", "settings", ""),
    key("environment.toml", "ssh", "table", "", "how hosts are reached by ssh, as far as the user's own configuration does not say", ""),
    key("environment.toml", "groups", "table", "", "what several hosts have in common: `[groups.NAME]`, with the keys of a host", ""),
    key("environment.toml", "hosts", "table", "", "hosts and what runs on them; `\"web[1-20]\"` and `\"rack[a-c]-[01-20]\"` stand for many, and a host that is named besides lies over its pattern", ""),
    key("environment.toml", "components", "table", "", "attributes of components, `[components.NAME]`", ""),
    key("environment.toml", "resolver", "table", "", "addresses of names: `\"www.example.net\" = [\"192.0.2.7\", \"2001:db8::7\"]`", ""),
    key("[environment]", "extends", "environment", "", "the environment that this one is laid over: tables are merged, everything else is replaced", "\"base\""),
    key("[environment]", "host_domain", "domain", "", "what short host names are completed with; a host may be written either way", "\"example.net\""),
    key("[environment]", "platform", "`A-Za-z0-9._-`", "", "the platform of the hosts, for components to ask", "\"debian12\""),
    key("[environment]", "service_user", "user", "that of the installation", "whom services and state directories belong to unless a step says otherwise", "\"shop\""),
    key("[environment]", "connect", "`\"ssh\"` or `\"local\"`", "`\"ssh\"`", "how hosts are reached; `\"local\"` is this machine, and one host", "\"local\""),
    key("[environment]", "jobs", "1 to 64", "8", "how many hosts are worked on at once", "4"),
    key("[environment]", "timeout", "1 to 3600 seconds", "30", "how long connecting to a host may take", "10"),
    key("[environment]", "profile", "`A-Za-z0-9._-`", "the project's name", "the profile on the targets; environments that share a host need different ones", "\"shop-dev\""),
    key("[environment]", "root", "absolute path", "`/var/lib/sarsen`; for `\"local\"` that of the user", "where store, profiles and state live on the targets", "\"/srv/sarsen\""),
    key("[environment]", "require_v4", "`true`, `false` or `\"optional\"`", "`\"optional\"`", "whether every `Address` must have an IPv4 address, or has none", "\"optional\""),
    key("[environment]", "require_v6", "`true`, `false` or `\"optional\"`", "`\"optional\"`", "the same for IPv6", "false"),
    key(SSH, "address", "host name or IPv4 address", "the full name", "what `ssh` connects to; for a host, not for all", "\"192.0.2.11\""),
    key(SSH, "user", "user", "that of the ssh configuration", "whom to log in as", "\"deploy\""),
    key(SSH, "port", "1 to 65535", "that of the ssh configuration", "the port of the ssh server", "2222"),
    key(SSH, "jump", "host or `user@host`", "none", "the host to go through, as with `ssh -J`", "\"gate.example.net\""),
    key(HOST, "components", "list of `\"component\"` and `\"component:feature\"`", "none", "what runs there; a host that is a list is this; `\"!component\"` is evaluated for the others' sake, but not part of what the host gets", "[\"web\"]"),
    key(HOST, "data", "table", "empty", "values for components: `self.host.data`", "{ disk = \"/dev/vdb\" }"),
    key(HOST, "tags", "list of `A-Za-z0-9._-`", "none", "names for components to ask: `self.host.tags`", "[\"db\"]"),
    key(HOST, "groups", "list of groups", "none", "the groups it belongs to, the uppermost last: `self.host.groups`", "[\"frontend\"]"),
    key(HOST, "attributes", "table of tables", "none", "attributes of components on this host: `attributes.shop.port = 8081`", "{ web = { port = 8081 } }"),
    key(HOST, "platform", "`A-Za-z0-9._-`", "that of the environment", "the host's platform", "\"debian13\""),
    key(HOST, "service_user", "user", "that of the environment", "whom services and state directories on this host belong to", "\"shop\""),
    key(HOST, "ssh", "table", "that of the environment", "how it is reached, with the keys of `[ssh]`", "{ port = 2222 }"),
    key(HOST, "ignore", "`true` or `false`", "`false`", "evaluated for the others' sake, but neither connected to nor changed", "false"),
];

/// Whether a key of a section, named by the title that messages give it, stands in the list.
pub(crate) fn is_declared(title: &str, name: &str) -> bool {
    let section = if title.starts_with("host `") || title.starts_with("group `") {
        HOST
    } else if title.starts_with("package `") {
        PACKAGE
    } else {
        title
    };
    KEYS.iter().any(|key| key.name == name && (key.section == section || section == "the file" && FILES.contains(&key.section)))
}
