//! The formats that data can be written in and read from.

use super::{Data, ParseError, Refusal, ini, json, yaml};
use crate::environment::tree;

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// With so many spaces of indentation; 0: all in one line.
    Json(usize),
    Yaml,
    Toml,
    Ini,
}

impl Format {
    /// The format of that name; JSON with two spaces.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json(2)),
            "yaml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "ini" => Some(Self::Ini),
            _ => None,
        }
    }

    /// The name for messages.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Json(_) => "JSON",
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
            Self::Ini => "INI",
        }
    }

    /// The value as the text of a file.
    ///
    /// Errors: what the format cannot hold.
    pub(crate) fn write(self, data: &Data) -> Result<String, Refusal> {
        match self {
            Self::Json(indent) => Ok(data.to_pretty_json(indent)),
            Self::Yaml => Ok(yaml::write(data)),
            Self::Toml => data.to_toml(),
            Self::Ini => ini::write(data),
        }
    }

    /// The value that a file's text stands for.
    ///
    /// Errors: what is wrong, with its place in the text.
    pub(crate) fn read(self, text: &str) -> Result<Data, ParseError> {
        match self {
            Self::Json(_) => json::parse(text),
            Self::Yaml => yaml::parse(text),
            Self::Toml => tree::parse_data(text),
            Self::Ini => ini::parse(text),
        }
    }
}
