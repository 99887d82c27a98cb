//! Views to text. No I/O, no clock; colour only where a caller asks for it.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde_json::Value;

pub mod diff;
pub mod difflib;
pub mod grid;
pub mod history;
pub mod members;
pub mod ours;
pub mod psycopg;
pub mod python;
pub mod rows;
pub mod tree;
pub mod yaml;

/// `--format` of the commands that show tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Pretty,
    /// Tab-separated lines with a header.
    Tsv,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// The same.
    Yml,
    /// Names only, one a line; patronictl has no such format.
    #[value(skip)]
    Name,
}

/// The word of [`Format::Name`].
const NAME: &str = "name";

impl Format {
    /// The format that a word of our command line means.
    pub fn of(word: &str) -> Option<Self> {
        if word == NAME { Some(Self::Name) } else { Self::from_str(word, true).ok() }
    }

    /// The words of our command line, with what they mean.
    pub fn words() -> Vec<PossibleValue> {
        let shared = Self::value_variants().iter().filter_map(Self::to_possible_value);
        let names = "Names only, one a line: of the members that are shown or did it, else of the cluster";
        shared.chain([PossibleValue::new(NAME).help(names)]).collect()
    }

    /// Whether it is a document.
    pub fn is_document(self) -> bool {
        matches!(self, Self::Json | Self::Yaml | Self::Yml)
    }
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Columns; `None` where lines may have any length.
    pub width: Option<u16>,
    /// Whether colours may be used.
    pub styled: bool,
}

/// One cell of a table: empty, or a value with the type it has in JSON.
pub type Cell = Option<Value>;

/// A cell as text: strings bare, everything else as JSON.
pub fn cell_text(cell: &Cell) -> String {
    match cell {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
