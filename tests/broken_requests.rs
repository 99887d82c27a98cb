//! A hundred broken requests to the REST API of one living agent, all at once: each gets the answer that the API
//! promises, or one that says what was wrong; nothing is done for any of them; and the agent goes on.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a failed step is a failed test; the harness is one world")]
#![allow(clippy::disallowed_methods, reason = "processes live by the real clock")]

#[path = "support/ground.rs"]
mod ground;
#[path = "e2e/harness.rs"]
#[allow(dead_code, reason = "shared with the stories")]
mod harness;

use std::time::Duration;

use harness::{Cluster, Kind, Store};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// An answer, or the end of the connection, comes by then: the server gives a slow client ten seconds for each part of
/// its request, and the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

/// `operator:pä:ss`.
const AUTH: &str = "Authorization: Basic b3BlcmF0b3I6cMOkOnNz\r\n";

/// What a client does once its request is out.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// Reads. Its side stays open.
    Waits,
    /// Reads, after it has closed its side.
    Closes,
    /// Goes on sending this for ever.
    Sends(&'static [u8]),
}

struct Case {
    name: String,
    request: Vec<u8>,
    then: Then,
    /// The status line begins with this code; 0: the connection ends without an answer.
    code: u16,
    /// Stands somewhere in the answer.
    says: &'static str,
}

fn raw(name: &str, request: impl Into<Vec<u8>>, code: u16, says: &'static str) -> Case {
    Case { name: name.to_owned(), request: request.into(), then: Then::Waits, code, says }
}

/// A request with good credentials and a body of the length it says.
fn with_body(method: &str, path: &str, more: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{AUTH}{more}Content-Length: {length}\r\n\r\n").into_bytes();
    request.extend(body);
    request
}

fn post(path: &str, body: impl AsRef<[u8]>, code: u16, says: &'static str) -> Case {
    let shown = String::from_utf8_lossy(body.as_ref()).chars().take(50).collect::<String>();
    raw(&format!("POST {path} {shown}"), with_body("POST", path, "", body), code, says)
}

fn head(name: &str, method: &str, target: &str, headers: &str, code: u16, says: &'static str) -> Case {
    raw(name, format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"), code, says)
}

/// What this error page is recognised by.
const BAD: &str = "Error code: 400";

fn sizes() -> Vec<Case> {
    let announced =
        |length: &str| format!("POST /restart HTTP/1.1\r\nHost: x\r\n{AUTH}Content-Length: {length}\r\n\r\n");
    let chunked = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\n{AUTH}Transfer-Encoding: chunked\r\n\r\n");
    let long = "x".repeat(1 << 20);
    let many = "X-More: and more\r\n".repeat(2000);
    let five_megabytes = vec![b' '; 5 << 20];
    let mut cases = vec![
        raw("a body of five megabytes", with_body("POST", "/restart", "", &five_megabytes), 413, "too long"),
        raw("a body of five megabytes where none is read", with_body("POST", "/reload", "", &five_megabytes), 413, ""),
        raw("four megabytes of blanks", with_body("POST", "/restart", "", vec![b' '; 4 << 20]), 400, BAD),
        raw("a terabyte announced", announced("1099511627776"), 413, "too long"),
        raw("more than a number holds announced", announced(&"9".repeat(40)), 400, ""),
        raw("a length of -1", announced("-1"), 400, ""),
        raw("a length of +2", announced("+2"), 400, ""),
        raw("a length of 0x10", announced("0x10"), 400, ""),
        raw("a length of 1e3", announced("1e3"), 400, ""),
        raw("an empty length", announced(""), 400, ""),
        raw("a length in words", announced("ten"), 400, ""),
        raw("two lengths", announced("2\r\nContent-Length: 3") + "{} ", 400, ""),
        raw("a length shorter than the body", announced("5") + "{\"role\": \"replica\"}", 400, BAD),
        raw("a chunked body", chunked("/switchover") + "2\r\n{}\r\n0\r\n\r\n", 411, "Content-Length"),
        // A filter that is not read must not make it a restart without one.
        raw(
            "a chunked filter",
            chunked("/restart") + "13\r\n{\"role\": \"replica\"}\r\n0\r\n\r\n",
            411,
            "Content-Length",
        ),
        raw("a chunked reinitialize", chunked("/reinitialize") + "zz\r\n", 411, "Content-Length"),
        raw("chunks of nonsense", chunked("/failover") + "nonsense\r\n\r\n", 411, ""),
        head(
            "an unknown transfer encoding",
            "POST",
            "/restart",
            &format!("{AUTH}Transfer-Encoding: gzip\r\n"),
            400,
            "",
        ),
        head("a megabyte of one header", "GET", "/patroni", &format!("X-Long: {long}\r\n"), 431, ""),
        head("two thousand headers", "GET", "/patroni", &many, 431, ""),
        head("a path of a megabyte", "GET", &format!("/{long}"), "", 431, ""),
        head("a path of seventy thousand bytes", "GET", &format!("/{}", &long[..70_000]), "", 414, ""),
        head(
            "a query of sixty thousand bytes",
            "GET",
            &format!("/replica?lag={}", &long[..60_000]),
            "",
            503,
            "running",
        ),
        head("ten thousand parameters", "GET", &format!("/replica?{}", "a=1&".repeat(10_000)), "", 503, "running"),
    ];
    let (endless, data) = (chunked("/restart"), b"1000\r\n".as_slice());
    cases.push(Case { then: Then::Sends(data), ..raw("an endless chunked body", endless, 411, "Content-Length") });
    let endless = "GET /patroni HTTP/1.1\r\nHost: x\r\n".to_owned();
    cases.push(Case { then: Then::Sends(b"X-More: and more\r\n"), ..raw("an endless head", endless, 431, "") });
    cases.push(Case { then: Then::Sends(b"GET "), ..raw("an endless line", "GET ", 400, "") });
    cases
}

fn types() -> Vec<Case> {
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let timeout_message = "Timeout should be a positive number of seconds";
    let version = "Invalid PostgreSQL version";
    let role = "PostgreSQL role should be either primary, standby_leader, or replica";
    let (unreadable, zone) = ("Unable to parse scheduled timestamp", "Timezone information is mandatory");
    let no_leader = "Switchover could be performed only from a specific leader";
    let mut cases = vec![
        post("/restart", r#"{"role": 5}"#, 400, role),
        post("/restart", r#"{"role": ["replica"]}"#, 400, role),
        post("/restart", r#"{"role": null}"#, 400, role),
        post("/restart", r#"{"role": "Primary"}"#, 400, role),
        post("/restart", r#"{"postgres_version": 15}"#, 400, version),
        post("/restart", r#"{"postgres_version": "fifteen"}"#, 400, version),
        post("/restart", r#"{"postgres_version": "99999999999999999999.1"}"#, 400, version),
        post("/restart", r#"{"postgres_version": {"major": 15}}"#, 400, version),
        post("/restart", r#"{"postgres_version": "15.1.2.3"}"#, 400, version),
        post("/restart", r#"{"timeout": -1}"#, 400, timeout_message),
        post("/restart", r#"{"timeout": 0}"#, 400, timeout_message),
        post("/restart", r#"{"timeout": "soon"}"#, 400, timeout_message),
        post("/restart", r#"{"timeout": [20]}"#, 400, timeout_message),
        post("/restart", r#"{"timeout": 1e400}"#, 400, ""),
        post("/restart", r#"{"timeout": "99999999999999999999999d"}"#, 400, timeout_message),
        post("/restart", r#"{"schedule": null}"#, 422, unreadable),
        post("/restart", r#"{"schedule": 1893456000}"#, 422, unreadable),
        post("/restart", r#"{"schedule": {"at": "2035-01-01T00:00Z"}}"#, 422, unreadable),
        post("/restart", r#"{"schedule": "2035-13-45T99:99Z"}"#, 422, unreadable),
        post("/restart", r#"{"schedule": "2035-01-01T00:00"}"#, 400, zone),
        post("/restart", r#"{"schedule": "1999-01-01T00:00Z"}"#, 422, "Cannot schedule restart in the past"),
        post("/restart", r#"{"scheduled": "2035-01-01T00:00Z"}"#, 400, "Unknown filter for the scheduled restart"),
        post("/switchover", r#"{"leader": null}"#, 400, no_leader),
        post("/switchover", r#"{"leader": ""}"#, 400, no_leader),
        post("/switchover", r#"{"leader": {}}"#, 400, no_leader),
        post("/switchover", r#"{"leader": []}"#, 400, no_leader),
        post("/switchover", r#"{"leader": 0}"#, 400, no_leader),
        post("/switchover", r#"{"leader": 5}"#, 412, "leader name does not match"),
        post("/switchover", r#"{"leader": ["n0"]}"#, 412, "leader name does not match"),
        post("/switchover", r#"{"leader": "n0", "candidate": {"name": "n1"}}"#, 412, "candidate does not exists"),
        post("/switchover", r#"{"leader": "n0", "candidate": "n0"}"#, 400, "target and source are the same"),
        post("/switchover", r#"{"leader": "n0", "scheduled_at": 7}"#, 422, unreadable),
        post("/switchover", r#"{"leader": "n0", "scheduled_at": ["2035-01-01T00:00Z"]}"#, 422, unreadable),
        post("/switchover", r#"{"leader": "n0", "scheduled_at": "2035-01-01"}"#, 400, zone),
        post("/failover", r#"{"candidate": 5}"#, 412, "candidate does not exists"),
        post("/failover", r#"{"candidate": false}"#, 400, "only to a specific candidate"),
        post("/failover", r#"{"candidate": "x", "scheduled_at": "2035-01-01T00:00Z"}"#, 400, "can't be scheduled"),
        post("/mpp", "{}", 400, BAD),
        post("/failsafe", r#"{"name": 1}"#, 502, "Error code: 502"),
        post("/reinitialize", r#"{"force": {}, "from_leader": [[]]}"#, 503, "I am the leader, can not reinitialize"),
    ];
    for body in ["null", "[]", "5", "\"text\"", "true", "{} {}", "{\"role\"}", "", " "] {
        cases.push(post("/switchover", body, 400, BAD));
    }
    cases.push(post("/restart", deep("[", "]"), 400, BAD));
    cases.push(post("/restart", deep(r#"{"role":"#, "}"), 400, BAD));
    cases.push(raw("PATCH [1]", with_body("PATCH", "/config", "", "[1]"), 400, BAD));
    cases.push(raw("PUT {}", with_body("PUT", "/config", "", "{}"), 400, BAD));
    cases.push(raw("PATCH nesting", with_body("PATCH", "/config", "", deep(r#"{"a":"#, "}")), 400, BAD));
    cases
}

fn encodings() -> Vec<Case> {
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0\x43\xbf\xa6\xa3\x02\0\0\0";
    vec![
        post("/switchover", b"{\"leader\": \"\xff\xfe\"}", 400, BAD),
        post("/switchover", b"{\"leader\": \"\xc3\"}", 400, BAD),
        post("/switchover", br#"{"leader": "\ud800"}"#, 400, BAD),
        post("/switchover", b"{\"leader\": \"a\0b\"}", 400, BAD),
        post("/switchover", br#"{"leader": "\u0000\u202e"}"#, 412, "leader name does not match"),
        post("/restart", b"\xef\xbb\xbf{}", 400, BAD),
        post("/restart", b"{\0}\0", 400, BAD),
        raw("a gzipped body", with_body("POST", "/restart", "Content-Encoding: gzip\r\n", gzip), 400, BAD),
        raw("UTF-16", with_body("PATCH", "/config", "", b"\xff\xfe{\0}\0"), 400, BAD),
        raw("a form", with_body("POST", "/switchover", "", "leader=n0&candidate=n1"), 400, BAD),
        head("a bad escape in the path", "GET", "/%zz%", "", 503, "running"),
        head("bytes that are no text in the path", "GET", "/%ff%fe/primary%00", "", 200, "running"),
        head("bad escapes in the query", "GET", "/replica?lag=%&tag_%zz=%ff&&==", "", 503, "running"),
        head("a lag that is none", "GET", "/readiness?lag=%00%ff&mode=%f0%9f", "", 200, ""),
        raw("raw bytes in the path", b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""),
        raw("raw bytes in a header", b"GET /patroni HTTP/1.1\r\nHost: x\r\nX: \xff\xfe\r\n\r\n", 200, "running"),
        raw("a zero byte in a header", b"GET /patroni HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400, ""),
    ]
}

fn methods() -> Vec<Case> {
    let unsupported =
        |method: &'static str, path: &str, says| head(&format!("{method} {path}"), method, path, AUTH, 501, says);
    vec![
        unsupported("TRACE", "/patroni", "Unsupported method ('TRACE')"),
        unsupported("DELETE", "/failover", "Unsupported method ('DELETE')"),
        unsupported("PUT", "/restart", "Unsupported method ('PUT')"),
        unsupported("POST", "/patroni", "Unsupported method ('POST')"),
        unsupported("BREW", "/coffee", "Unsupported method ('BREW')"),
        head("CONNECT", "CONNECT", "127.0.0.1:80", AUTH, 501, "Unsupported method ('CONNECT')"),
        head("a method in small letters", "get", "/patroni", "", 501, "Unsupported method ('get')"),
        raw("markup for a method", "<b> /patroni HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""),
        raw("no version", "GET /patroni\r\n\r\n", 400, ""),
        raw("a version to come", "GET /patroni HTTP/9.9\r\nHost: x\r\n\r\n", 400, ""),
        raw("the second version", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "Version Not Supported"),
        raw("a greeting of TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 400, ""),
        raw("a greeting of SSH", "SSH-2.0-OpenSSH_9.6\r\n\r\n", 400, ""),
        raw("a header without a colon", "GET /patroni HTTP/1.1\r\nHost\r\n\r\n", 400, ""),
        raw("a blank in a header's name", "GET /patroni HTTP/1.1\r\nHost : x\r\n\r\n", 400, ""),
    ]
}

fn credentials() -> Vec<Case> {
    let auth = |value: &[u8]| {
        let mut request = b"POST /restart HTTP/1.1\r\nHost: x\r\nAuthorization: ".to_vec();
        request.extend(value);
        request.extend(b"\r\nContent-Length: 2\r\n\r\n{}");
        raw(&format!("Authorization: {}", String::from_utf8_lossy(value)), request, 401, "not authenticated")
    };
    let long = [b"Basic ".as_slice(), &[b'A'; 100_000]].concat();
    vec![
        head("no credentials", "POST", "/restart", "", 401, "no auth header received"),
        head(
            "no credentials for a change",
            "PATCH",
            "/config",
            "Content-Length: 0\r\n",
            401,
            "no auth header received",
        ),
        auth(b""),
        auth(b"Basic"),
        auth(b"Basic "),
        auth(b"Basic ????"),
        auth(b"Basic b3BlcmF0b3I6d3Jvbmc="),
        auth(b"Basic b3BlcmF0b3I6cMOkOnNz=="),
        auth(b"Basic  b3BlcmF0b3I6cMOkOnNz"),
        auth(b"basic b3BlcmF0b3I6cMOkOnNz"),
        auth(b"Bearer b3BlcmF0b3I6cMOkOnNz"),
        auth("Basic operator:pä:ss".as_bytes()),
        auth(b"Basic \xff\xfe\xfd"),
        auth(&long),
    ]
}

fn slow_clients() -> Vec<Case> {
    let half_body = format!("POST /restart HTTP/1.1\r\nHost: x\r\n{AUTH}Content-Length: 20\r\n\r\n{{\"role\"");
    let expecting =
        format!("POST /restart HTTP/1.1\r\nHost: x\r\n{AUTH}Expect: 100-continue\r\nContent-Length: 20\r\n\r\n");
    let gone = |case: Case| Case { then: Then::Closes, ..case };
    vec![
        raw("nothing at all", "", 0, ""),
        raw("half a word", "GE", 408, "did not arrive in time"),
        raw("half a line", "GET /patroni HTT", 408, "did not arrive in time"),
        raw("half a head", "GET /patroni HTTP/1.1\r\nHost: x\r\n", 408, "did not arrive in time"),
        raw("half a body", half_body.clone(), 408, "did not arrive in time"),
        raw("a promise of a body", expecting, 408, "did not arrive in time"),
        gone(raw("half a body, and gone", half_body, 400, BAD)),
        gone(raw("half a line, and gone", "GET /patroni HTT", 0, "")),
    ]
}

/// Sends the request and reads what comes back.
async fn ask(port: u16, case: &Case) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let send = async {
        // A server that has heard enough may have closed.
        let _ = writing.write_all(&case.request).await;
        match case.then {
            Then::Waits => {}
            Then::Closes => drop(writing.shutdown().await),
            Then::Sends(more) => {
                let more = more.repeat(100);
                while writing.write_all(&more).await.is_ok() {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = reading.read(&mut buffer).await {
            answer.extend(&buffer[..count]);
            // A connection that stays open says how long its answer is; nobody waits for its end.
            if is_whole(&answer) {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::select! {
        () = send => unreachable!("it never ends"),
        answer = read => answer,
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let text = text.strip_prefix("http/1.1 100 continue\r\n\r\n").unwrap_or(&text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| body.len() >= length)
}

fn verdict(case: &Case, answer: &str) -> Option<String> {
    let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(answer);
    let code = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
    let is_right = code == case.code && answer.contains(case.says);
    let shown: String = answer.chars().take(600).collect();
    (!is_right).then(|| format!("{}: wanted {} {:?}, got {shown:?}", case.name, case.code, case.says))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_broken_requests_are_answered_and_the_agent_goes_on() {
    let mut cluster = Cluster::new(Store::Embedded, &[Kind::Pgherd], json!({"loop_wait": 1}));
    cluster.reconfigure(0, |document| {
        document["restapi"]["authentication"] = json!({"username": "operator", "password": "pä:ss"});
    });
    cluster.start(0);
    cluster.wait_healthy(Duration::from_secs(120)).await;
    // What the leader has just written it knows once it has read it back.
    let is_known = async || cluster.get(0, "/config").await.is_some_and(|(code, _)| code == 200);
    cluster.until("the configuration is known", Duration::from_secs(60), is_known).await;
    let (port, before) = (cluster.members[0].api_port, cluster.get(0, "/config").await.unwrap());
    let (agent, postmaster) = (cluster.agent(0), cluster.postmaster(0));

    let groups = [sizes(), types(), encodings(), methods(), credentials(), slow_clients()];
    let cases: Vec<Case> = groups.into_iter().flatten().collect();
    assert!(cases.len() >= 100, "{}", cases.len());
    let asking = cases.iter().map(|case| async {
        match timeout(LIMIT, ask(port, case)).await {
            Ok(answer) => verdict(case, &answer),
            Err(_) => Some(format!("{}: no answer within {LIMIT:?}", case.name)),
        }
    });
    let wrong: Vec<String> = futures::future::join_all(asking).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(cluster.get(0, "/config").await.unwrap(), before, "nothing was changed");

    // What the cluster's configuration is allowed to say although nobody can follow it.
    for body in [
        r#"{"ttl": [[]], "loop_wait": "never", "retry_timeout": {}}"#,
        r#"{"postgresql": 7, "slots": "x", "ignore_slots": {"a": 1}, "synchronous_mode": {"a": null}}"#,
        r#"{"standby_cluster": [5], "maximum_lag_on_failover": "-1e99", "pause": "perhaps", "member_slots_ttl": null}"#,
        r#"{"postgresql": {"parameters": ["a"], "pg_hba": 5, "pg_ident": {"x": []}, "use_slots": "maybe"}}"#,
    ] {
        let answer = ask(port, &raw("PATCH", with_body("PATCH", "/config", "", body), 200, "")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{body}: {answer}");
    }
    let (_, config) = &before;
    let answer = ask(port, &raw("PUT", with_body("PUT", "/config", "", config), 200, "")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    cluster.wait_healthy(Duration::from_secs(60)).await;
    let (code, _) = cluster.get(0, "/liveness").await.unwrap();
    assert_eq!(code, 200);
    assert!(!cluster.agent_has_ended(0));
    assert_eq!((cluster.agent(0), cluster.postmaster(0)), (agent, postmaster), "the same processes");
    let log = cluster.log(0);
    assert!(!log.contains("panic") && !log.contains("bug") && !log.contains("BUG"), "{log}");
}
