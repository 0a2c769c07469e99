//! Files from the network: which address is taken, what is refused, and that a second time needs no network.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use super::*;
use sarsen_builder::model::Fetch;

const TEXT: &str = "abc";
const SHA256: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const SHA512: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
const BLAKE3: &str = "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";

/// Answers one request after the other with these bodies; nothing says how long they are, so only reading shows it.
fn serve(bodies: Vec<String>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/data.txt", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || bodies.iter().for_each(|body| answer(listener.accept().unwrap().0, body)));
    (address, server)
}

fn answer(mut stream: TcpStream, body: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    // Who has read enough hangs up.
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
}

/// An address where nobody answers.
fn dead() -> String {
    format!("http://{}/data.txt", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

/// A component whose build reads what was fetched.
fn fetching(urls: Vec<String>, digest: &str, size_max: u64) -> Model {
    let id = placeholder("a", "app", "data", "out");
    let (name, file_name, digest) = ("data".to_owned(), "data.txt".to_owned(), digest.to_owned());
    let fetch = StepKind::Fetch(Fetch { name, urls, digest, file: file_name, size_max, output: id });
    let copy = build("a", "app", "copy", &["out"], &format!("cp {ROOT}/store/{id}-app-data/data.txt \"$out/copy\""));
    model(vec![host("a", vec![component("a", "app", vec![fetch, copy, file("where", &output("a", "app", "copy", "out"))])])])
}

#[track_caller]
fn refused(urls: Vec<String>, digest: &str, size_max: u64) -> String {
    let (result, _) = Workshop::new().realise_with(&fetching(urls, digest, size_max), 1);
    let error = result.unwrap_err();
    let BuildError::Recipes { failures, .. } = &error else { panic!("{error}") };
    failures[0].error.to_string()
}

#[test]
fn a_fetched_file_is_input_of_builds_and_needs_no_network_again() {
    for digest in [SHA256, SHA512, BLAKE3] {
        let workshop = Workshop::new();
        let (address, server) = serve(vec![TEXT.to_owned()]);
        let (first, started) = workshop.realise(&fetching(vec![dead(), address], digest, 3));
        server.join().unwrap();
        assert_eq!(started, ["a/app/copy", "a/app/data"]);
        let copied = workshop.read(&first, 0, "app", "where");
        let object = workshop.directory.path().join("data/store").join(copied.rsplit('/').next().unwrap());
        assert_eq!(fs::read_to_string(object.join("copy")).unwrap(), TEXT);
        let (second, started) = workshop.realise(&fetching(vec![dead()], digest, 3));
        assert!(started.is_empty(), "{started:?}");
        assert_eq!(first.hosts, second.hosts);
    }
}

#[test]
fn a_wrong_digest_is_passed_over_and_shown_with_the_right_one() {
    let (address, server) = serve(vec!["abd".to_owned(), TEXT.to_owned()]);
    Workshop::new().realise(&fetching(vec![address.clone(), address], SHA256, 100));
    server.join().unwrap();
    let (address, server) = serve(vec!["abd".to_owned()]);
    let refusal = refused(vec![address.clone()], SHA256, 100);
    server.join().unwrap();
    let found = "sha256:a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9";
    assert!(refusal.contains(&format!("\n    {address}: it has {found}, not {SHA256}")), "{refusal}");
}

#[test]
fn what_is_too_large_or_does_not_answer_is_refused() {
    let (address, server) = serve(vec!["x".repeat(1 << 20)]);
    let dead = dead();
    let refusal = refused(vec![dead.clone(), address.clone()], SHA256, 1000);
    server.join().unwrap();
    assert!(refusal.starts_with("none of the addresses gave `data.txt`; log: "), "{refusal}");
    assert!(refusal.contains(&format!("\n    {dead}: curl: (7) ")), "{refusal}");
    assert!(
        refusal.contains(&format!("\n    {address}: it is larger than 1000 bytes; if it should be, give `size_max = ...`")),
        "{refusal}"
    );
}
