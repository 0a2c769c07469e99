//! Evaluation of one environment: all instances, in rounds, until what they require no longer changes.

use crate::diagnostic::{Diagnostic, Severity};
use crate::model::Model;
use crate::snapshot::Snapshot;

/// What is evaluated, and how.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The project.
    pub snapshot: &'a Snapshot,
    /// The name of the environment.
    pub environment: &'a str,
    /// The root of the installation for `connect = "local"` where the environment names none, an absolute path.
    pub local_root: &'a str,
    /// How many threads evaluate; has no influence on the result.
    pub workers: usize,
}

/// What came of an evaluation.
#[derive(Debug)]
pub struct Assessment {
    /// The model, if there is no error.
    pub model: Option<Model>,
    /// Errors and warnings, in order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Evaluates one environment of a project.
///
/// Errors: all errors of the definitions, in order; warnings are left out, see [`assess`].
pub fn evaluate(input: &Input<'_>) -> Result<Model, Vec<Diagnostic>> {
    let Assessment { model, mut diagnostics } = assess(input);
    diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
    model.ok_or(diagnostics)
}

/// Evaluates one environment of a project and keeps warnings.
pub fn assess(_input: &Input<'_>) -> Assessment {
    Assessment { model: None, diagnostics: vec![Diagnostic::new("E0000", "evaluation does not exist yet")] }
}
