//! Builtin steps: their arguments, checked as far as they can be without the component that adds them.

mod activation;
mod content;
mod fetch;
mod file;
mod host;
mod mode;
mod timer;

use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;

pub(super) use activation::builtins as activation;
pub(super) use content::{BuildDeclaration, PythonDeclaration};
pub(super) use fetch::FetchDeclaration;
pub(super) use file::{Content, Engine, FileDeclaration, Formatted, TreeDeclaration};
pub(super) use mode::render_mode;

use super::context::Context;
use super::failure::Failure;
use super::instance::remember;
use super::values::StepValue;
use crate::model::StepKind;

/// All steps that make content.
pub(super) fn content(builder: &mut GlobalsBuilder) {
    content::builtins(builder);
    file::builtins(builder);
}

/// All steps that say what the host must have.
pub(super) fn host(builder: &mut GlobalsBuilder) {
    host::builtins(builder);
    timer::builtins(builder);
}

/// A step before it belongs to a component.
#[derive(Debug)]
pub(super) enum Declaration {
    /// Rendered when it is added.
    File(FileDeclaration),
    /// Its files are read when it is added.
    Tree(TreeDeclaration),
    /// Its sources are read when it is added.
    Build(BuildDeclaration),
    /// Its lock file is read when it is added.
    PythonEnv(PythonDeclaration),
    /// Its object's name depends on the component.
    Fetch(FetchDeclaration),
    /// The directory's name; its place depends on the component.
    StateDirectory { name: String, user: Option<String>, mode: u32 },
    /// Complete.
    Ready(StepKind),
}

/// Makes the value that `self.add` takes.
pub(super) fn make(eval: &Evaluator<'_, '_, '_>, label: String, declaration: Declaration) -> Result<StepValue, Failure> {
    let context = Context::find(eval).ok_or_else(|| super::component::outside("steps are made"))?;
    let index = remember(context, label.clone(), Context::caller(eval), Some(declaration));
    Ok(StepValue { index, label })
}

/// Checks a name that ends up in file names and messages.
pub(super) fn checked_name(name: &str, what: &str) -> Result<String, Failure> {
    if crate::environment::is_name(name) {
        return Ok(name.to_owned());
    }
    Err(Failure::new("E0406", format!("`{name}` cannot be the name of a {what}"))
        .hint("names are made of `A-Za-z0-9._-` and begin with a letter or digit"))
}

/// Checks the name of a user of the target, as useradd(8) takes it, with capitals and dots.
pub(super) fn checked_user(name: &str) -> Result<String, Failure> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= 32 && !name.starts_with(['.', '-']) && name.chars().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(Failure::new("E0406", format!("`{}` cannot be the name of a user", name.escape_debug()))
        .hint("names are made of `A-Za-z0-9._-` and begin with a letter, a digit or `_`"))
}

/// Checks the name of a unit of the target, with or without its suffix, as systemd.unit(5) has it.
pub(super) fn checked_unit(name: &str) -> Result<String, Failure> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":_.@\\-".contains(c);
    if !name.is_empty() && name.len() <= 255 && name.chars().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(Failure::new("E0406", format!("`{}` cannot be the name of a unit", name.escape_debug()))
        .hint("for example `postgresql` or `network-online.target`"))
}

/// Checks a positive number that is bounded.
pub(super) fn bounded(value: i32, what: &str, max: u32) -> Result<u64, Failure> {
    let number = u32::try_from(value).ok().filter(|number| (1..=max).contains(number));
    number.map(u64::from).ok_or_else(|| Failure::new("E0407", format!("`{what}` goes from 1 to {max}, not `{value}`")))
}

/// Checks an absolute path on the target.
pub(super) fn checked_absolute(path: &str, what: &str) -> Result<String, Failure> {
    let good =
        path.strip_prefix('/').is_some_and(|rest| rest.parse::<sarsen_store::RelPath>().is_ok()) && !path.chars().any(char::is_control);
    if good { Ok(path.to_owned()) } else { Err(Failure::new("E0408", format!("{what} wants an absolute path without `..`, not `{path}`"))) }
}
