//! Diagnostics: what is wrong with the user's definition, where, and what to do.

/// A place in a file of the project.
///
/// Shape: `line` and `column` count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file's path below the project directory.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}
