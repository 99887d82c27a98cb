//! The program itself under the name `patronictl`, with recorded keys in an embedded store.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use etcd_client::{Client, DeleteOptions};
use pgherd::dcs::embedded::{self, StoreError};
use pgherd::dcs::layout::keys_from_dump;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::bench::{Said, fixtures, write_files};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pgherdctl");

/// Where the recordings had their store.
const RECORDED: &str = "127.0.0.1:22379";

/// A store and a directory with the files that commands name.
pub(crate) struct Program {
    directory: tempfile::TempDir,
    address: String,
    client: Client,
    _stop: oneshot::Sender<()>,
    _served: JoinHandle<Result<(), StoreError>>,
}

impl Program {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let data = directory.path().join("store");
        let served = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            embedded::serve(listener, &data, stopped).await
        });
        write_files(directory.path(), &address);
        symlink(PROGRAM, directory.path().join("patronictl")).unwrap();
        let client = Client::connect([address.as_str()], None).await.unwrap();
        Self { directory, address, client, _stop: stop, _served: served }
    }

    /// Puts a recorded cluster into the store; what was there of it is gone.
    pub(crate) async fn import(&mut self, fixture: &str) {
        let path = fixtures().join(format!("{fixture}.etcd.json"));
        let (prefix, keys) = keys_from_dump(&std::fs::read_to_string(path).unwrap()).unwrap();
        self.client.delete(prefix, Some(DeleteOptions::new().with_prefix())).await.unwrap();
        for kv in keys {
            self.client.put(kv.key, kv.value, None).await.unwrap();
        }
    }

    pub(crate) async fn put(&mut self, key: &str, value: &str) {
        self.client.put(key, value, None).await.unwrap();
    }

    pub(crate) async fn delete(&mut self, key: &str) {
        self.client.delete(key, None).await.unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs our own personality on a terminal, by way of a shell; what was to be seen there.
    pub(crate) async fn on_terminal(&self, words: &str, environment: &[(&str, &str)]) -> String {
        let mut command = Command::new("script");
        command
            .args(["-qec", &format!("{PROGRAM} -c ctl.yml {words}"), "/dev/null"])
            .current_dir(self.directory.path());
        command.env_clear().env("HOME", self.directory.path()).env("TZ", "UTC").env("SHELL", "/bin/sh");
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(environment.iter().copied());
        command.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command line as it was recorded.
    pub(crate) async fn run(&self, words: &[String], environment: &[(String, String)], stdin: &str) -> Said {
        let real = |text: &str| text.replace(RECORDED, &self.address);
        let input = self.path("input");
        std::fs::write(&input, stdin).unwrap();
        let mut command = Command::new(self.path("patronictl"));
        command.args(words[1..].iter().map(|word| real(word))).current_dir(self.directory.path());
        command.env_clear().env("HOME", self.directory.path()).env("TZ", "UTC");
        command.envs(environment.iter().map(|(name, value)| (name, real(value))));
        command.stdin(Stdio::from(std::fs::File::open(input).unwrap()));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let exit = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255);
        Said { stdout: text(&output.stdout), stderr: text(&output.stderr), exit }
    }
}
