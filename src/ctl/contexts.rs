//! Several clusters, or places with clusters, in one configuration file:
//!
//! ```yaml
//! current-context: test
//! ctl: {insecure: true}        # for all of them
//! contexts:
//!   test: {etcd3: {hosts: "10.0.0.1:2379"}, scope: demo}
//!   live: {etcd3: {hosts: "10.1.0.1:2379"}, namespace: /live/}
//! ```
//!
//! A context is a configuration file of its own; what stands beside the contexts holds for all of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::config::{merge, yaml};

use super::GlobalArgs;
use super::error::CtlError;
use super::render::difflib;

/// The context in the environment.
const VARIABLE: &str = "PGHERDCTL_CONTEXT";

/// The files with the chosen context in the place of all contexts.
pub(super) fn choose(
    files: Vec<(String, String)>,
    global: &GlobalArgs,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, CtlError> {
    let asked = global.own.context.as_ref().or_else(|| environment.get(VARIABLE)).filter(|name| !name.is_empty());
    let mut is_found = false;
    let mut chosen = Vec::with_capacity(files.len());
    for (name, text) in files {
        // A file that is no mapping is complained of where files are read.
        match yaml::read(&text) {
            Ok(Value::Object(document)) if document.contains_key("contexts") => {
                is_found = true;
                let document = flatten(document, asked, &name)?;
                chosen.push((name, yaml::write(&Value::Object(document), false)));
            }
            _ => chosen.push((name, text)),
        }
    }
    match asked {
        Some(asked) if !is_found => {
            let read = chosen.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            let read = if read.is_empty() {
                "no configuration file was found".to_owned()
            } else {
                format!("{read} has no contexts")
            };
            Err(CtlError::usage(format!("there is no context {asked}: {read}"))
                .next("put contexts into ~/.config/pgherd/pgherdctl.yaml, or name the file with -c"))
        }
        _ => Ok(chosen),
    }
}

/// The names of the contexts in some files.
pub(super) fn names(files: &[(String, String)]) -> Vec<String> {
    let contexts = |(_, text): &(String, String)| match yaml::read(text).ok()?.get("contexts")? {
        Value::Object(contexts) => Some(contexts.keys().cloned().collect::<Vec<_>>()),
        _ => None,
    };
    files.iter().filter_map(contexts).flatten().collect()
}

fn flatten(
    mut document: Map<String, Value>,
    asked: Option<&String>,
    file: &str,
) -> Result<Map<String, Value>, CtlError> {
    let contexts = match document.shift_remove("contexts") {
        Some(Value::Object(contexts)) => contexts,
        _ => return Err(CtlError::usage(format!("`contexts` in {file} is not a mapping of names to contexts"))),
    };
    let current = document.shift_remove("current-context");
    let names: Vec<String> = contexts.keys().cloned().collect();
    let listed = names.join(", ");
    let only = if let [only] = names.as_slice() { Some(only.as_str()) } else { None };
    let name = asked.map(String::as_str).or(current.as_ref().and_then(Value::as_str)).or(only).ok_or_else(|| {
        let error = CtlError::usage(format!("{file} has several contexts and none is the current one"));
        error.next(format!("choose one with --context, or set `current-context`: {listed}"))
    })?;
    match contexts.get(name) {
        Some(Value::Object(context)) => {
            merge::patch(&mut document, context);
            Ok(document)
        }
        Some(_) => Err(CtlError::usage(format!("context {name} in {file} is not a mapping"))),
        None => {
            let meant = difflib::did_you_mean(name, &names).map(|meant| format!("{meant} ")).unwrap_or_default();
            Err(CtlError::usage(format!("there is no context {name} in {file}"))
                .next(format!("{meant}contexts are: {listed}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::own::Own;

    const FILE: &str =
        "namespace: /all/\ncontexts:\n  test: {scope: demo, ctl: {insecure: true}}\n  live: {namespace: /live/}\n";

    fn chosen(text: &str, asked: Option<&str>) -> Result<String, String> {
        let own = Own { context: asked.map(str::to_owned), ..Own::default() };
        let global = GlobalArgs { own, ..GlobalArgs::default() };
        let files = vec![("f.yaml".to_owned(), text.to_owned())];
        let chosen = choose(files, &global, &BTreeMap::new());
        chosen
            .map(|files| files[0].1.clone())
            .map_err(|error| format!("{error}: {}", error.hint.as_deref().unwrap_or_default()))
    }

    #[test]
    fn what_stands_beside_the_contexts_holds_for_all() {
        let test = chosen(FILE, Some("test")).unwrap();
        assert_eq!(
            yaml::read(&test).unwrap(),
            serde_json::json!({"namespace": "/all/", "scope": "demo", "ctl": {"insecure": true}})
        );
        assert!(chosen(FILE, Some("live")).unwrap().contains("/live/"));
        let current = format!("current-context: live\n{FILE}");
        assert!(
            chosen(&current, None).unwrap().contains("/live/") && !chosen(&current, None).unwrap().contains("current")
        );
        assert!(chosen("contexts: {one: {scope: x}}", None).unwrap().contains("scope: x"));
        assert_eq!(chosen("scope: x", None).unwrap(), "scope: x");
    }

    #[test]
    fn a_context_that_cannot_be_meant_is_told() {
        assert!(chosen(FILE, None).unwrap_err().contains("choose one with --context"));
        assert!(chosen(FILE, Some("tset")).unwrap_err().contains("did you mean test?"));
        assert!(chosen("scope: x", Some("test")).unwrap_err().contains("f.yaml has no contexts"));
        assert!(chosen("contexts: [a]", None).unwrap_err().contains("not a mapping"));
        assert!(chosen("contexts: {a: 5}", None).unwrap_err().contains("not a mapping"));
    }
}
