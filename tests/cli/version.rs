//! `version` against members that answer, members that refuse and members that hang.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::bench::{Bench, Said};

/// A member that answers each request with this body; it hangs when there is none.
async fn member(body: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await;
            match body {
                Some(body) => {
                    let length = body.len();
                    let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                None => open.push(stream),
            }
        }
    });
    format!("http://{address}/patroni")
}

async fn bench() -> Bench {
    let bench = Bench::new();
    let status = Some(r#"{"state": "running", "server_version": 150018, "patroni": {"version": "4.1.5"}}"#);
    let starting = Some(r#"{"state": "starting", "patroni": {"version": "4.0.2"}}"#);
    for (name, api_url) in [("pg1", member(status).await), ("pg2", member(starting).await), ("pg3", member(None).await)]
    {
        let value = format!(r#"{{"api_url": "{api_url}", "state": "running", "role": "replica"}}"#);
        bench.store.put(&format!("/service/demo/members/{name}"), value);
    }
    bench
}

async fn run(bench: &Bench, command: &str) -> Said {
    let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
    bench.run(&words, &[], "").await
}

#[tokio::test]
async fn as_patronictl() {
    let bench = bench().await;
    let said = run(&bench, "patronictl -c ctl.yml version demo pg1 pg2 pg9").await;
    let expected = "patronictl version 4.1.5\n\npg1: Patroni 4.1.5 PostgreSQL 15.18\npg2: Patroni 4.0.2\n";
    assert_eq!((said.stdout.as_str(), said.exit), (expected, 0));
}

#[tokio::test]
async fn a_member_that_hangs_does_not_hide_the_others() {
    let bench = bench().await;
    let said = run(&bench, "pgherdctl -c ctl.yml version demo").await;
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[1..3], ["pg1: agent 4.1.5, PostgreSQL 15.18", "pg2: agent 4.0.2"]);
    assert!(lines[3].starts_with("pg3: no answer ("), "{}", said.stdout);
    assert_eq!(said.exit, 9);
    let said = run(&bench, "pgherdctl -c ctl.yml version demo pg1 pg9 -f json").await;
    assert!(said.stderr.contains("member pg9"), "{}", said.stderr);
    let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&document["apiVersion"], &document["kind"]), (&"pgherd/v1".into(), &"Version".into()));
    assert_eq!(document["members"][0]["postgresql"], "15.18");
    assert_eq!(said.exit, 9);
}
