//! Health against real listeners and a fake manager.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use sarsen_store::manifest::Probe;

use super::*;
use crate::services::fake::FakeManager;

fn check(probe: Probe, timeout_ms: u64, successes: u32) -> HealthCheck {
    HealthCheck { name: "answers".to_owned(), component: "app".to_owned(), probe, timeout_ms, interval_ms: 10, successes }
}

/// Serves one answer after the other and ends with the last; gives the port and the first lines of the requests.
fn serve(answers: Vec<String>) -> (u16, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let answer_one = |answer: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.by_ref().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            // A client that has read enough may have gone.
            let _ = stream.write_all(answer.as_bytes());
            head.join("\n")
        };
        answers.into_iter().map(answer_one).collect()
    });
    (port, server)
}

fn http(port: u16) -> Probe {
    Probe::Http { url: format!("http://127.0.0.1:{port}/health"), status: 200 }
}

fn state(active: bool, failed: bool, restarts: u32) -> Vec<UnitState> {
    let state = if active { "active" } else { "failed" };
    vec![UnitState { unit: "app.service".to_owned(), active, failed, state: state.to_owned(), pid: None, restarts }]
}

fn wait(checks: &[HealthCheck], answers: Vec<Vec<UnitState>>) -> Result<(), HealthError> {
    wait_healthy(checks, &["app.service".to_owned()], &FakeManager::with_answers(answers), Instant::now(), &|| None)
}

const UP: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const DOWN: &str = "HTTP/1.1 503 Unavailable\r\n\r\n";

#[test]
fn counts_successes_in_a_row_and_speaks_http() {
    let answers = [UP, DOWN, UP, UP].map(str::to_owned).to_vec();
    let (port, server) = serve(answers);
    wait(&[check(http(port), 20_000, 2)], vec![state(true, false, 0)]).unwrap();
    let requests = server.join().unwrap();
    assert_eq!(requests.len(), 4);
    assert!(requests[0].starts_with(&format!("GET /health HTTP/1.1\nHost: 127.0.0.1:{port}\n")), "{}", requests[0]);
    assert!(requests[0].contains("\nConnection: close"));
}

#[test]
fn names_every_check_that_failed_with_its_last_answer() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let checks = [
        check(Probe::Tcp { host: "127.0.0.1".to_owned(), port: closed }, 200, 1),
        check(Probe::Command { command: "echo no table; exit 3".to_owned() }, 400, 1),
        check(Probe::Unit { unit: "app.service".to_owned() }, 5_000, 1),
    ];
    let error = wait(&checks, vec![state(true, false, 0)]).unwrap_err().to_string();
    let expected = format!(
        "health check `app/answers` did not succeed within 200 ms: cannot connect to 127.0.0.1 port {closed}: \
         Connection refused (os error 111); health check `app/answers` did not succeed within 400 ms: \
         the command ended with exit code 3: no table"
    );
    assert_eq!(error, expected);
}

#[test]
fn survives_a_server_that_hangs_floods_or_speaks_something_else() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = Instant::now();
    let silent_check = check(http(silent.local_addr().unwrap().port()), 300, 1);
    let (flood_port, flood) = serve(vec!["x".repeat(4 << 20)]);
    let flood_check = HealthCheck { interval_ms: 60_000, ..check(http(flood_port), 400, 1) };
    let error = wait(&[silent_check, flood_check], vec![state(true, false, 0)]).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let HealthError::Checks { failures } = error else { panic!("not about checks") };
    assert!(failures[0].answer.ends_with("/health does not answer: timed out"), "{}", failures[0].answer);
    assert!(failures[1].answer.contains("does not answer in HTTP: xxx"));
    assert!(failures[1].answer.chars().count() < 300);
    flood.join().unwrap();
}

#[test]
fn a_failed_unit_ends_the_wait_at_once_with_its_log() {
    let begun = Instant::now();
    let never = check(Probe::Command { command: "false".to_owned() }, 60_000, 1);
    let error = wait(&[never], vec![state(true, false, 0), state(false, true, 0)]).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(error.to_string(), "unit `app.service` is failed; it printed last:\nlast words of app.service");
}

#[test]
fn a_restart_during_the_settle_time_is_a_failure_even_if_the_unit_is_up_again() {
    let answers = vec![state(true, false, 0), state(true, false, 0), state(true, false, 1)];
    let error = wait(&[], answers).unwrap_err();
    assert!(error.to_string().starts_with("unit `app.service` ended and was started again (1 times)"), "{error}");
}

#[test]
fn without_units_and_checks_there_is_nothing_to_wait_for() {
    let begun = Instant::now();
    wait_healthy(&[], &[], &FakeManager::default(), begun, &|| None).unwrap();
    assert!(begun.elapsed() < SETTLE);
}

#[test]
fn a_trial_that_is_given_up_is_not_waited_for() {
    let begun = Instant::now();
    let checks = [check(Probe::Tcp { host: "127.0.0.1".to_owned(), port: 1 }, 60_000, 1)];
    let manager = FakeManager::with_answers(vec![state(true, false, 0)]);
    let given_up = || (begun.elapsed() > Duration::from_millis(150)).then(|| "the operator gave it up".to_owned());
    let error = wait_healthy(&checks, &["app.service".to_owned()], &manager, begun, &given_up).unwrap_err();
    assert_eq!(error.to_string(), "the operator gave it up");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
