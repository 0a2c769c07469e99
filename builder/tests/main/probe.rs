//! The program that becomes a sandbox or an evaluator in tests, and can start a sandbox as whichever user it runs.
//!
//! `sarsen-sandbox-probe __sandbox` is the sandbox, with `__evaluate` the evaluator; `sarsen-sandbox-probe run SPEC LOG SECONDS SILENCE` runs the specification in the JSON file SPEC.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sarsen_builder::evaluator;
use sarsen_builder::sandbox::{self, ENTRY_ARGUMENT, Ending, Patience};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [ENTRY_ARGUMENT, ..] => sandbox::enter(),
        [evaluator::ENTRY_ARGUMENT, ..] => evaluator::enter(),
        ["run", spec, log, seconds, silence] => run(spec, log, seconds, silence),
        _ => ExitCode::from(2),
    }
}

fn run(spec: &str, log: &str, seconds: &str, silence: &str) -> ExitCode {
    let spec = sarsen_store::fsutil::read_file_bounded(Path::new(spec), 1 << 20).expect("the specification can be read");
    let spec = serde_json::from_slice(&spec).expect("it is one");
    let duration = |seconds: &str| Duration::from_secs(seconds.parse().expect("seconds are a number"));
    let patience = Patience { wall: duration(seconds), silence: duration(silence) };
    match sandbox::run(&spec, sandbox::own_program(), Path::new(log), patience) {
        Ok(outcome) => match outcome.ending {
            Ending::Exited(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
            Ending::Signalled(_) => ExitCode::from(101),
            Ending::TimedOut(_) => ExitCode::from(102),
            Ending::Silent(_) => ExitCode::from(104),
        },
        Err(error) => {
            // The log is all that the test reads.
            let _ = sarsen_store::fsutil::replace_file(Path::new(log), error.to_string().as_bytes(), 0o644);
            ExitCode::from(103)
        }
    }
}
