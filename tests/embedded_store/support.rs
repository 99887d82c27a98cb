//! Stores to talk to: inside this process, as the real program, and etcd itself.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::Client;
use pgherd::dcs::embedded::{self, StoreError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("took too long")
}

/// A client that has had an answer.
pub(crate) async fn connect(address: SocketAddr) -> Client {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Ok(mut client) = Client::connect([address.to_string()], None).await
            && client.get("ready?", None).await.is_ok()
        {
            return client;
        }
        assert!(Instant::now() < deadline, "nobody answers at {address}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A store served by this process.
pub(crate) struct InProcess {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), StoreError>>,
}

impl InProcess {
    pub(crate) async fn start(dir: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let dir = dir.to_path_buf();
        let served = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            embedded::serve(listener, &dir, stopped).await
        });
        Self { address, stop: Some(stop), served }
    }

    pub(crate) async fn client(&self) -> Client {
        connect(self.address).await
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<(), StoreError> {
        drop(self.stop.take());
        within(self.served).await.unwrap()
    }
}

/// A program that is killed when it goes out of scope.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl Program {
    /// `pgherd dcs`.
    pub(crate) fn store(dir: &Path, port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let child = Command::new(env!("CARGO_BIN_EXE_pgherd"))
            .args(["dcs", "--listen", &address.to_string(), "--data-dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
