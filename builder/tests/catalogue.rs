//! The catalogue of bad input: each case of projects, names and templates, by its number, and the fixture that shows what is said about it.

use std::path::Path;

/// A case: its number in the catalogue, what it is, the recorded text below the repository, and what that text says of it.
///
/// Not here, because nothing is rejected: files that change while they are read (28; a project is read once, into memory), and names
/// that differ by case only (30; on Linux they are two files). Nor a project at an odd path (29): a name that is not UTF-8 cannot stand
/// in a fixture of this repository, it is refused when the project is read.
const CASES: [(u32, &str, &str, &str); 40] = [
    (1, "no environment", "tests/snapshots/e2e__errors__no_environment_at_all.snap", "environment"),
    (2, "no project file", "tests/snapshots/e2e__errors__no_project_here.snap", "sarsen init"),
    (4, "a NUL byte", "fixtures/broken/inputs.snap", "components/null/component.star:2:16"),
    (4, "bidirectional control", "fixtures/broken/text.snap", "this file holds the invisible character U+202E"),
    (5, "syntax error", "fixtures/broken/syntax.snap", "unexpected new line, expected symbol ':'"),
    (5, "tabs", "fixtures/broken/text.snap", "tabs are not allowed"),
    (5, "a text that is not closed", "fixtures/broken/inputs.snap", "components/unclosed/component.star:2:"),
    (6, "`while`", "fixtures/broken/inputs.snap", "components/loop/component.star:2:5"),
    (6, "recursion", "fixtures/broken/inputs.snap", "components/endless/component.star:"),
    (8, "a text that doubles", "fixtures/hostile.snap", "doubled_text.star: a limit"),
    (8, "a huge list", "fixtures/hostile.snap", "huge_list.star: a limit"),
    (9, "brackets in brackets", "fixtures/hostile.snap", "nested_source.star: E0212 this is nested too deeply"),
    (10, "a load from outside", "fixtures/broken/inputs.snap", "components/outside/component.star:1:"),
    (10, "a source from outside", "fixtures/broken/steps.snap", "`../../sarsen.toml` lies outside of what definitions can read"),
    (12, "a symbol that is missing", "fixtures/broken/loads.snap", "`//lib/good.star` has no `gone`"),
    (13, "an argument that is unknown", "fixtures/broken/evaluation.snap", "`File` has no parameter `contents`"),
    (14, "a wrong type", "fixtures/broken/evaluation.snap", "attribute `port` of `Inner` wants int, not str `\"x\"`"),
    (14, "a text for a list", "fixtures/broken/steps.snap", "`command` wants a list, not `string`"),
    (16, "two components of one name", "fixtures/broken/attributes.snap", "there are two components `same`"),
    (16, "two files at one path", "fixtures/broken/steps.snap", "`a` is declared twice"),
    (16, "two users of one port", "fixtures/broken/steps.snap", "the host gets two ports `80`"),
    (16, "two units of one name", "fixtures/broken/steps.snap", "the host gets two services `web`"),
    (17, "a circle", "fixtures/broken/circles.snap", "components wait for each other in a circle"),
    (18, "a component that is missing", "fixtures/broken/names.snap", "there is no component `shopp`"),
    (20, "two hosts at one address", "fixtures/broken/addresses.snap", "hosts `web1` and `web2` are reached at one address"),
    (21, "a host that is an option", "fixtures/broken/hosts.snap", "`-oProxyCommand=x` is not a host name"),
    (22, "a user that is an option", "fixtures/broken/hosts.snap", "wants the name of a user, not `\"-l root\"`"),
    (22, "a port too high", "fixtures/broken/hosts.snap", "wants a port from 1 to 65535, not `65536`"),
    (24, "a place of the kernel", "fixtures/broken/steps.snap", "`/proc/x` cannot be a link: `/proc/` belongs to the kernel"),
    (25, "the clock", "fixtures/broken/inputs.snap", "variable `time` not found"),
    (25, "chance", "fixtures/broken/inputs.snap", "variable `random` not found"),
    (26, "a key that stands twice", "fixtures/broken/inputs.snap", "components/twice/component.star:"),
    (32, "a block that is not closed", "fixtures/broken/templates.snap", "invalid template: unexpected end of input"),
    (33, "a template that includes itself", "fixtures/broken/templates.snap", "includes or macros are nested too deeply"),
    (33, "a macro that calls itself", "fixtures/hostile.snap", "recursive_macro.star: E0605"),
    (34, "a loop without end", "fixtures/broken/templates.snap", "rendering takes too long: a loop without end?"),
    (36, "a secret where everybody reads", "fixtures/broken/attributes.snap", "secrets are not available in this version"),
    (37, "an include from outside", "fixtures/broken/templates.snap", "there is no template `//../../etc/passwd`"),
    (38, "a template that is no text", "fixtures/broken/templates.snap", "is not UTF-8 text: the byte 0xff in line 1 is none"),
    (40, "a line smuggled into a unit", "fixtures/broken/steps.snap", "`root\\nExecStartPre=/bin/false` cannot be the name of a user"),
];

#[test]
fn every_case_has_a_fixture_that_shows_it() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let faults: Vec<String> = CASES
        .iter()
        .filter_map(|(number, what, file, said)| {
            let text = std::fs::read_to_string(repository.join(file)).unwrap_or_default();
            (!text.contains(said)).then(|| format!("{number}, {what}: {file} does not say `{said}`"))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
