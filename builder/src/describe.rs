//! What a project's components say of themselves: for `sarsen explain`, as plain data.

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Location, sort_diagnostics};
use crate::eval::{ComponentInfo, load_definitions};
use crate::snapshot::Snapshot;

/// One component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its name in environments.
    pub name: String,
    /// What it is for.
    pub doc: String,
    /// Where it is defined.
    pub at: Location,
    /// The attribute that a value without a name is for.
    pub positional: Option<String>,
    /// The features that can be chosen; nothing if the definition does not say.
    pub features: Option<Vec<String>>,
    /// The platforms that it has something extra for.
    pub platforms: Vec<String>,
    /// Its attributes, in the order of their writing.
    pub attributes: Vec<AttributeDescription>,
}

/// One attribute of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeDescription {
    /// Its name.
    pub name: String,
    /// The type of its values.
    pub type_name: String,
    /// Its default as text; nothing if a value must be given.
    pub default: Option<String>,
    /// Whether texts are templates.
    pub expand: bool,
    /// What it is for.
    pub doc: String,
}

/// All components of a project, sorted by name, and what is wrong with the definitions. Must run on a large stack.
pub(crate) fn describe_here(snapshot: &Snapshot) -> (Vec<Description>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let definitions = load_definitions(snapshot, &mut diagnostics);
    sort_diagnostics(&mut diagnostics);
    (definitions.components.values().map(description).collect(), diagnostics)
}

fn description(component: &ComponentInfo) -> Description {
    let info = &component.info;
    let attribute = |attribute: &crate::eval::AttributeInfo| AttributeDescription {
        name: attribute.name.clone(),
        type_name: attribute.type_name().to_owned(),
        default: attribute.default.as_ref().map(crate::data::Data::to_canonical_json),
        expand: attribute.expand,
        doc: attribute.doc.clone(),
    };
    Description {
        name: component.name.clone(),
        doc: info.doc.clone(),
        at: info.at.clone(),
        positional: info.positional.clone(),
        features: info.features.clone(),
        platforms: info.platforms.clone(),
        attributes: info.attributes.iter().map(attribute).collect(),
    }
}
