//! Diagnostics: what is wrong with the user's definition, where, and what to do.
//!
//! A diagnostic is about the project, never about the machine: I/O errors have their own types. Diagnostics are
//! collected, put into one order (file, line, column, code) and shown together; rendering looks like rustc's and takes the
//! source lines from the snapshot that was evaluated, so what is shown is what was read.
//!
//! Codes: E01xx project and environment, E02xx Starlark, E03xx components and attributes, E04xx steps, E05xx resources,
//! E06xx templates.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::{Deserialize, Serialize};

use crate::snapshot::Snapshot;

/// The longest list of places, hosts or names that one message spells out before it says "and N more".
pub(crate) const LISTED_MAX: usize = 8;

/// How the note begins that says which instances a diagnostic concerns.
pub(crate) const WHILE_CONFIGURING: &str = "while configuring";

/// A place in a file of the project.
///
/// Shape: `line` and `column` count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// The file's path below the project directory.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Location {
    /// The place of a byte offset in the text of a file; an offset past the end is the end.
    pub fn of_offset(file: &str, text: &str, offset: usize) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX - 1) + 1;
        Self {
            file: file.to_owned(),
            line: count(before.split(|byte| *byte == b'\n').count() - 1),
            column: count(String::from_utf8_lossy(&before[line_start..]).chars().count()),
        }
    }

    /// The byte offset of the place in the text of its file, if the text has that line.
    fn offset_in(&self, text: &str) -> Option<usize> {
        let mut start = 0;
        for _ in 1..self.line {
            start += text[start..].find('\n')? + 1;
        }
        let line = text[start..].split('\n').next().unwrap_or_default();
        let column = usize::try_from(self.column).unwrap_or(usize::MAX).saturating_sub(1);
        Some(start + line.char_indices().nth(column).map_or(line.len(), |(at, _)| at))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Whether a diagnostic stops the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// There is no model.
    Error,
    /// Worth a look; the model is usable.
    Warning,
    /// Nothing is wrong: something that a definition says.
    Note,
}

/// A remark that belongs to a diagnostic, with the place that it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Note {
    /// The remark: lower case, no final period.
    pub message: String,
    /// What it points at.
    pub location: Option<Location>,
}

/// The code of a diagnostic: a letter and four digits.
pub type Code = &'static str;

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Whether it stops the work.
    pub severity: Severity,
    /// The stable code, such as `E0101`.
    #[serde(deserialize_with = "crate::evaluator::carriage::code")]
    pub code: Code,
    /// What is wrong: lower case, no final period, the user's text in backticks.
    pub message: String,
    /// Where.
    pub location: Option<Location>,
    /// How many bytes of the line are underlined from `location` on; 0 if unknown.
    pub length: u32,
    /// Other places and circumstances.
    pub notes: Vec<Note>,
    /// What to do.
    pub hints: Vec<String>,
    /// Which sub-components it concerns, as breadcrumbs such as `Shop > User(joe) > File(etc/user.toml)`.
    pub within: Vec<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            location: None,
            length: 0,
            notes: Vec::new(),
            hints: Vec::new(),
            within: Vec::new(),
        }
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The same as a note.
    #[must_use]
    pub fn as_note(mut self) -> Self {
        self.severity = Severity::Note;
        self
    }

    /// The same at a place.
    #[must_use]
    pub fn at(mut self, location: impl Into<Option<Location>>) -> Self {
        self.location = location.into();
        self
    }

    /// The same at a range of bytes in the text of a file.
    #[must_use]
    pub fn at_range(mut self, file: &str, text: &str, range: &Range<usize>) -> Self {
        self.location = Some(Location::of_offset(file, text, range.start));
        self.length = u32::try_from(range.len()).unwrap_or(0);
        self
    }

    /// The same with a remark.
    #[must_use]
    pub fn note(mut self, message: impl Into<String>, location: impl Into<Option<Location>>) -> Self {
        self.notes.push(Note { message: message.into(), location: location.into() });
        self
    }

    /// The same with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same with `did you mean` if one of `known` is near enough to `written`, else with the list of them.
    #[must_use]
    pub fn hint_names<'a>(self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest_name(written, known.iter().copied()) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None if known.is_empty() => self,
            None => self.hint(format!("known are {}", list_names(&known))),
        }
    }

    fn sort_key(&self) -> (Option<&Location>, Severity, &'static str, &str, &[Note]) {
        (self.location.as_ref(), self.severity, self.code, &self.message, &self.notes)
    }
}

/// Puts diagnostics into their order (file, line, column, code; those without a place first) and drops repetitions.
pub fn sort_diagnostics(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
    diagnostics.dedup();
}

/// Renders diagnostics for people, with the lines they are about, each followed by an empty line.
pub fn render_diagnostics(diagnostics: &[Diagnostic], snapshot: &Snapshot, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(renderer.render(&groups(diagnostic, snapshot)).trim_end());
        text.push_str("\n\n");
    }
    text
}

fn groups<'a>(diagnostic: &'a Diagnostic, snapshot: &'a Snapshot) -> Vec<Group<'a>> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut first = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
    if let Some(location) = &diagnostic.location {
        first = with_snippet(first, location, diagnostic.length, snapshot);
    }
    let mut groups = Vec::new();
    if !diagnostic.within.is_empty() {
        first = first.element(Level::NOTE.message(format!("in {}", list_names(&diagnostic.within))));
    }
    for note in diagnostic.notes.iter().filter(|note| note.location.is_none()) {
        first = first.element(Level::NOTE.message(note.message.as_str()));
    }
    let placed: Vec<(&Note, &Location)> = diagnostic.notes.iter().filter_map(|note| Some((note, note.location.as_ref()?))).collect();
    let hints = diagnostic.hints.iter().map(|hint| Level::HELP.message(hint.as_str()));
    if placed.is_empty() {
        groups.push(first.elements(hints));
        return groups;
    }
    groups.push(first);
    let last = placed.len() - 1;
    let mut hints = Some(hints);
    for (index, (note, location)) in placed.into_iter().enumerate() {
        let mut group = with_snippet(Group::with_title(Level::NOTE.secondary_title(note.message.as_str())), location, 0, snapshot);
        if index == last {
            group = group.elements(hints.take().into_iter().flatten());
        }
        groups.push(group);
    }
    groups
}

fn with_snippet<'a>(group: Group<'a>, location: &'a Location, length: u32, snapshot: &'a Snapshot) -> Group<'a> {
    let source = snapshot.text(&location.file).and_then(|text| Some((text, location.offset_in(text)?)));
    let Some((text, start)) = source else {
        return group.element(annotate_snippets::Origin::path(location.file.as_str()).line(usize::try_from(location.line).unwrap_or(0)));
    };
    let rest = text[start..].split('\n').next().unwrap_or_default().trim_end();
    let wanted = usize::try_from(length).unwrap_or(0);
    let length = if wanted == 0 { word_length(rest) } else { wanted.min(rest.len()) };
    let mut end = start + length;
    while !text.is_char_boundary(end) {
        end += 1;
    }
    group.element(Snippet::source(text).path(location.file.as_str()).annotation(AnnotationKind::Primary.span(start..end)))
}

/// The length of the word a line begins with: what is underlined when only the start is known.
fn word_length(line: &str) -> usize {
    let word = line.find(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).unwrap_or(line.len());
    if word == 0 { line.chars().next().map_or(0, char::len_utf8) } else { word }
}

/// The known name nearest to what was written, if any is near enough to be meant.
///
/// Shape: at most a third of the characters may differ, a swap counting as one; letter case does not count as difference.
pub fn nearest_name<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let allowed = (lower.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (edit_distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(100).collect(), b.chars().take(100).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// Names in backticks with commas, shortened after [`LISTED_MAX`].
pub(crate) fn list_names<S: AsRef<str>>(names: &[S]) -> String {
    let listed: Vec<String> = names.iter().take(LISTED_MAX).map(|name| format!("`{}`", name.as_ref())).collect();
    match names.len().saturating_sub(LISTED_MAX) {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip() {
        let text = "eins\nzwöi drü\n\nvier";
        for (offset, expected) in [(0, "f:1:1"), (4, "f:1:5"), (5, "f:2:1"), (9, "f:2:4"), (16, "f:3:1"), (17, "f:4:1"), (99, "f:4:5")] {
            let location = Location::of_offset("f", text, offset);
            assert_eq!(location.to_string(), expected);
            assert_eq!(location.offset_in(text), Some(offset.min(text.len())));
        }
    }

    #[test]
    fn nearest() {
        let known = ["host_domain", "platform", "jobs", "port"];
        for (written, expected) in [
            ("host-domain", Some("host_domain")),
            ("prot", Some("port")),
            ("Jobs", Some("jobs")),
            ("plattform", Some("platform")),
            ("x", None),
            ("secrets", None),
        ] {
            assert_eq!(nearest_name(written, known), expected, "{written}");
        }
    }

    #[test]
    fn sorted_and_once() {
        let at = |line| Location { file: "a".to_owned(), line, column: 1 };
        let mut diagnostics = vec![
            Diagnostic::new("E2", "b").at(at(2)),
            Diagnostic::new("E1", "a").at(at(1)),
            Diagnostic::new("E2", "b").at(at(2)),
            Diagnostic::new("E3", "c"),
        ];
        sort_diagnostics(&mut diagnostics);
        assert_eq!(diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["E3", "E1", "E2"]);
    }
}
