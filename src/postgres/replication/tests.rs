use super::*;
use crate::config::Secret;
use crate::postgres::tls::Tls;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, duplex};

/// A connection to a server that has already said everything and then hangs up.
fn scripted(bytes: &[u8]) -> Replication {
    let (read, write) = (std::io::Cursor::new(bytes.to_vec()), tokio::io::sink());
    Replication { wire: Wire::over(tokio::io::join(read, write)), limit: Duration::from_secs(5) }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

fn row(columns: &[Option<&str>]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        let length = column.map_or(-1, |text| i32::try_from(text.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend(column.unwrap_or_default().as_bytes());
    }
    message(b'D', &body)
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn target(password: Option<&str>) -> Target {
    Target {
        host: "db".to_owned(),
        port: 5432,
        user: "replicator".to_owned(),
        password: password.map(Secret::new),
        tls: Tls::default(),
    }
}

fn authentication_ok() -> Vec<u8> {
    message(b'R', &0u32.to_be_bytes())
}

#[tokio::test]
async fn a_trusting_server_lets_us_in() {
    let setting = message(b'S', b"server_version\x0015.2\0");
    let key = message(b'K', &[0; 8]);
    let script = [authentication_ok(), setting, key, ready()].concat();
    scripted(&script).wire.start(&target(None), &PARAMETERS).await.unwrap();
}

#[tokio::test]
async fn a_wanted_password_that_is_not_configured_is_named() {
    let script = message(b'R', &3u32.to_be_bytes());
    let error = scripted(&script).wire.start(&target(None), &PARAMETERS).await.unwrap_err();
    assert!(error.to_string().contains("the password of \"replicator\" and none is configured"), "{error}");
}

#[tokio::test]
async fn a_server_that_skips_its_proof_is_refused() {
    let offer = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let script = [offer, authentication_ok(), ready()].concat();
    assert!(scripted(&script).wire.start(&target(Some("x")), &PARAMETERS).await.is_err());
    let other = message(b'R', b"\0\0\0\x0aSCRAM-SHA-512\0\0");
    let error = scripted(&other).wire.start(&target(Some("x")), &PARAMETERS).await.unwrap_err();
    assert!(error.to_string().contains("SCRAM-SHA-512"), "{error}");
}

#[tokio::test]
async fn a_refusal_is_given_in_the_servers_words() {
    let body = b"SFATAL\0C28000\0Mno pg_hba.conf entry \xff\0\0";
    let error = scripted(&message(b'E', body)).wire.start(&target(None), &PARAMETERS).await.unwrap_err();
    assert!(error.to_string().contains("FATAL: no pg_hba.conf entry \u{fffd} (SQLSTATE 28000)"), "{error}");
}

#[tokio::test]
async fn questions_and_answers() {
    let identity = row(&[Some("7710267184385916675"), Some("3"), Some("0/3000060"), None]);
    let script = [message(b'T', b"\0\0"), identity, message(b'C', b"IDENTIFY_SYSTEM\0"), ready()].concat();
    let answer = scripted(&script).identify_system().await.unwrap();
    assert_eq!((answer.timeline, answer.position), (Timeline(3), Lsn(0x300_0060)));

    let content = "1\t0/2000100\tno recovery target specified\n\n2\t0/3000000\tx\n";
    let script = [row(&[Some("00000003.history"), Some(content)]), ready()].concat();
    let lines = scripted(&script).timeline_history(Timeline(3)).await.unwrap();
    assert_eq!(lines.len(), 2);
    assert_eq!((lines[1].timeline, lines[1].switch), (Timeline(2), Lsn(0x300_0000)));

    let script = [row(&[Some("physical"), Some("0/2000100"), Some("1")]), ready()].concat();
    let slot = scripted(&script).read_slot("a").await.unwrap().unwrap();
    assert_eq!(slot.restart_lsn, Some(Lsn(0x200_0100)));
    let script = [row(&[None, None, None]), ready()].concat();
    assert_eq!(scripted(&script).read_slot("a").await.unwrap(), None);
    assert!(scripted(&[]).read_slot("a;b").await.is_err());
}

#[tokio::test]
async fn an_error_leaves_the_connection_usable() {
    let script = [message(b'E', b"SERROR\0C58P01\0Mno such file\0\0"), ready()].concat();
    let identity = row(&[Some("7710267184385916675"), Some("1"), Some("0/1"), None]);
    let mut connection = scripted(&[script, identity, ready()].concat());
    assert!(connection.timeline_history(Timeline(9)).await.is_err());
    assert!(connection.identify_system().await.is_ok());
}

#[tokio::test]
async fn a_huge_announcement_is_refused_and_silence_is_bounded() {
    let error = scripted(&[b'D', 0x7f, 0xff, 0xff, 0xff]).identify_system().await.unwrap_err();
    assert!(error.to_string().contains("announced"), "{error}");

    let (ours, _theirs) = duplex(64);
    let limit = Duration::from_millis(50);
    let mut connection = Replication { wire: Wire::over(ours), limit };
    assert!(matches!(connection.identify_system().await, Err(PgError::Timeout(..))));
}

#[test]
fn comments_in_history_files_are_passed_over() {
    let lines = parse_history("# old\n1\t0/1\n0\t0/1\tzero\nx\n\n  2\t0/A0\twhy not\n");
    assert_eq!(lines.iter().map(|line| line.timeline.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(lines[1].reason, "why not");
}

/// Bytes that look like server messages often enough to get past the first checks.
fn chatter() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop::sample::select(b"REKSTDCZNAIGHW1st\0".to_vec());
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (0u32..13, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(kind, rest)| { [kind.to_be_bytes().to_vec(), rest].concat() }),
        Just(b"\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec()),
        Just(b"\0\0\0\x0br=abc,s=QQ==,i=1".to_vec()),
    ];
    let whole = prop::collection::vec((tag, body).prop_map(|(tag, body)| message(tag, &body)), 0..8);
    (whole, prop::collection::vec(any::<u8>(), 0..10)).prop_map(|(whole, rest)| [whole.concat(), rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_server_makes_us_panic(bytes in chatter()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let _ = scripted(&bytes).wire.start(&target(Some("x")), &PARAMETERS).await;
            let after_login = [authentication_ok(), ready(), bytes.clone()].concat();
            let mut connection = scripted(&after_login);
            connection.wire.start(&target(None), &PARAMETERS).await.unwrap();
            let _ = connection.identify_system().await;
            let _ = connection.timeline_history(Timeline(2)).await;
            let _ = scripted(&bytes).read_slot("a").await;
        });
    }

    #[test]
    fn no_history_makes_us_panic(text in "[0-9a-f/\t\n #]{0,80}") {
        let _ = parse_history(&text);
    }
}

#[tokio::test]
async fn a_connection_is_not_broken_off_without_a_word() {
    let (ours, mut theirs) = duplex(64);
    drop(Replication { wire: Wire::over(ours), limit: Duration::from_secs(5) });
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, message(b'X', b""));
}
