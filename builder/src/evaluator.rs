//! Evaluation in a process of its own: whatever a definition does, the caller goes on and says what was wrong.
//!
//! The evaluator has limits of its own for steps, calls and memory, but looks at them between operations only: one comparison of nested
//! lists can take for ever, one `join` all memory, and one `str` of a list in a list in a list the whole stack, which ends a process. So
//! the program starts itself anew with [`ENTRY_ARGUMENT`]:
//!
//! ```text
//! caller          assess_apart()  writes the snapshot, reads what came of it
//! └ __evaluate    evaluates on its threads; the first thread looks at processor time and memory, and ends it all when there is too much
//! ```
//!
//! If the process ends without a word, it is started once more with one thread and says before each evaluation what comes, so that the
//! error can name it. The messages are JSON lines on pipes between two halves of one program: no format, no version.

pub(crate) mod carriage;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::describe::Description;
use crate::diagnostic::{Diagnostic, Note, WHILE_CONFIGURING, sort_diagnostics};
use crate::eval::running::{self, Running};
use crate::eval::{LIMITS_HINT, TOO_MUCH_MEMORY, TOO_MUCH_TIME};
use crate::model::Model;
use crate::resolve::{Assessment, Input, assess, describe};
use crate::snapshot::Snapshot;

/// The first argument that makes a program the evaluator: it calls [`enter`] then, before it does anything else.
pub const ENTRY_ARGUMENT: &str = "__evaluate";

/// How often the evaluator looks at time and memory. The kernel gives memory at about 4 GiB a second, so it overshoots by 80 MiB.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How much address space the evaluator may ask for beyond its limit of memory: stacks of its threads, and allocations that grow by
/// doubling. What asks for more at once is refused by the kernel, which ends the process.
const ADDRESS_SPACE_SLACK: u64 = 8 << 30;

/// The longest answer, in bytes: what a project of 512 MiB could render on every host of a large environment.
const ANSWER_BYTES_MAX: u64 = 4 << 30;

/// How long a whole evaluation may take: a thousand hosts take seconds. It is a last resort; each evaluation has its own limit.
const ALL_S_MAX: u64 = 1800;

/// What is said when the process ends without a word.
const TOO_MUCH_AT_ONCE: &str = "the evaluation takes too much memory at once, or handles what is nested too deeply";

/// How much one evaluation, and all together, may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Time on a processor for one module or instance, in milliseconds.
    pub processor_ms: u64,
    /// Memory of the process, in bytes.
    pub memory_bytes: u64,
}

/// What the command allows. The most steps that an evaluation can take need 1 second, and 12 where sarsen is built without optimisation.
pub const LIMITS: Limits = Limits { processor_ms: 20_000, memory_bytes: 3 << 30 };

/// Why there is no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum EvaluatorError {
    /// It cannot be started, or talked to.
    #[error("the evaluator `{}` cannot be started", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended without a word although it evaluated nothing.
    #[error("the evaluator ended before it said anything: killed from outside, or out of memory")]
    Silent,
}

/// The question.
#[derive(Serialize, Deserialize)]
struct Question {
    #[serde(with = "carriage::snapshot_files")]
    snapshot: Snapshot,
    /// What is evaluated; nothing for what components say of themselves.
    environments: Option<Vec<String>>,
    local_root: String,
    workers: usize,
    limits: Limits,
    trace: bool,
}

/// The answer.
#[derive(Serialize, Deserialize)]
enum Answer {
    /// One for each environment.
    Assessments(Vec<(Option<Model>, Vec<Diagnostic>)>),
    /// What components say of themselves.
    Descriptions(Vec<Description>, Vec<Diagnostic>),
    /// A limit was passed while these were evaluated.
    TooMuch { time: bool, running: Vec<Running> },
}

/// The program that evaluates.
#[derive(Debug, Clone, Copy)]
pub struct Evaluator<'a> {
    /// It is started with [`ENTRY_ARGUMENT`]; see [`crate::sandbox::own_program`].
    pub program: &'a Path,
    /// What it may take.
    pub limits: Limits,
}

impl Evaluator<'_> {
    /// Evaluates one environment of a project, as [`assess`] does, in a process of its own.
    ///
    /// What is beyond the limits, or ends the process, is a diagnostic that names the component.
    /// Errors: the process cannot be started or is killed from outside.
    pub fn assess(&self, input: &Input<'_>) -> Result<Assessment, EvaluatorError> {
        let mut assessments = self.assess_all(input, vec![input.environment.to_owned()])?;
        assessments.pop().ok_or(EvaluatorError::Silent)
    }

    /// Evaluates environments of a project, all if none is named; gives all diagnostics, each once. `input` names no environment.
    ///
    /// Errors: as for [`Self::assess`].
    pub fn check(&self, input: &Input<'_>, environments: &[String]) -> Result<Vec<Diagnostic>, EvaluatorError> {
        let all = || input.snapshot.environments().into_iter().map(str::to_owned).collect();
        let chosen: Vec<String> = if environments.is_empty() { all() } else { environments.to_vec() };
        // Without any environment, the rest of the project is looked at nevertheless, and the missing one is named.
        let chosen = if chosen.is_empty() { vec!["dev".to_owned()] } else { chosen };
        let assessments = self.assess_all(input, chosen)?;
        let mut merged: Vec<Diagnostic> = Vec::new();
        for assessment in assessments {
            merge(&mut merged, assessment.diagnostics);
        }
        sort_diagnostics(&mut merged);
        Ok(merged)
    }

    /// Reads what the components of a project say of themselves; what is wrong with the definitions comes with it.
    ///
    /// Errors: as for [`Self::assess`].
    pub fn describe(&self, snapshot: &Snapshot) -> Result<(Vec<Description>, Vec<Diagnostic>), EvaluatorError> {
        let input = Input { snapshot, environment: "", local_root: "", workers: 1 };
        Ok(match self.ask(&input, None)? {
            Ok(Answer::Descriptions(descriptions, diagnostics)) => (descriptions, diagnostics),
            Ok(Answer::Assessments(_) | Answer::TooMuch { .. }) => return Err(EvaluatorError::Silent),
            Err(diagnostic) => (Vec::new(), vec![*diagnostic]),
        })
    }

    fn assess_all(&self, input: &Input<'_>, environments: Vec<String>) -> Result<Vec<Assessment>, EvaluatorError> {
        match self.ask(input, Some(environments))? {
            Ok(Answer::Assessments(assessments)) => {
                let assessments = assessments.into_iter();
                Ok(assessments.map(|(model, diagnostics)| Assessment { model, diagnostics }).collect())
            }
            Ok(Answer::Descriptions(..) | Answer::TooMuch { .. }) => Err(EvaluatorError::Silent),
            Err(diagnostic) => Ok(vec![Assessment { model: None, diagnostics: vec![*diagnostic] }]),
        }
    }

    /// The answer, or the diagnostic about what was beyond the limits.
    fn ask(&self, input: &Input<'_>, environments: Option<Vec<String>>) -> Result<Result<Answer, Box<Diagnostic>>, EvaluatorError> {
        let mut question = Question {
            snapshot: input.snapshot.clone(),
            environments,
            local_root: input.local_root.to_owned(),
            workers: input.workers,
            limits: self.limits,
            trace: false,
        };
        let mut told = ask(self.program, &question)?;
        let blamed = match &told.answer {
            Some(Answer::TooMuch { running, .. }) => running.len() == 1,
            Some(Answer::Assessments(_) | Answer::Descriptions(..)) => true,
            None => false,
        };
        if !blamed {
            // Once more, so that there is one to blame.
            (question.workers, question.trace) = (1, true);
            told = ask(self.program, &question)?;
        }
        let (message, blamed) = match told.answer {
            Some(answer @ (Answer::Assessments(_) | Answer::Descriptions(..))) => return Ok(Ok(answer)),
            Some(Answer::TooMuch { time: true, running }) => (TOO_MUCH_TIME, running.into_iter().next()),
            Some(Answer::TooMuch { time: false, running }) => (TOO_MUCH_MEMORY, running.into_iter().next()),
            None => (TOO_MUCH_AT_ONCE, None),
        };
        Ok(Err(Box::new(blame(message, &blamed.or(told.last).ok_or(EvaluatorError::Silent)?))))
    }
}

/// Adds the diagnostics of one more environment: what is known is one, with the instances of all of them.
fn merge(known: &mut Vec<Diagnostic>, more: Vec<Diagnostic>) {
    for mut diagnostic in more {
        let (notes, instances) = std::mem::take(&mut diagnostic.notes).into_iter().partition(is_no_instance);
        diagnostic.notes = notes;
        let same = |other: &&mut Diagnostic| {
            let others: Vec<_> = other.notes.iter().filter(|note| is_no_instance(note)).collect();
            (other.code, &other.message, &other.location) == (diagnostic.code, &diagnostic.message, &diagnostic.location)
                && others.into_iter().eq(&diagnostic.notes)
                && other.hints == diagnostic.hints
        };
        if let Some(other) = known.iter_mut().find(same) {
            other.notes.extend(instances.into_iter().filter(|note: &Note| !other.notes.contains(note)).collect::<Vec<_>>());
            other.within.extend(diagnostic.within.into_iter().filter(|part| !other.within.contains(part)).collect::<Vec<_>>());
        } else {
            diagnostic.notes.extend(instances);
            known.push(diagnostic);
        }
    }
}

fn is_no_instance(note: &Note) -> bool {
    !note.message.starts_with(WHILE_CONFIGURING)
}

fn blame(message: &str, running: &Running) -> Diagnostic {
    let diagnostic = Diagnostic::new("E0208", message).at(running.at.clone()).hint(LIMITS_HINT);
    match &running.instance {
        Some((component, host)) => diagnostic.note(format!("{WHILE_CONFIGURING} `{component}` on {host}"), None),
        None => diagnostic,
    }
}

/// What the process said.
#[derive(Default)]
struct Told {
    /// The last evaluation that began.
    last: Option<Running>,
    answer: Option<Answer>,
}

#[expect(clippy::disallowed_methods, reason = "the owner of the process that evaluates")]
fn ask(program: &Path, question: &Question) -> Result<Told, EvaluatorError> {
    let failed = |source| EvaluatorError::Start { program: program.to_owned(), source };
    let question = serde_json::to_vec(question).map_err(|error| failed(error.into()))?;
    let mut command = Command::new(program);
    command.arg(ENTRY_ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    // A process that ends before it has read all is one that says nothing.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(&question));
    let output = read_all(&mut child);
    // It has been read to its end, or is of no use any more.
    let _ = child.kill();
    let _ = child.wait();
    if let Some(Err(source)) = written.filter(|written| written.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe))
    {
        return Err(failed(source));
    }
    let mut told = Told::default();
    for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(answer) => told.answer = Some(answer),
            Err(_) => told.last = serde_json::from_slice(line).ok().or(told.last),
        }
    }
    Ok(told)
}

/// What the process writes until it ends or its time is up.
fn read_all(child: &mut Child) -> Vec<u8> {
    let Some(stdout) = child.stdout.take() else { return Vec::new() };
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let _ = stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut output);
        let _ = sender.send(output);
    });
    receiver.recv_timeout(Duration::from_secs(ALL_S_MAX)).unwrap_or_default()
}

/// Becomes the evaluator. A program calls this first thing in `main` when its first argument is [`ENTRY_ARGUMENT`].
///
/// Input: the question on standard input. Output: the answer on standard output. The exit code means nothing to people.
pub fn enter() -> ExitCode {
    // Whom nobody waits for any more has nothing to do.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let mut text = Vec::new();
    if std::io::stdin().take(ANSWER_BYTES_MAX).read_to_end(&mut text).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(question) = serde_json::from_slice::<Question>(&text) else { return ExitCode::FAILURE };
    drop(text);
    // Panics become diagnostics.
    std::panic::set_hook(Box::new(|_| ()));
    restrict(question.limits);
    running::watch(question.trace);
    let limits = question.limits;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let _ = sender.send(answer(&question));
    });
    let Ok(line) = serde_json::to_vec(&supervise(&receiver, limits)) else { return ExitCode::FAILURE };
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(&line).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
    // Threads that still evaluate end with the process.
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn answer(question: &Question) -> Answer {
    let assess = |environment: &String| {
        let Question { snapshot, local_root, workers, .. } = question;
        let Assessment { model, diagnostics } = assess(&Input { snapshot, environment, local_root, workers: *workers });
        (model, diagnostics)
    };
    if let Some(environments) = &question.environments {
        return Answer::Assessments(environments.iter().map(assess).collect());
    }
    let (descriptions, diagnostics) = describe(&question.snapshot);
    Answer::Descriptions(descriptions, diagnostics)
}

/// Waits for the answer, and gives up when a limit is passed.
fn supervise(receiver: &Receiver<Answer>, limits: Limits) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(ALL_S_MAX);
    loop {
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Disconnected) => return Answer::TooMuch { time: false, running: Vec::new() },
            Err(RecvTimeoutError::Timeout) => {}
        }
        let running = running::list();
        let is_late = |running: &Running| {
            running::processor_ns(running.thread).is_some_and(|now| now.saturating_sub(running.began_ns) / 1_000_000 > limits.processor_ms)
        };
        let late: Vec<Running> = running.iter().filter(|running| is_late(running)).take(1).cloned().collect();
        if !late.is_empty() || Instant::now() > deadline {
            return Answer::TooMuch { time: true, running: late };
        }
        if memory_bytes().is_some_and(|bytes| bytes > limits.memory_bytes) {
            return Answer::TooMuch { time: false, running };
        }
    }
}

/// The memory that this process holds.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
    Some(kibibytes.parse::<u64>().ok()? * 1024)
}

/// Lets the kernel refuse what is far beyond the limits, and keeps it from writing the memory to a file.
fn restrict(limits: Limits) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let lower = |resource, bytes: u64| {
        let maximum = getrlimit(resource).maximum;
        let bytes = maximum.map_or(bytes, |maximum| maximum.min(bytes));
        // Without them there are the limits that are looked at.
        let _ = setrlimit(resource, Rlimit { current: Some(bytes), maximum: Some(bytes) });
    };
    lower(Resource::As, limits.memory_bytes + ADDRESS_SPACE_SLACK);
    lower(Resource::Core, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mistake_in_several_environments_is_one() {
        let of = |host: &str| Diagnostic::new("E1", "m").hint("h").note(format!("{WHILE_CONFIGURING} `a` on {host}"), None);
        let mut known = Vec::new();
        merge(&mut known, vec![of("x"), Diagnostic::new("E2", "n")]);
        merge(&mut known, vec![of("x"), of("y"), Diagnostic::new("E1", "m")]);
        let said: Vec<_> = known.iter().map(|d| (d.code, d.notes.iter().map(|note| note.message.as_str()).collect::<Vec<_>>())).collect();
        let both = vec!["while configuring `a` on x", "while configuring `a` on y"];
        assert_eq!(said, [("E1", both), ("E2", vec![]), ("E1", vec![])]);
    }
}
