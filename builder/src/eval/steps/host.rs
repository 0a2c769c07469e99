//! Steps that say what the host must have: services, state directories, links, requirements.

#![expect(clippy::too_many_arguments, reason = "what definitions name is arguments")]

use std::collections::BTreeMap;

use sarsen_store::manifest::{Requirement, Restart};
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::list::UnpackList;
use starlark::values::none::NoneOr;

use super::mode::parse_mode;
use super::{Declaration, bounded, checked_absolute, checked_name, checked_unit, checked_user, make};
use crate::eval::context::Context;
use crate::eval::convert::{to_text, to_text_map, to_texts};
use crate::eval::failure::Failure;
use crate::eval::values::{StepValue, to_port};
use crate::model::{Service, StepKind};

/// The service types that run on. What runs once and ends (systemd's `oneshot`) is a hook, or a timer's job: a service that has ended
/// could be told neither from one that died nor be started anew.
const SERVICE_TYPES: [&str; 4] = ["simple", "exec", "notify", "forking"];

/// The longest time for stopping a service, in seconds.
pub(super) const STOP_TIMEOUT_S_MAX: u32 = 3600;

pub(super) fn unit_name(name: &str) -> Result<String, Failure> {
    let good = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.@-".contains(c));
    if !good {
        return Err(Failure::new("E0406", format!("`{name}` cannot be the name of a service")).hint("names are made of `A-Za-z0-9_.@-`"));
    }
    if let Some(bare) = name.strip_suffix(".service").or_else(|| name.strip_suffix(".timer")) {
        return Err(Failure::new("E0406", format!("`{name}` is the name of a unit"))
            .hint(format!("write `\"{bare}\"`; the unit's suffix is added")));
    }
    if name.starts_with("sarsen-") {
        return Err(Failure::new("E0406", format!("`{name}` could be a service of sarsen itself")).hint("choose a name without `sarsen-`"));
    }
    Ok(name.to_owned())
}

/// Who may look into a state directory, unless a definition says otherwise.
const STATE_MODE_DEFAULT: u32 = 0o750;

/// Where no link can be or should be: what the kernel makes up.
const NO_LINKS: [&str; 3] = ["/proc/", "/sys/", "/dev/"];

fn restart(text: &str) -> Result<Restart, Failure> {
    match text {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "no" => Ok(Restart::No),
        other => {
            Err(Failure::new("E0422", format!("`restart` does not know `{other}`")).hint("it is \"always\", \"on-failure\" or \"no\""))
        }
    }
}

pub(super) fn command(value: Value<'_>, what: &str) -> Result<Vec<String>, Failure> {
    let command = to_texts(value, what)?;
    let unusable = command.iter().find(|argument| argument.contains(['\0', '\n']));
    if let Some(argument) = unusable {
        return Err(Failure::new(
            "E0422",
            format!("an argument of {what} holds a line break or a NUL byte: `{}`", argument.escape_debug()),
        ));
    }
    match command.first() {
        Some(program) if !program.starts_with('/') => {
            Err(Failure::new("E0422", format!("{what} begins with `{program}`, which is not an absolute path"))
                .hint("use a path value, or a path such as `/usr/bin/env`"))
        }
        _ => Ok(command),
    }
}

fn one_line(texts: &BTreeMap<String, String>, what: &str) -> Result<(), Failure> {
    match texts.iter().find(|(key, value)| key.is_empty() || key.contains(['=', '\n', '\0', ' ']) || value.contains(['\n', '\0'])) {
        Some((key, _)) => Err(Failure::new("E0422", format!("`{}` in {what} is not one line of text", key.escape_debug()))),
        None => Ok(()),
    }
}

/// What holds of every program that a unit runs; `what` names the step in messages.
pub(super) fn check_program(program: &Service, what: &str) -> Result<(), Failure> {
    one_line(&program.environment, "`env`")?;
    one_line(&program.settings, "`settings`")?;
    if program.command.is_empty() {
        return Err(Failure::new("E0422", format!("{what} has no command")));
    }
    if let Some(directory) = &program.working_directory {
        checked_absolute(directory, "`working_directory`")?;
    }
    Ok(())
}

#[starlark_module]
pub(in crate::eval) fn builtins(builder: &mut GlobalsBuilder) {
    /// A long-running process: a unit of systemd.
    ///
    /// It is started with the generation, and started anew when its unit differs from that of the generation before: another
    /// command, environment or setting, or another file that one of these names. Where only what `reload_on` holds differs, it is reloaded.
    ///
    /// # Arguments
    /// * `name`: the name; the unit is `<name>.service`, and no other component of the host can have it
    /// * `command`: (list of str, Path, Address or int) program and arguments; the program is an absolute path
    /// * `reload`: (list of str, Path, Address or int) what makes it read its configuration again; if not given, it is started anew
    /// * `reload_on`: (list of str or Path) texts whose change means "reload"; name the file that it reads through `self.current(...)` in `command` then
    /// * `env`: (dict of str or Path) environment variables
    /// * `user`: the user it runs as; if not given, the `service_user` of host or environment, else that of the service manager
    /// * `working_directory`: (str or Path) the directory it starts in, an absolute path
    /// * `restart`: when it is started again: `"always"`, `"on-failure"` or `"no"`
    /// * `type`: how it says that it is ready: `"simple"`, `"exec"`, `"notify"` or `"forking"`; what runs once and ends is a `Hook`, at times a `Timer`
    /// * `after`: units that are started first
    /// * `stop_timeout`: seconds that stopping may take, at most an hour
    /// * `settings`: (dict of str or Path) further lines of the section `[Service]`, by key
    ///
    /// # Returns
    /// `self.add` gives a struct with `unit`, the name of the unit
    ///
    /// # Errors
    /// * `E0402`: the command is one text and not a list
    /// * `E0406`: the name, the user or a unit in `after` is no such name
    /// * `E0407`: the time is out of its bounds
    /// * `E0408`: `working_directory` is no absolute path
    /// * `E0410`: another component of the host has a service of this name
    /// * `E0422`: the command is empty or begins with no absolute path, or a setting is unknown or not one line
    ///
    /// # Example
    /// ```python
    /// config = self.add(File("app.conf"))
    /// self.add(Service(
    ///     "app",
    ///     ["/usr/bin/env", "sleep", "infinity"],
    ///     env = {"APP_CONFIG": config},
    ///     restart = "on-failure",
    ///     settings = {"LimitNOFILE": "65536"},
    /// ))
    /// ```
    fn Service<'v>(
        name: &str,
        command: Value<'v>,
        #[starlark(require = named)] reload: Option<Value<'v>>,
        #[starlark(require = named, default = UnpackList::default())] reload_on: UnpackList<Value<'v>>,
        #[starlark(require = named)] env: Option<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] user: NoneOr<&str>,
        #[starlark(require = named, default = NoneOr::None)] working_directory: NoneOr<Value<'v>>,
        #[starlark(require = named, default = "always")] restart: &str,
        #[starlark(require = named, default = "simple")] r#type: &str,
        #[starlark(require = named, default = UnpackList::default())] after: UnpackList<String>,
        #[starlark(require = named, default = 30)] stop_timeout: i32,
        #[starlark(require = named)] settings: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let context = Context::find(eval).ok_or_else(|| crate::eval::component::outside("steps are made"))?;
        let texts = |value: Option<Value<'v>>, what: &str| value.map_or_else(|| Ok(BTreeMap::new()), |value| to_text_map(value, what));
        let service = Service {
            name: unit_name(name)?,
            command: self::command(command, "`command`")?,
            reload: reload.filter(|value| !value.is_none()).map_or_else(|| Ok(Vec::new()), |value| self::command(value, "`reload`"))?,
            reload_on: reload_on.items.into_iter().map(|value| to_text(value, "an element of `reload_on`")).collect::<Result<_, _>>()?,
            environment: texts(env, "`env`")?,
            user: user.into_option().map(checked_user).transpose()?.or_else(|| context.host().service_user.clone()),
            working_directory: working_directory.into_option().map(|value| to_text(value, "`working_directory`")).transpose()?,
            restart: self::restart(restart)?,
            kind: r#type.to_owned(),
            after: after.items.iter().map(|unit| checked_unit(unit)).collect::<Result<_, _>>()?,
            stop_timeout_ms: bounded(stop_timeout, "stop_timeout", STOP_TIMEOUT_S_MAX)? * 1000,
            settings: texts(settings, "`settings`")?,
        };
        check_program(&service, &format!("service `{name}`"))?;
        if !SERVICE_TYPES.contains(&service.kind.as_str()) {
            let failure = Failure::new("E0422", format!("`{}` is not a type of services", service.kind));
            let known = crate::diagnostic::list_names(&SERVICE_TYPES);
            return Err(failure.hint(format!("types are {known}; what runs once and ends is a `Hook`, at times a `Timer`")).into());
        }
        Ok(make(eval, format!("Service `{name}`"), Declaration::Ready(StepKind::Service(service)))?)
    }

    /// A directory for mutable data, outside of all generations: `<root>/state/<profile>/<component>/<name>`.
    ///
    /// It is made when it is missing and never removed; owner and mode are kept right.
    ///
    /// # Arguments
    /// * `name`: unique in the component
    /// * `user`: the owner; if not given, the `service_user` of host or environment, else the user of the installation
    /// * `mode`: (int or str) permission bits as `0o700`, `"0700"` or `"rwx------"`, up to 0o1777; 0o750 if not given
    ///
    /// # Returns
    /// `self.add` gives its `Path`, which `self.state(name)` gives later
    ///
    /// # Errors
    /// * `E0406`: the name or the user is no such name
    /// * `E0410`: the component has another state directory of this name
    /// * `E0416`: the mode is out of its bounds
    ///
    /// # Example
    /// ```python
    /// data = self.add(StateDirectory("data", mode = 0o700))
    /// self.add(File("app.ini", content = "[store]\npath = %s\n" % (data / "app.db")))
    /// ```
    fn StateDirectory<'v>(
        name: &str,
        #[starlark(require = named, default = NoneOr::None)] user: NoneOr<&str>,
        #[starlark(require = named, default = NoneOr::None)] mode: NoneOr<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let context = Context::find(eval).ok_or_else(|| crate::eval::component::outside("steps are made"))?;
        let user = user.into_option().map(checked_user).transpose()?.or_else(|| context.host().service_user.clone());
        let mode = mode.into_option().map_or(Ok(STATE_MODE_DEFAULT), parse_mode)?;
        if mode & !0o1777 != 0 {
            return Err(Failure::new("E0416", "the mode of a state directory goes from 0 to 0o1777").hint("write 0o750").into());
        }
        let declaration = Declaration::StateDirectory { name: checked_name(name, "state directory")?, user, mode };
        Ok(make(eval, format!("StateDirectory `{name}`"), declaration)?)
    }

    /// A managed absolute path of the host, such as `/etc/cron.d/x`: a symbolic link.
    ///
    /// It goes with the generation: a later one without it takes it away. A path that is there already and not ours is refused
    /// before anything is changed.
    ///
    /// # Arguments
    /// * `path`: the absolute path on the host
    /// * `target`: (str or Path) what it points to, an absolute path
    ///
    /// # Returns
    /// `self.add` gives None
    ///
    /// # Errors
    /// * `E0408`: one of the paths is not absolute, or lies where no link can be
    /// * `E0410`: another component of the host has this link
    ///
    /// # Example
    /// ```python
    /// job = self.add(File("cron", content = "17 3 * * * root /usr/bin/true\n"))
    /// self.add(Link("/etc/cron.d/nightly", job))
    /// ```
    fn Link<'v>(path: &str, target: Value<'v>, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<StepValue> {
        let path = checked_absolute(path, "`Link`")?;
        if let Some(reserved) = NO_LINKS.iter().find(|reserved| path.starts_with(**reserved)) {
            return Err(Failure::new("E0408", format!("`{path}` cannot be a link: `{reserved}` belongs to the kernel")).into());
        }
        let target = checked_absolute(&to_text(target, "the target of a link")?, "the target of a link")?;
        Ok(make(eval, format!("Link `{path}`"), Declaration::Ready(StepKind::Link { path, target }))?)
    }

    /// What must exist on the host before anything is changed; name one thing.
    ///
    /// # Arguments
    /// * `program`: a program: its name in the usual directories, or its absolute path
    /// * `port`: a TCP port that nobody else listens on
    /// * `user`: a user
    ///
    /// # Returns
    /// `self.add` gives None
    ///
    /// # Errors
    /// * `E0405`: the port is none
    /// * `E0406`: the program or user is no such name
    /// * `E0410`: two components of the host want the same port
    /// * `E0423`: none or several of the three
    ///
    /// # Example
    /// ```python
    /// self.add(Requirement(program = "haproxy"))
    /// self.add(Requirement(port = self.port))
    /// ```
    fn Requirement<'v>(
        #[starlark(require = named, default = NoneOr::None)] program: NoneOr<&str>,
        #[starlark(require = named, default = NoneOr::None)] port: NoneOr<i32>,
        #[starlark(require = named, default = NoneOr::None)] user: NoneOr<&str>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let component = Context::find(eval).map(|context| context.component.clone()).unwrap_or_default();
        let (label, requirement) = match (program.into_option(), port.into_option(), user.into_option()) {
            (Some(program), None, None) if program.starts_with('/') => {
                (format!("program `{program}`"), Requirement::Program { program: checked_absolute(program, "`program`")?, component })
            }
            (Some(program), None, None) => {
                (format!("program `{program}`"), Requirement::Program { program: checked_name(program, "program")?, component })
            }
            (None, Some(port), None) => (format!("port `{port}`"), Requirement::Port { port: to_port(port)?, component }),
            (None, None, Some(user)) => (format!("user `{user}`"), Requirement::User { user: checked_user(user)?, component }),
            _ => {
                return Err(Failure::new("E0423", "a requirement names one thing").hint("give one of `program`, `port` and `user`").into());
            }
        };
        Ok(make(eval, format!("Requirement for {label}"), Declaration::Ready(StepKind::Requirement(requirement)))?)
    }
}
