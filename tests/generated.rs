//! Completions and man pages in the repository are what the command lines make of themselves. `UPDATE=1` rewrites
//! them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pgherd::generated::generated_files;

#[test]
fn generated_files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = generated_files();
    if std::env::var_os("UPDATE").is_some() {
        for directory in ["completions", "man"] {
            let _ = fs::remove_dir_all(root.join(directory));
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        files.iter().for_each(|(path, text)| fs::write(root.join(path), text).unwrap());
    }
    let stale: Vec<&String> = files
        .iter()
        .filter(|(path, text)| fs::read(root.join(path)).ok().as_ref() != Some(text))
        .map(|(p, _)| p)
        .collect();
    assert!(stale.is_empty(), "run this test with UPDATE=1 and commit: {stale:?}");

    let known: BTreeSet<String> = files.into_iter().map(|(path, _)| path).collect();
    for directory in ["completions", "man"] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let path = format!("{directory}/{}", entry.unwrap().file_name().to_string_lossy());
            assert!(known.contains(&path), "{path} is made by nothing any more: remove it");
        }
    }
}
