//! Where in the files and variables a setting stands.

use std::collections::BTreeMap;

/// The place of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Line { file: String, line: usize },
    Variable(String),
}

/// The places of all settings of a merged document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    places: BTreeMap<String, Origin>,
    /// Names of the files, in the order in which they were laid over each other.
    files: Vec<String>,
}

impl Origins {
    /// A file was laid over what was there; `lines` are its settings by path.
    pub(super) fn add_file(&mut self, file: &str, lines: BTreeMap<String, usize>) {
        let place = |(path, line)| (path, Origin::Line { file: file.to_owned(), line });
        self.places.extend(lines.into_iter().map(place));
        self.files.push(file.to_owned());
    }

    /// A variable was laid over what was there.
    pub(super) fn add_variable(&mut self, path: &str, name: &str) {
        self.places.insert(path.to_owned(), Origin::Variable(name.to_owned()));
    }

    /// Where `path` stands, in words: `node.yml line 7`. For a setting that is not there, where its section stands;
    /// when that is not there either, the file.
    pub fn of(&self, path: &str) -> Option<String> {
        let mut path = path;
        loop {
            match self.places.get(path) {
                Some(Origin::Line { file, line }) => return Some(format!("{file} line {line}")),
                Some(Origin::Variable(name)) => return Some(format!("variable {name}")),
                None => {}
            }
            let Some((parent, _)) = path.rsplit_once('.') else { break };
            path = parent;
        }
        self.files.last().cloned()
    }

    /// `message` with the place of `path` behind it.
    pub fn locate(&self, path: &str, message: &str) -> String {
        match self.of(path) {
            Some(place) => format!("{message} ({place})"),
            None => message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_place_counts() {
        let mut origins = Origins::default();
        assert_eq!(origins.of("scope"), None);
        origins.add_file("a.yml", BTreeMap::from([("restapi".to_owned(), 3), ("restapi.listen".to_owned(), 4)]));
        origins.add_file("b.yml", BTreeMap::from([("restapi".to_owned(), 1)]));
        origins.add_variable("log.level", "PATRONI_LOG_LEVEL");
        let of = |path: &str| origins.of(path).unwrap();
        assert_eq!(of("restapi.listen"), "a.yml line 4");
        assert_eq!(of("restapi.connect_address"), "b.yml line 1");
        assert_eq!(of("log.level"), "variable PATRONI_LOG_LEVEL");
        assert_eq!(of("scope"), "b.yml");
        assert_eq!(origins.locate("restapi.listen", "no"), "no (a.yml line 4)");
    }
}
