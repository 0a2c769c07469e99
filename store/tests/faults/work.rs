//! `sarsen-store-work`: one piece of work on a store in a process of its own, for the tests that kill it, fail its system calls, or
//! take the power away; and the judge of what they leave behind. Only tests use it.
//!
//! `prepare ROOT INPUTS` makes a store and what the works need. `WORK ROOT INPUTS` does one of the works in `works.rs`; `receive` has
//! `send` as its peer, on standard input and output. `judge WORK ROOT INPUTS OBJECT...` opens the store afresh and applies the oracle
//! of `oracle.rs`; it prints one violation a line and ends with 1 if there are any.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a test program finds out is for whoever runs it")]

mod oracle;
mod works;

use std::path::Path;
use std::process::ExitCode;

use oracle::Violations;
use works::{Outcome, Places};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let places = |root: &str, inputs: &str| Places { root: Path::new(root).to_owned(), inputs: Path::new(inputs).to_owned() };
    let outcome = match arguments.as_slice() {
        ["prepare", root, inputs] => works::prepare(&places(root, inputs)),
        // The one work that does not begin with a store.
        ["create", root, inputs] => works::run("create", &places(&format!("{root}-created/root"), inputs)),
        ["judge", "create", root, inputs, ..] => return judge("create", &places(&format!("{root}-created/root"), inputs), &[]),
        ["judge", work, root, inputs, required @ ..] => return judge(work, &places(root, inputs), required),
        ["list", root, inputs] => list(&places(root, inputs)),
        ["receive", root, inputs] => works::receive_from_peer(&places(root, inputs)),
        ["send", inputs] => works::send_to_peer(Path::new(inputs)),
        [work, root, inputs] => works::run(work, &places(root, inputs)),
        other => Err(format!("unknown work: {}", other.join(" ")).into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Prints the objects that roots need.
fn list(places: &Places) -> Outcome {
    oracle::needed(places)?.iter().for_each(|object| println!("{object}"));
    Ok(())
}

fn judge(work: &str, places: &Places, required: &[&str]) -> ExitCode {
    let mut violations = Violations::default();
    oracle::judge(work, places, required, &mut violations);
    violations.lines().iter().for_each(|line| println!("{line}"));
    if violations.lines().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An error and its causes on one line, as the commands print them.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
