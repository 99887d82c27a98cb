//! A directory with a filled-in fixture, a port that answers, and both programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Stage {
    pub(crate) dir: TempDir,
    pub(crate) bin: PathBuf,
    store: TcpListener,
}

impl Stage {
    pub(crate) fn new() -> Option<Self> {
        let bin = crate::ground::postgres_programs()?;
        Some(Self { dir: tempfile::tempdir().unwrap(), bin, store: TcpListener::bind("127.0.0.1:0").unwrap() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A fixture's text with the places of this stage filled in.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("@ETCD@", &self.store.local_addr().unwrap().to_string())
            .replace("@BIN@", &self.bin.display().to_string())
            .replace("@DIR@", &self.dir.path().display().to_string())
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, self.fill(text)).unwrap();
        path
    }

    pub(crate) fn write_fixture(&self, name: &str) -> PathBuf {
        self.write(name, &fs::read_to_string(fixture(name)).unwrap())
    }

    /// Runs our agent with nothing but these variables.
    pub(crate) fn pgherd(&self, args: &[&str], environment: &BTreeMap<String, String>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command.args(args).env_clear().env("PATH", &self.bin).envs(environment).stdin(Stdio::null());
        command.output().unwrap()
    }
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/configuration").join(name)
}

/// A program of the environment that has Patroni in it.
pub(crate) fn venv(program: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin").join(program);
    crate::ground::is_there(Some(path).filter(|path| path.exists()), "Patroni", "see .ci/setup test")
}

/// What a Python script makes of a JSON value.
pub(crate) fn ask_python(script: &Path, input: &Value, bin: &Path) -> Option<Value> {
    let mut child = Command::new(venv("python")?)
        .arg(script)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
