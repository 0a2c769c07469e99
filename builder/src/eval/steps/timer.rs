//! What runs at times: the step, and the form of calendar events.
//!
//! Form only: which days a month has is systemd's business. What systemd would refuse is refused here where the line is known; a
//! form that systemd has and this does not, such as fractions of seconds, is refused as well.
//! Source: systemd.time(7), "Calendar events".

#![expect(clippy::too_many_arguments, reason = "what definitions name is arguments")]

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use sarsen_store::manifest::Restart;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::list::UnpackList;
use starlark::values::none::NoneOr;

use super::host::{STOP_TIMEOUT_S_MAX, check_program, command, unit_name};
use super::{Declaration, bounded, checked_unit, checked_user, make};
use crate::eval::context::Context;
use crate::eval::convert::{to_text, to_text_map, to_texts};
use crate::eval::failure::Failure;
use crate::eval::values::StepValue;
use crate::model::{Service, StepKind, Timer};

/// The longest pause between two starts, in seconds: a year; what is rarer has a date.
const EVERY_S_MAX: u32 = 366 * 86_400;

/// The longest time that a job may take, in seconds: a week.
const TIMEOUT_S_MAX: u32 = 7 * 86_400;

/// The longest delay by chance, in seconds: a day.
const SPREAD_S_MAX: u32 = 86_400;

/// What systemd has a word for.
const WORDS: [&str; 9] = ["minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly", "annually"];

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// The years that systemd takes.
const YEARS: RangeInclusive<u32> = 1970..=2199;

fn checked_calendar(text: &str) -> Result<String, Failure> {
    if is_calendar(text) {
        return Ok(text.to_owned());
    }
    let failure = Failure::new("E0430", format!("`{}` is not a calendar event", text.escape_debug()));
    let looks_like_cron = text.split_whitespace().count() == 5 && !text.contains(':');
    Err(failure.hint(if looks_like_cron {
        "this is cron's form: write the date and the time of day, `*-*-* *:00/15:00` for \"every quarter of an hour\""
    } else {
        "write `daily`, `Mon..Fri 03:17`, `*-*-01 04:00` or another form of systemd.time(7)"
    }))
}

/// Weekdays, date, time of day and zone, each at most once and in this order; one of the first three at least.
fn is_calendar(text: &str) -> bool {
    if WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        return true;
    }
    let mut parts = text.split(' ').peekable();
    let days = parts.next_if(|part| are_weekdays(part)).is_some();
    let date = parts.next_if(|part| is_date(part)).is_some();
    let time = parts.next_if(|part| is_time(part)).is_some();
    let _zone = parts.next_if(|part| is_zone(part));
    parts.next().is_none() && (days || date || time)
}

fn are_weekdays(text: &str) -> bool {
    let is_day =
        |name: &str| name.len() >= 3 && WEEKDAYS.iter().any(|day| name.eq_ignore_ascii_case(day) || name.eq_ignore_ascii_case(&day[..3]));
    text.split(',').all(|item| item.split_once("..").map_or_else(|| is_day(item), |(from, to)| is_day(from) && is_day(to)))
}

fn is_date(text: &str) -> bool {
    // `~` counts days from the end of the month.
    let Some((rest, day)) = text.rsplit_once(['-', '~']) else { return false };
    let (year, month) = rest.split_once('-').unwrap_or(("*", rest));
    is_field(year, &YEARS) && is_field(month, &(1..=12)) && is_field(day, &(1..=31))
}

fn is_time(text: &str) -> bool {
    let fields: Vec<&str> = text.split(':').collect();
    let limits = [0..=23, 0..=59, 0..=59];
    (2..=3).contains(&fields.len()) && fields.iter().zip(&limits).all(|(field, limits)| is_field(field, limits))
}

/// A list of `*`, numbers and `from..to`, each with `/step` if it repeats.
fn is_field(text: &str, limits: &RangeInclusive<u32>) -> bool {
    let number = |text: &str| {
        let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let within = |text: &str| number(text).is_some_and(|value| limits.contains(&value));
    text.split(',').all(|item| {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let in_order = |(from, to): (&str, &str)| within(from) && within(to) && number(from) <= number(to);
        let range_is_good = range == "*" || range.split_once("..").map_or_else(|| within(range), in_order);
        range_is_good && step.is_none_or(|step| number(step).is_some_and(|step| step > 0))
    })
}

/// `UTC` or `Region/City`. Whether the target knows the city is seen there.
fn is_zone(text: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_uppercase()) && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-+".contains(c))
    };
    text == "UTC" || (text.contains('/') && text.split('/').all(is_part))
}

fn calendar_events(value: Option<Value<'_>>) -> Result<Vec<String>, Failure> {
    let texts = match value {
        None => Vec::new(),
        Some(value) if value.is_none() => Vec::new(),
        Some(value) => match value.unpack_str() {
            Some(text) => vec![text.to_owned()],
            None => to_texts(value, "`calendar`")?,
        },
    };
    texts.iter().map(|text| checked_calendar(text)).collect()
}

#[starlark_module]
pub(in crate::eval) fn builtins(builder: &mut GlobalsBuilder) {
    /// What runs at times and ends, as a job of cron does: a timer of systemd and the service that it starts.
    ///
    /// The timer is there while the generation is current. An activation does not start the job and does not end one that is
    /// running: what is changed holds for the next start, and what left the model is not started again. Two runs never overlap. A host whose
    /// services are not run by systemd refuses the bundle before anything is changed. Output goes to the journal of `<name>.service`.
    ///
    /// # Arguments
    /// * `name`: the name; the units are `<name>.timer` and `<name>.service`, and no other component of the host can have them
    /// * `command`: (list of str, Path, Address or int) program and arguments; the program is an absolute path
    /// * `calendar`: (str or list of str) when, as in systemd.time(7): `"daily"`, `"Mon..Fri 03:17"`, `"*-*-01 04:00 UTC"`
    /// * `every`: seconds between two starts, the first counted from the start of the timer; together with `calendar`, both count
    /// * `spread`: seconds of delay by chance, at most, so that many hosts do not begin at once
    /// * `catch_up`: whether an event of `calendar` that passed while the host was down is made up for
    /// * `env`: (dict of str or Path) environment variables
    /// * `user`: the user it runs as; if not given, the `service_user` of host or environment, else that of the service manager
    /// * `working_directory`: (str or Path) the directory it starts in, an absolute path
    /// * `after`: units that are started first
    /// * `timeout`: seconds that one run may take before it is ended, at most a week
    /// * `stop_timeout`: seconds that ending may take, at most an hour
    /// * `settings`: (dict of str or Path) further lines of the section `[Service]`, by key
    ///
    /// # Returns
    /// `self.add` gives a struct with `unit`, the name of the timer, and `service`, that of what it starts
    ///
    /// # Errors
    /// * `E0402`: the command is one text and not a list
    /// * `E0406`: the name, the user or a unit in `after` is no such name
    /// * `E0407`: a time is out of its bounds
    /// * `E0408`: `working_directory` is no absolute path
    /// * `E0410`: another component of the host has a service or timer of this name
    /// * `E0422`: the command is empty or begins with no absolute path, or a setting is not one line
    /// * `E0430`: neither `calendar` nor `every`, or what is no calendar event
    ///
    /// # Example
    /// ```python
    /// data = self.add(StateDirectory("data"))
    /// self.add(Timer("app-backup", ["/usr/bin/tar", "-cf", "/srv/app.tar", data], calendar = "Mon..Sat 03:17", spread = 600))
    /// self.add(Timer("app-poll", ["/usr/bin/true"], every = 300))
    /// ```
    fn Timer<'v>(
        name: &str,
        command: Value<'v>,
        #[starlark(require = named)] calendar: Option<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] every: NoneOr<i32>,
        #[starlark(require = named, default = 0)] spread: i32,
        #[starlark(require = named, default = false)] catch_up: bool,
        #[starlark(require = named)] env: Option<Value<'v>>,
        #[starlark(require = named, default = NoneOr::None)] user: NoneOr<&str>,
        #[starlark(require = named, default = NoneOr::None)] working_directory: NoneOr<Value<'v>>,
        #[starlark(require = named, default = UnpackList::default())] after: UnpackList<String>,
        #[starlark(require = named, default = 86_400)] timeout: i32,
        #[starlark(require = named, default = 30)] stop_timeout: i32,
        #[starlark(require = named)] settings: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<StepValue> {
        let context = Context::find(eval).ok_or_else(|| crate::eval::component::outside("steps are made"))?;
        let texts = |value: Option<Value<'v>>, what: &str| value.map_or_else(|| Ok(BTreeMap::new()), |value| to_text_map(value, what));
        let limit = bounded(timeout, "timeout", TIMEOUT_S_MAX)?;
        let mut settings = texts(settings, "`settings`")?;
        settings.entry("TimeoutStartSec".to_owned()).or_insert_with(|| format!("{limit}s"));
        let job = Service {
            name: unit_name(name)?,
            command: self::command(command, "`command`")?,
            reload: Vec::new(),
            reload_on: Vec::new(),
            environment: texts(env, "`env`")?,
            user: user.into_option().map(checked_user).transpose()?.or_else(|| context.host().service_user.clone()),
            working_directory: working_directory.into_option().map(|value| to_text(value, "`working_directory`")).transpose()?,
            restart: Restart::No,
            kind: "oneshot".to_owned(),
            after: after.items.iter().map(|unit| checked_unit(unit)).collect::<Result<_, _>>()?,
            stop_timeout_ms: bounded(stop_timeout, "stop_timeout", STOP_TIMEOUT_S_MAX)? * 1000,
            settings,
        };
        check_program(&job, &format!("timer `{name}`"))?;
        let timer = Timer {
            job,
            calendar: calendar_events(calendar)?,
            every_s: every.into_option().map(|every| bounded(every, "every", EVERY_S_MAX)).transpose()?,
            spread_s: if spread == 0 { 0 } else { bounded(spread, "spread", SPREAD_S_MAX)? },
            catch_up,
        };
        if timer.calendar.is_empty() && timer.every_s.is_none() {
            let failure = Failure::new("E0430", format!("timer `{name}` does not say when"));
            return Err(failure.hint("give `calendar = \"daily\"` or `every = 3600`").into());
        }
        Ok(make(eval, format!("Timer `{name}`"), Declaration::Ready(StepKind::Timer(timer)))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_events_by_their_form() {
        for good in [
            "daily",
            "Weekly",
            "Mon",
            "Mon..Fri 03:17",
            "sat,sunday 4:5:6",
            "*-*-01 04:00",
            "2026-*-1/7 00:00:00 UTC",
            "*-02~03",
            "05-03,04 12:00",
            "*:0/15",
            "*-*-* *:00/15:00",
            "10..16:00 Europe/Berlin",
        ] {
            assert!(is_calendar(good), "{good}");
        }
        for broken in [
            "",
            " daily",
            "*/15 * * * *",
            "03:17 Mon",
            "24:00",
            "12:60",
            "*-13-01",
            "*-*-32",
            "Mon..",
            "Mon  03:17",
            "1:2:3:4",
            "*-*-*/0",
            "daily\n[Service]",
            "16..10:00",
            "12",
            "UTC",
            "Mo 03:17",
            "03:17 berlin",
        ] {
            assert!(!is_calendar(broken), "{broken:?}");
        }
        assert!(format!("{:?}", checked_calendar("*/15 * * * *").unwrap_err()).contains("cron"));
    }
}
