//! Recipe keys: under which name the store remembers what a build gave.
//!
//! Equal keys mean that the recipe would do the same. Losing a remembered result costs time, never correctness. This enters the key:
//!
//! | value                                   | build | fetch of wheels |
//! |-----------------------------------------|-------|-----------------|
//! | kind of recipe and version of this table| yes   | yes             |
//! | names of objects and of outputs         | yes   | yes             |
//! | script, inputs' real ids filled in (1)  | yes   | -               |
//! | environment, likewise                   | yes   | -               |
//! | ids and names of all inputs (2)         | yes   | -               |
//! | sources: paths, digests, executable bit | yes   | -               |
//! | architecture                            | yes   | yes             |
//! | store prefix                            | yes   | -               |
//! | toolchain fingerprint (3)               | yes   | -               |
//! | version of the sandbox                  | yes   | -               |
//! | name, version, hashes of requirements   | -     | yes (4)         |
//! | Python's version and platform           | -     | yes             |
//!
//! 1. The recipe's own placeholders are made from labels that hold the host's name; before hashing they are replaced by constants that
//!    depend on the object's name alone. So the same component on two hosts has one key.
//! 2. Ids are digests of content: if an input is built anew and comes out the same, the key stays, and nothing below is built again.
//! 3. It does not see everything: [`crate::toolchain`].
//! 4. Sorted and without comments: how a lock file is laid out does not matter.
//!
//! The key of a fetched file (`Fetch`) is its digest, its name, and the names of object and output: not where it comes from.
//!
//! Not in the key, on purpose: host, component's place in the plan, file names of the project, time limit, number of jobs, the user who
//! builds, the store's real directory. Trees and bundles have no key: writing them is as cheap as looking them up.

use std::collections::BTreeMap;

use sarsen_store::canon::Encoder;
use sarsen_store::{Digest, ObjectId, ObjectRef};

use crate::fetch::Requirement;
use crate::model::Fetch;
use crate::plan::{BuildRecipe, Output, Recipe, Substitution};
use crate::sandbox::SANDBOX_VERSION;

/// The tag and version of build keys; a change to what is encoded below changes it.
const BUILD_DOMAIN: &str = "sarsen 2026 build recipe v1";

/// The tag and version of keys of fetched files.
const FILE_DOMAIN: &str = "sarsen 2026 file recipe v1";

/// The tag and version of keys of fetched wheels.
const WHEELS_DOMAIN: &str = "sarsen 2026 python wheels recipe v1";

/// The id under which a build sees its own output before the real one is known.
///
/// It depends on the object's name only, so that bytes which keep it (a compressed file, say) are the same on every host and in every run.
pub fn scratch_id(output: &Output) -> ObjectId {
    ObjectId::placeholder(&format!("scratch:{}", output.name))
}

/// A build with all ids filled in: exactly what the sandbox runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilledBuild<'a> {
    /// The script; own outputs stand under their scratch ids.
    pub script: String,
    /// The environment, likewise.
    pub environment: BTreeMap<String, String>,
    /// Everything else of the recipe.
    pub recipe: &'a BuildRecipe,
    /// The outputs by name.
    pub outputs: &'a BTreeMap<String, Output>,
    /// The objects that the recipe names, sorted.
    pub inputs: Vec<ObjectRef>,
}

/// What does not come from the definition.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The architecture, as Rust names it.
    pub architecture: &'a str,
    /// The directory of objects on the targets.
    pub store: &'a str,
    /// The toolchain's fingerprint.
    pub toolchain: Digest,
}

impl<'a> FilledBuild<'a> {
    /// Fills in the ids of `inputs`, by placeholder.
    pub fn new(recipe: &'a Recipe, build: &'a BuildRecipe, inputs: &BTreeMap<ObjectId, ObjectRef>) -> Self {
        let mut substitution = Substitution::new();
        for (placeholder, object) in inputs {
            substitution.insert(*placeholder, object.id);
        }
        for output in recipe.outputs.values() {
            substitution.insert(output.placeholder, scratch_id(output));
        }
        let mut objects: Vec<ObjectRef> = recipe.inputs.iter().filter_map(|input| inputs.get(input).cloned()).collect();
        objects.sort();
        objects.dedup();
        Self {
            script: substitution.fill_text(&build.script),
            environment: build.environment.iter().map(|(name, value)| (name.clone(), substitution.fill_text(value))).collect(),
            recipe: build,
            outputs: &recipe.outputs,
            inputs: objects,
        }
    }

    /// Computes the key.
    pub fn key(&self, surroundings: &Surroundings<'_>) -> Digest {
        let Self { script, environment, recipe, outputs, inputs } = self;
        let BuildRecipe { script: _, sources, environment: _, timeout_s: _ } = recipe;
        let Surroundings { architecture, store, toolchain } = surroundings;
        let mut encoder = Encoder::new(BUILD_DOMAIN);
        encoder.number(u64::from(SANDBOX_VERSION)).text(architecture).text(store).digest(toolchain);
        encoder.count(outputs.len());
        for (output, Output { placeholder: _, name }) in *outputs {
            encoder.text(output).text(name.as_str());
        }
        encoder.text(script).count(environment.len());
        for (name, value) in environment {
            encoder.text(name).text(value);
        }
        encoder.count(inputs.len());
        for input in inputs {
            encoder.fixed(input.id.as_bytes()).text(input.name.as_str());
        }
        let mut sources: Vec<_> = sources.iter().collect();
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        encoder.count(sources.len());
        for source in sources {
            encoder.text(&source.name).count(source.files.len());
            for (path, bytes, executable) in &source.files {
                encoder.text(path.as_ref().map_or("", |path| path.as_str())).digest(&Digest::of(bytes)).tag(u8::from(*executable));
            }
        }
        encoder.finish()
    }
}

/// Computes the key of fetched wheels.
///
/// `requirements` come sorted; `interpreter` names implementation, version and platform.
pub(crate) fn wheels_key(outputs: &BTreeMap<String, Output>, requirements: &[Requirement], interpreter: &str) -> Digest {
    let mut encoder = Encoder::new(WHEELS_DOMAIN);
    encoder.text(std::env::consts::ARCH).text(interpreter).count(outputs.len());
    for (output, Output { placeholder: _, name }) in outputs {
        encoder.text(output).text(name.as_str());
    }
    encoder.count(requirements.len());
    for Requirement { pinned, marker, hashes } in requirements {
        encoder.text(pinned).text(marker).count(hashes.len());
        for hash in hashes {
            encoder.text(hash);
        }
    }
    encoder.finish()
}

/// Computes the key of a fetched file: its digest alone decides what it holds, wherever it came from.
pub(crate) fn file_key(outputs: &BTreeMap<String, Output>, fetch: &Fetch) -> Digest {
    let Fetch { name: _, urls: _, digest, file, size_max: _, output: _ } = fetch;
    let mut encoder = Encoder::new(FILE_DOMAIN);
    encoder.text(digest).text(file).count(outputs.len());
    for (output, Output { placeholder: _, name }) in outputs {
        encoder.text(output).text(name.as_str());
    }
    encoder.finish()
}

#[cfg(test)]
mod tests;
