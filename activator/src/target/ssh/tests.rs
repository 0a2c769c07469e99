//! What is given to `ssh`, and what the bootstrap does, with a stand-in that runs the remote command here.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn names_that_mean_something_to_ssh_or_a_shell_are_refused() {
    for text in ["web1", "web1.example.net", "root@10.1.0.2", "deploy-1@a_b", "1.2.3.4"] {
        assert_eq!(text.parse::<HostName>().unwrap().to_string(), text);
    }
    for byte in 0..=255u8 {
        let c = char::from(byte);
        let allowed = c.is_ascii_alphanumeric() || "._-@".contains(c);
        assert_eq!(format!("a{c}b").parse::<HostName>().is_ok(), allowed, "{c:?}");
        assert_eq!(format!("{c}b").parse::<HostName>().is_ok(), c.is_ascii_alphanumeric(), "{c:?}");
    }
    for text in ["", "-oProxyCommand=x", "a@b@c", "a@-b", "@a", "a@", "`id`@h", &"a".repeat(254)] {
        assert!(text.parse::<HostName>().is_err(), "{text}");
    }
}

#[test]
fn roots_that_mean_something_to_a_shell_or_nothing_at_all_are_refused() {
    for (text, root) in [("/var/lib/sarsen", "/var/lib/sarsen"), ("/srv/a-b_c.d/", "/srv/a-b_c.d")] {
        assert_eq!(text.parse::<RemoteRoot>().unwrap().to_string(), root);
    }
    for text in ["", "/", "//", "relative", "/a b", "/$HOME", "/a/../b", "/a;b", "/a\n"] {
        assert!(text.parse::<RemoteRoot>().is_err(), "{text:?}");
    }
}

#[test]
fn commands_are_split_like_a_shell_does() {
    let words = |text: &str| text.parse::<SshCommand>().map(|command| command.0);
    assert_eq!(words(r#" ssh -F "a b" 'c"d' e\ f "" "#).unwrap(), ["ssh", "-F", "a b", "c\"d", "e f", ""]);
    for text in ["", "  ", "'a", "a\\"] {
        assert!(words(text).is_err(), "{text}");
    }
}

fn target(directory: &Path, activator: &str, fake_ssh: &str) -> Ssh {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fsutil::replace_file(&path, text.as_bytes(), 0o755).unwrap();
        path
    };
    let activator = Binary::read(&write("activator", activator)).unwrap();
    Ssh {
        host: String::from("web1"),
        address: "web1.example.net".parse().unwrap(),
        // A shell reads it: executing what was just written can meet a writer in a child forked by another test.
        command: format!("sh {}", write("ssh", fake_ssh).display()).parse().unwrap(),
        activator,
        root: directory.join("root").to_str().unwrap().parse().unwrap(),
        timeout: Duration::from_secs(5),
    }
}

/// Stands for the activator: `install` gives it its name unchecked, `serve` greets.
const ACTIVATOR: &str = "#!/bin/sh\ncase $1 in\n\
    install) cp \"$0\" \"$5/bin/sarsen-activator-$3\";;\n\
    serve) printf '\\nsarsen-activator 1\\n';;\nesac\n";

/// Runs the remote command here, after some noise.
const SSH: &str = "#!/bin/sh\nprintf '%s\\n' \"$*\" >>\"$0.log\"\necho Welcome\nfor last; do :; done\nexec sh -c \"$last\"\n";

#[test]
fn the_activator_is_pushed_once_over_the_same_connection() {
    let directory = tempfile::tempdir().unwrap();
    let target = target(directory.path(), ACTIVATOR, SSH);
    target.connect(Freshness::Shared).unwrap();
    let name = format!("sarsen-activator-{}", Digest::of(ACTIVATOR.as_bytes()));
    let installed = directory.path().join("root/bin").join(&name);
    assert_eq!(std::fs::read_to_string(&installed).unwrap(), ACTIVATOR);
    assert_eq!(installed.metadata().unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(std::fs::read_dir(installed.parent().unwrap()).unwrap().count(), 1, "nothing half-received is left");

    let before = installed.metadata().unwrap().modified().unwrap();
    target.connect(Freshness::Fresh).unwrap();
    assert_eq!(installed.metadata().unwrap().modified().unwrap(), before);
    let log = std::fs::read_to_string(directory.path().join("ssh.log")).unwrap();
    let calls: Vec<&str> = log.lines().collect();
    assert_eq!(calls.len(), 2);
    for call in &calls {
        assert!(
            call.contains("-o ForwardAgent=no") && call.contains("-o BatchMode=yes") && call.contains(" -- web1.example.net exec sh -c ")
        );
    }
    assert!(!calls[0].contains("ControlPath=none") && calls[1].contains("ControlMaster=no -o ControlPath=none"));
}

#[test]
fn errors_tell_unreachable_from_silent_and_from_late() {
    let directory = tempfile::tempdir().unwrap();
    let error = |ssh: &str| target(directory.path(), ACTIVATOR, ssh).connect(Freshness::Shared).unwrap_err().to_string();
    assert_eq!(
        error("#!/bin/sh\nprintf 'ssh: \\033[31mno route to host\\n' >&2\nexit 255\n"),
        "web1: unreachable: ssh: [31mno route to host"
    );
    assert_eq!(error("#!/bin/sh\necho 'this account is closed'\nexit 1\n"), "web1: the activator did not answer: this account is closed");
    let streams = Child::start(&["sleep".into(), "600".into()], Group::Own).unwrap();
    let opening = Opening { timeout: Duration::from_millis(50), binary: None };
    let error = Session::open("web1", streams.1, Some(streams.0), &opening).unwrap_err();
    assert!(matches!(error, TargetError::Deadline { .. }), "{error}");
}
