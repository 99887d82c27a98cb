//! Requests to members that cannot hang.
//!
//! Patroni's tool sends a request and waits for ever: a stopped agent whose port still accepts connections blocks it.
//! A fixed limit alone would not do either, because a restart may rightly take many minutes. So a member is asked for
//! a sign of life first (which every agent gives at once, whatever its PostgreSQL does), and again and again while
//! the answer to the real request is awaited.
//!
//! That also tells two failures apart that matter to whoever wants to try another way: a request that was certainly
//! never made, and one that may have been taken.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::api::{Client, ClientError, HttpAnswer};

/// How long is waited for signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For one sign of life, connecting included.
    pub probe: Duration,
    /// From one to the next while an answer is awaited.
    pub interval: Duration,
    /// How many in a row may be missed.
    pub missed: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { probe: Duration::from_secs(3), interval: Duration::from_secs(4), missed: 3 }
    }
}

/// One request to a member.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What to do with the path.
    pub verb: Verb,
    /// The path, with its slash.
    pub path: &'static str,
    /// The JSON body, if there is one.
    pub body: Option<Value>,
    /// How long the answer may take although the member is alive.
    pub limit: Duration,
}

/// The methods that change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `POST`.
    Post,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match self.verb {
            Verb::Post => "POST",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
        };
        write!(f, "{verb} {}", self.path)?;
        self.body.as_ref().map_or(Ok(()), |body| write!(f, " {body}"))
    }
}

impl Request {
    /// A `POST` with a JSON object.
    pub fn post(path: &'static str, body: Map<String, Value>, limit: Duration) -> Self {
        Self { verb: Verb::Post, path, body: Some(Value::Object(body)), limit }
    }

    async fn send(&self, client: &Client, api_url: &str) -> Result<HttpAnswer, ClientError> {
        let client = client.with_timeout(self.limit);
        match (self.verb, &self.body) {
            (Verb::Post, body) => client.post(api_url, self.path, body.as_ref()).await,
            (Verb::Patch, Some(body)) if self.path == "/config" => client.patch_config(api_url, body).await,
            (Verb::Patch, _) => Err(ClientError::Setup(format!("PATCH {} is not a request that exists", self.path))),
            (Verb::Delete, _) => client.delete(api_url, self.path).await,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// There is an answer, good or bad.
    Answered(HttpAnswer),
    /// The member could not be asked: nothing has happened.
    NotMade(String),
    /// The request was made and no answer came: it may or may not be carried out.
    Unknown(String),
}

/// Makes a request, or says why not. `api_url` is what the member publishes.
pub async fn deliver(client: &Client, patience: Patience, api_url: Option<&str>, request: &Request) -> Delivery {
    let Some(api_url) = api_url else {
        return Delivery::NotMade("it publishes no address of its REST API".to_owned());
    };
    let probe = client.with_timeout(patience.probe);
    if let Err(error) = probe.get(api_url, Some("/liveness")).await {
        return Delivery::NotMade(error.to_string());
    }
    tokio::select! {
        biased;
        answer = request.send(client, api_url) => match answer {
            Ok(answer) => Delivery::Answered(answer),
            Err(error) => Delivery::Unknown(error.to_string()),
        },
        why = silence(&probe, patience, api_url) => Delivery::Unknown(why),
    }
}

/// Ends when the member has stopped giving signs of life.
async fn silence(probe: &Client, patience: Patience, api_url: &str) -> String {
    let mut missed = 0;
    loop {
        tokio::time::sleep(patience.interval).await;
        match probe.get(api_url, Some("/liveness")).await {
            Ok(_) => missed = 0,
            Err(error) => {
                missed += 1;
                if missed >= patience.missed {
                    return format!("it has stopped answering ({error})");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CtlConfig;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const PATIENCE: Patience =
        Patience { probe: Duration::from_millis(300), interval: Duration::from_millis(50), missed: 2 };

    /// A member that gives a number of signs of life, and answers nothing else.
    async fn alive_for(signs: usize) -> (String, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/patroni", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut given = 0;
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 13];
                stream.read_exact(&mut head).await.unwrap();
                if head == *b"GET /liveness" && given < signs {
                    given += 1;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                } else {
                    silent.push(stream);
                }
            }
        });
        (url, task)
    }

    async fn outcome(api_url: Option<&str>, limit: Duration) -> Delivery {
        let client = Client::new(&CtlConfig::default(), PATIENCE.probe).unwrap();
        deliver(&client, PATIENCE, api_url, &Request::post("/restart", Map::new(), limit)).await
    }

    #[tokio::test]
    async fn a_member_that_gives_no_sign_is_not_asked() {
        let (url, task) = alive_for(0).await;
        assert!(matches!(outcome(Some(&url), Duration::from_secs(60)).await, Delivery::NotMade(_)));
        task.abort();
        assert!(matches!(outcome(None, Duration::from_secs(60)).await, Delivery::NotMade(_)));
        let refused = outcome(Some("http://127.0.0.1:1/patroni"), Duration::from_secs(60)).await;
        assert!(matches!(refused, Delivery::NotMade(_)), "{refused:?}");
    }

    #[tokio::test]
    async fn a_member_that_stops_in_the_middle_is_not_waited_for() {
        let (url, task) = alive_for(3).await;
        let Delivery::Unknown(why) = outcome(Some(&url), Duration::from_secs(60)).await else { panic!("known") };
        assert!(why.contains("it has stopped answering"), "{why}");
        task.abort();
    }

    #[tokio::test]
    async fn a_living_member_is_given_the_time_it_may_take_and_no_more() {
        let (url, task) = alive_for(usize::MAX).await;
        let Delivery::Unknown(why) = outcome(Some(&url), Duration::from_millis(400)).await else { panic!("known") };
        assert!(why.contains("no answer in time"), "{why}");
        task.abort();
    }
}
