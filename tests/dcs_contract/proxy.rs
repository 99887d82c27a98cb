//! A wire that can be cut in several ways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything passes.
    Open,
    /// Requests pass, answers vanish.
    MuteAnswers,
    /// Connections are closed, and new ones too as soon as they come.
    Closed,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    acceptor: AbortHandle,
}

impl Proxy {
    pub(crate) async fn new(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::Open));
        let acceptor = tokio::spawn(accept(listener, target, mode.clone())).abort_handle();
        Self { address, mode, acceptor }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, target: String, mode: Arc<watch::Sender<Mode>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (target, mode) = (target.clone(), mode.subscribe());
        connections.spawn(async move {
            let Ok(Ok(server)) = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(target)).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let mut closed = mode.clone();
            tokio::select! {
                _ = closed.wait_for(|mode| *mode == Mode::Closed) => {}
                () = carry(from_client, to_server, None) => {}
                () = carry(from_server, to_client, Some(mode)) => {}
            }
        });
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: Option<watch::Receiver<Mode>>) {
    let mut buffer = vec![0; 1 << 16];
    // A connection that has lost bytes stays mute: the rest would make no sense.
    let mut is_mute = false;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        is_mute |= mode.as_ref().is_some_and(|mode| *mode.borrow() == Mode::MuteAnswers);
        if !is_mute && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
