//! A REST member that says what it is told to and remembers what it was asked. It speaks plain HTTP over a socket of
//! its own, because a good part of what is tested is what happens when no answer comes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One answer to come.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Status and body.
    Say(u16, String),
    /// Accept and never answer, as a stopped process does.
    Hang,
    /// Close the connection without an answer.
    Close,
}

/// One request as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    pub(crate) authorization: Option<String>,
}

type Hook = Box<dyn FnMut(&Asked) + Send>;

#[derive(Default)]
struct Board {
    script: VecDeque<(String, Script)>,
    asked: Vec<Asked>,
    is_frozen: bool,
    before_answer: Option<Hook>,
}

/// The running server; dropping it closes the port.
pub(crate) struct FakeMember {
    pub(crate) port: u16,
    board: Arc<Mutex<Board>>,
    task: JoinHandle<()>,
}

impl FakeMember {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let board = Arc::new(Mutex::new(Board::default()));
        let shared = board.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { port, board, task }
    }

    /// The address as a member publishes it.
    pub(crate) fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}/patroni", self.port)
    }

    /// The next request `METHOD /path` gets this; requests without a script get 200 and nothing to read.
    pub(crate) fn will(&self, request: &str, script: Script) {
        self.board.lock().unwrap().script.push_back((request.to_owned(), script));
    }

    /// From now on nothing is answered at all.
    pub(crate) fn freeze(&self) {
        self.board.lock().unwrap().is_frozen = true;
    }

    /// Called with each request that is not a look at the member's health, before it is answered.
    pub(crate) fn before_answer(&self, hook: impl FnMut(&Asked) + Send + 'static) {
        self.board.lock().unwrap().before_answer = Some(Box::new(hook));
    }

    /// What was asked, without looks at the member's health.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let board = self.board.lock().unwrap();
        board.asked.iter().filter(|asked| asked.path != "/liveness").cloned().collect()
    }

    /// The same as `METHOD /path BODY` lines.
    pub(crate) fn log(&self) -> Vec<String> {
        let line = |asked: Asked| match asked.body {
            Some(body) => format!("{} {} {body}", asked.method, asked.path),
            None => format!("{} {}", asked.method, asked.path),
        };
        self.asked().into_iter().map(line).collect()
    }
}

impl Drop for FakeMember {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, board: Arc<Mutex<Board>>) {
    while let Some(asked) = read_request(&mut stream).await {
        let script = {
            let mut board = board.lock().unwrap();
            board.asked.push(asked.clone());
            let key = format!("{} {}", asked.method, asked.path);
            let at = board.script.iter().position(|(request, _)| *request == key);
            if board.is_frozen {
                Script::Hang
            } else if asked.path == "/liveness" {
                Script::Say(200, String::new())
            } else {
                if let Some(hook) = board.before_answer.as_mut() {
                    hook(&asked);
                }
                at.and_then(|at| board.script.remove(at)).map_or(Script::Say(200, String::new()), |(_, script)| script)
            }
        };
        match script {
            Script::Say(status, body) => {
                let head = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n\r\n", body.len());
                if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                    return;
                }
            }
            Script::Hang => std::future::pending().await,
            Script::Close => return,
        }
    }
}

/// Reads one request; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut body = vec![0; header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    let body = (!body.is_empty()).then(|| serde_json::from_slice(&body).unwrap());
    Some(Asked { method, path, body, authorization: header("authorization") })
}
