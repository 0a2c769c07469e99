//! Steps that happen at activation: hooks and health checks.

#![expect(clippy::too_many_arguments, reason = "what definitions name is arguments")]

use sarsen_store::manifest::{Phase, Probe};
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::list::UnpackList;
use starlark::values::none::NoneOr;
use starlark::values::{Value, ValueLike};

use super::{Declaration, bounded, checked_name, checked_unit, checked_user, make};
use crate::environment::Resolver;
use crate::eval::context::Context;
use crate::eval::convert::to_text;
use crate::eval::failure::Failure;
use crate::eval::values::{AddressValue, StepValue, no_address, to_port};
use crate::model::StepKind;

/// The longest time of a hook or health check, in seconds.
const TIMEOUT_S_MAX: u32 = 86_400;

/// The longest pause between attempts, in milliseconds.
const INTERVAL_MS_MAX: u32 = 600_000;

fn phase(text: &str) -> Result<Phase, Failure> {
    match text {
        "pre-switch" => Ok(Phase::PreSwitch),
        "post-switch" => Ok(Phase::PostSwitch),
        "post-confirm" => Ok(Phase::PostConfirm),
        "on-rollback" => Ok(Phase::OnRollback),
        other => {
            let phases = ["pre-switch", "post-switch", "post-confirm", "on-rollback"];
            Err(Failure::new("E0424", format!("there is no phase `{other}`"))
                .hint(format!("phases are {}", crate::diagnostic::list_names(&phases))))
        }
    }
}

/// What a host is asked under: `localhost` and addresses as they are, names by the environment's resolver.
fn resolve(host: &str, resolver: &Resolver) -> Result<String, Failure> {
    if host == "localhost" {
        return Ok(host.to_owned());
    }
    let addresses = resolver.addresses(host);
    let best = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    best.map(ToString::to_string).ok_or_else(|| no_address(host, ""))
}

/// Puts the address of the host into an `http://` URL.
fn http_url(url: &str, resolver: &Resolver) -> Result<String, Failure> {
    let wrong = |reason: &str| Failure::new("E0425", format!("`{url}` cannot be asked: {reason}")).hint("write `http://host:port/path`");
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        wrong(if url.starts_with("https://") { "health checks speak http, not https" } else { "it does not begin with `http://`" })
    })?;
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(wrong("it holds white space"));
    }
    let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = split_host(authority).ok_or_else(|| wrong("host and port cannot be read"))?;
    let host = resolve(host, resolver)?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(port.map_or_else(|| format!("http://{host}{path}"), |port| format!("http://{host}:{port}{path}")))
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_host(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    let sane = !host.is_empty() && !host.contains('@');
    sane.then_some((host, port))
}

fn tcp_probe(value: Value<'_>, resolver: &Resolver) -> Result<Probe, Failure> {
    let text = to_text(value, "`tcp`")?;
    let (host, port) = match value.downcast_ref::<AddressValue>() {
        Some(address) => (address.0.host.clone(), address.0.port),
        None => match split_host(&text) {
            Some((host, Some(port))) => (host.to_owned(), port),
            _ => {
                return Err(Failure::new("E0425", format!("`{text}` is not a host with a port"))
                    .hint("write `tcp = \"localhost:8080\"` or `tcp = Address(...)`"));
            }
        },
    };
    Ok(Probe::Tcp { host: resolve(&host, resolver)?, port: to_port(i32::from(port))? })
}

#[starlark_module]
pub(in crate::eval) fn builtins(builder: &mut GlobalsBuilder) {
    /// An action at activation: `verify` says by exit code 0 that there is nothing to do, `update` does it.
    ///
    /// Both are run with `sh -eu` in `/`, with `SARSEN_ROOT`, `SARSEN_PROFILE` and `SARSEN_GENERATION` set. Hooks of a phase run in
    /// the order in which they were added. One that fails ends the activation, and the recorded previous generation comes back; from
    /// `post-confirm` on nothing goes back any more.
    ///
    /// # Arguments
    /// * `name`: unique in the component
    /// * `update`: (str or Path) the commands that do it
    /// * `verify`: (str or Path) the commands that say whether there is anything to do; if not given, there always is
    /// * `on_change`: (list of str or Path) paths and texts whose change means that there is something to do: `update` runs when they, or it
    ///   itself, differ from when it last succeeded on this host. One that failed or was interrupted runs with the next deployment, until it succeeds,
    ///   even if nothing else is to be done. While they are the same, `verify` is asked if it is given, and nothing is done otherwise
    /// * `phase`: when: `"pre-switch"`, `"post-switch"`, `"post-confirm"` or `"on-rollback"`
    /// * `user`: the user it runs as; if not given, that of the installation
    /// * `timeout`: seconds that each of the two may take, at most a day
    ///
    /// # Returns
    /// `self.add` gives None
    ///
    /// # Errors
    /// * `E0406`: the name or the user is no such name
    /// * `E0407`: the time is out of its bounds
    /// * `E0410`: the component has another hook of this name
    /// * `E0424`: there is no such phase, `update` is empty, or `on_change` of a hook for the way back
    ///
    /// # Example
    /// ```python
    /// self.add(Hook("touch", update = "touch /tmp/asdf", verify = "test -e /tmp/asdf"))
    /// rules = self.add(File("rules.nft", content = "flush ruleset\n"))
    /// self.add(Hook("firewall", update = "nft -f '%s'" % rules, on_change = [rules]))
    /// ```
    fn Hook<'v>(
        name: &str,
        #[starlark(require = named)] update: Value<'v>,
        #[starlark(require = named)] verify: Option<Value<'v>>,
        #[starlark(require = named, default = UnpackList::default())] on_change: UnpackList<Value<'v>>,
        #[starlark(require = named, default = "post-switch")] phase: &str,
        #[starlark(require = named, default = NoneOr::None)] user: NoneOr<&str>,
        #[starlark(require = named, default = 60)] timeout: i32,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let update = to_text(update, "`update`")?;
        if update.trim().is_empty() {
            return Err(Failure::new("E0424", format!("hook `{name}` does nothing: its `update` is empty")).into());
        }
        let phase = self::phase(phase)?;
        if phase == Phase::OnRollback && !on_change.items.is_empty() {
            let failure = Failure::new("E0424", format!("hook `{name}` runs on the way back, whatever has changed"));
            return Err(failure.hint("leave `on_change` out").into());
        }
        let kind = StepKind::Hook {
            name: checked_name(name, "hook")?,
            phase,
            verify: verify.filter(|value| !value.is_none()).map_or_else(|| Ok(String::new()), |value| to_text(value, "`verify`"))?,
            update,
            user: user.into_option().map(checked_user).transpose()?,
            timeout_ms: bounded(timeout, "timeout", TIMEOUT_S_MAX)? * 1000,
            on_change: on_change.items.into_iter().map(|value| to_text(value, "an element of `on_change`")).collect::<Result<_, _>>()?,
        };
        Ok(make(eval, format!("Hook `{name}`"), Declaration::Ready(kind))?)
    }

    /// What must answer before the generation counts as healthy; ask one thing.
    ///
    /// Host names are resolved at evaluation, by `[resolver]`; `localhost` and addresses are what they are.
    ///
    /// # Arguments
    /// * `name`: unique in the component
    /// * `http`: a URL, `http://host:port/path`; the host asks itself, so `localhost` is usual
    /// * `tcp`: (str or Address) a host and port that accepts connections
    /// * `command`: (str or Path) a command for `sh` that ends with exit code 0
    /// * `unit`: a unit that is active
    /// * `status`: the HTTP status that is expected
    /// * `timeout`: seconds after the start of the services until when it must succeed, at most a day
    /// * `interval_ms`: milliseconds between attempts, at most ten minutes
    /// * `successes`: how many times in a row it must succeed
    ///
    /// # Returns
    /// `self.add` gives None
    ///
    /// # Errors
    /// * `E0404`: the environment's `[resolver]` does not know the host
    /// * `E0406`: the name or the unit is no such name
    /// * `E0407`: a number is out of its bounds
    /// * `E0410`: the component has another health check of this name
    /// * `E0425`: none or several of the four, or a URL or address that cannot be asked
    ///
    /// # Example
    /// ```python
    /// self.add(HealthCheck("answers", http = "http://localhost:%d/" % self.port, timeout = 10))
    /// self.add(HealthCheck("listens", tcp = Address("localhost", self.port)))
    /// ```
    fn HealthCheck<'v>(
        name: &str,
        #[starlark(require = named, default = NoneOr::None)] http: NoneOr<&str>,
        #[starlark(require = named, default = NoneOr::None)] tcp: NoneOr<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] command: NoneOr<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] unit: NoneOr<&str>,
        #[starlark(require = named, default = 200)] status: i32,
        #[starlark(require = named, default = 30)] timeout: i32,
        #[starlark(require = named, default = 500)] interval_ms: i32,
        #[starlark(require = named, default = 1)] successes: i32,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let context = Context::find(eval).ok_or_else(|| crate::eval::component::outside("steps are made"))?;
        let resolver = &context.scene.environment.resolver;
        let probe = match (http.into_option(), tcp.into_option(), command.into_option(), unit.into_option()) {
            (Some(url), None, None, None) => {
                let status = u16::try_from(status).ok().filter(|status| (100..600).contains(status));
                Probe::Http {
                    url: http_url(url, resolver)?,
                    status: status.ok_or_else(|| Failure::new("E0425", "an HTTP status goes from 100 to 599"))?,
                }
            }
            (None, Some(address), None, None) => tcp_probe(address, resolver)?,
            (None, None, Some(command), None) => Probe::Command { command: to_text(command, "`command`")? },
            (None, None, None, Some(unit)) => {
                let unit = checked_unit(unit)?;
                Probe::Unit { unit: if unit.contains('.') { unit } else { format!("{unit}.service") } }
            }
            _ => {
                return Err(Failure::new("E0425", format!("health check `{name}` asks one thing"))
                    .hint("give one of `http`, `tcp`, `command` and `unit`")
                    .into());
            }
        };
        let kind = StepKind::HealthCheck {
            name: checked_name(name, "health check")?,
            probe,
            timeout_ms: bounded(timeout, "timeout", TIMEOUT_S_MAX)? * 1000,
            interval_ms: bounded(interval_ms, "interval_ms", INTERVAL_MS_MAX)?,
            successes: u32::try_from(bounded(successes, "successes", 1000)?).unwrap_or(1),
        };
        Ok(make(eval, format!("HealthCheck `{name}`"), Declaration::Ready(kind))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let resolver = Resolver::default();
        for (url, expected) in [
            ("http://localhost:8081/health?x=1", Some("http://localhost:8081/health?x=1")),
            ("http://127.0.0.1", Some("http://127.0.0.1/")),
            ("http://[::1]:80/", Some("http://[::1]:80/")),
            ("https://localhost/", None),
            ("http://localhost:0/", None),
            ("http://localhost:99999/", None),
            ("http://user@localhost/", None),
            ("http://www.example.net/", None),
            ("http:///x", None),
        ] {
            assert_eq!(http_url(url, &resolver).ok().as_deref(), expected, "{url}");
        }
    }
}
