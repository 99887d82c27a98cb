//! Called as `pgherdctl`: snapshots. `INSTA_UPDATE=always` rewrites them.

use insta::assert_snapshot;

use crate::bench::Bench;

/// The whole of what a run said, for a snapshot.
async fn shown(bench: &Bench, command: &str, stdin: &str, environment: &[(&str, &str)]) -> String {
    let words: Vec<String> = command.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let said = bench.run(&words, &environment, stdin).await;
    let mut text = format!("$ {command}\n{}", said.stdout);
    if !said.stderr.is_empty() {
        text.push_str(&format!("[stderr]\n{}", said.stderr));
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    format!("{text}[exit] {}\n", said.exit)
}

async fn all(fixtures: &[&str], commands: &[&str]) -> String {
    let bench = Bench::new();
    fixtures.iter().for_each(|fixture| bench.import(fixture));
    let mut text = String::new();
    for command in commands {
        text.push_str(&shown(&bench, command, "", &[]).await);
        text.push('\n');
    }
    text
}

#[tokio::test]
async fn list_in_every_format() {
    let commands = [
        "pgherdctl -c ctl.yml list",
        "pgherdctl -c ctl.yml list -f tsv",
        "pgherdctl -c ctl.yml list -f json",
        "pgherdctl -c ctl.yml list -f yaml",
    ];
    assert_snapshot!(all(&["healthy"], &commands).await);
}

#[tokio::test]
async fn list_of_clusters_with_something_to_say() {
    let fixtures =
        ["syn_reasons", "syn_lags", "syn_noconn", "syn_syncpause", "syn_initializing", "syn_cit", "stopped_member"];
    let commands = [
        "pgherdctl -c ctl.yml list reasons",
        "pgherdctl -c ctl.yml list reasons -f tsv",
        "pgherdctl -c ctl.yml list lags",
        "pgherdctl -c ctl.yml list noconn",
        "pgherdctl -c ctl.yml list syncpause",
        "pgherdctl -c ctl.yml list syncpause -f json",
        "pgherdctl -c ctl.yml list initializing",
        "pgherdctl -c ctl.yml list",
        "pgherdctl -c citus.yml list",
        "pgherdctl -c citus.yml list --group 1 -f json",
        "pgherdctl -c ctl.yml list demo nosuch",
    ];
    assert_snapshot!(all(&fixtures, &commands).await);
}

#[tokio::test]
async fn topology() {
    let commands = ["pgherdctl -c ctl.yml topology topo", "pgherdctl -c ctl.yml topology topo -e -f tsv"];
    assert_snapshot!(all(&["syn_topo"], &commands).await);
}

#[tokio::test]
async fn history() {
    let commands = [
        "pgherdctl -c ctl.yml history",
        "pgherdctl -c ctl.yml history -f json",
        "pgherdctl -c ctl.yml history hist -f tsv",
        "pgherdctl -c ctl.yml history nosuch",
    ];
    assert_snapshot!(all(&["history", "syn_hist"], &commands).await);
}

#[tokio::test]
async fn configuration() {
    let commands = [
        "pgherdctl -c ctl.yml show-config gl",
        "pgherdctl -c ctl.yml show-config gl -f json",
        "pgherdctl -c ctl.yml show-config nosuch",
        "pgherdctl -c ctl.yml edit-config gl -s ttl=31 --dry-run",
        "pgherdctl -c ctl.yml edit-config gl -s ttl=30",
        "pgherdctl -c ctl.yml edit-config gl -s synchronous_mod=on --dry-run",
        "pgherdctl -c ctl.yml edit-config gl -s ttl=abc --yes",
        "pgherdctl -c ctl.yml edit-config gl -p work_men=1MB -p max_connections=0 --yes",
        "pgherdctl -c ctl.yml edit-config gl -s =5 --force",
        "pgherdctl -c ctl.yml edit-config gl -s ttl --force",
        "pgherdctl -c ctl.yml edit-config gl -s x=[1 --force",
        "pgherdctl -c ctl.yml edit-config gl --apply list.yml --force",
        "pgherdctl -c ctl.yml edit-config gl --apply apply.yml --force",
        "pgherdctl -c ctl.yml edit-config gl -s ttl=30",
    ];
    assert_snapshot!(all(&["syn_gl"], &commands).await);
}

#[tokio::test]
async fn nothing_typed_is_lost() {
    let mut bench = Bench::new();
    bench.import("healthy");
    let command = "pgherdctl -c ctl.yml edit-config";
    let declined = shown(&bench, command, "n\n", &[("EDITOR", "./ed_ttl")]).await;
    assert!(declined.ends_with("[exit] 1\n"), "{declined}");
    let empty = shown(&bench, command, "y\n", &[("EDITOR", "./ed_empty")]).await;
    assert!(empty.contains("not a YAML mapping") && empty.ends_with("[exit] 1\n"), "{empty}");
    let broken = shown(&bench, command, "y\n", &[("EDITOR", "./ed_bad")]).await;
    assert_eq!(kept(&broken), "a: [b\n");
    bench.meddles_at = Some(2);
    let raced = shown(&bench, command, "y\n", &[("EDITOR", "./ed_race")]).await;
    assert!(raced.contains("somebody else changed the configuration of cluster demo"), "{raced}");
    assert!(kept(&raced).contains("ttl: 28"));
    assert_eq!(bench.store.get("/service/demo/config").unwrap(), r#"{"ttl": 99}"#);
}

/// The text in the file that the message names; the file is removed.
fn kept(message: &str) -> String {
    let path = message.split("your text is kept in ").nth(1).unwrap_or_else(|| panic!("{message}"));
    let path = path.split(';').next().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::remove_file(path).unwrap();
    text
}

#[tokio::test]
async fn usage_errors_exit_with_2() {
    let bench = Bench::new();
    for command in
        ["pgherdctl", "pgherdctl list -f xml", "pgherdctl nosuch", "pgherdctl list --nosuch", "pgherdctl history"]
    {
        let said = shown(&bench, command, "", &[]).await;
        assert!(said.ends_with("[exit] 2\n"), "{said}");
        assert!(said.contains("[stderr]"), "{said}");
    }
    for command in ["pgherdctl --help", "pgherdctl list -h", "pgherdctl --version"] {
        let said = shown(&bench, command, "", &[]).await;
        assert!(said.ends_with("[exit] 0\n") && !said.contains("[stderr]"), "{said}");
    }
}

/// A DCS that does not answer ends every command within five seconds, with an error and a code.
#[tokio::test(start_paused = true)]
async fn a_silent_dcs_ends_every_command_in_time() {
    for reach in [pgherd::dcs::memory::Reach::Silent, pgherd::dcs::memory::Reach::Refused] {
        let mut bench = Bench::new();
        bench.reach = reach;
        for program in ["pgherdctl", "patronictl"] {
            for command in
                ["list", "topology", "history", "show-config", "edit-config -s ttl=1 --force", "version demo"]
            {
                let started = tokio::time::Instant::now();
                let said = shown(&bench, &format!("{program} -c ctl.yml {command}"), "", &[]).await;
                assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}: {said}", started.elapsed());
                let exit = if program == "pgherdctl" { 7 } else { 1 };
                assert!(
                    said.ends_with(&format!("[exit] {exit}\n")) && said.contains("could not read cluster demo"),
                    "{said}"
                );
            }
        }
    }
}

/// The cluster that is meant when nobody names one.
#[tokio::test]
async fn the_only_cluster_need_not_be_named() {
    let bench = Bench::new();
    let none = shown(&bench, "pgherdctl -d 127.0.0.1:2379 list", "", &[]).await;
    assert!(none.contains("there is no cluster in namespace service") && none.ends_with("[exit] 3\n"), "{none}");
    bench.import("healthy");
    for command in ["list", "history", "show-config", "dsn", "topology"] {
        let said = shown(&bench, &format!("pgherdctl -d 127.0.0.1:2379 {command}"), "", &[]).await;
        assert!(said.ends_with("[exit] 0\n"), "{said}");
    }
    bench.import("syn_gl");
    let several = shown(&bench, "pgherdctl -d 127.0.0.1:2379 history", "", &[]).await;
    assert!(several.contains("name one of: demo, gl") && several.ends_with("[exit] 2\n"), "{several}");
    let theirs = shown(&bench, "patronictl -d etcd3://127.0.0.1:2379 list", "", &[]).await;
    assert!(theirs.contains("No cluster names were provided"), "{theirs}");
}

/// Nobody names a cluster: all are shown. Many names are the same read, in the order of the names.
#[tokio::test]
async fn all_clusters_of_a_namespace() {
    let bench = Bench::new();
    ["syn_gl", "healthy", "syn_cit"].iter().for_each(|fixture| bench.import(fixture));
    let all = shown(&bench, "pgherdctl -d 127.0.0.1:2379 list", "", &[]).await;
    assert!(all.find("Cluster demo (") < all.find("Cluster gl (") && all.ends_with("[exit] 0\n"), "{all}");
    assert!(all.contains("warning: not shown, because they have other keys (Citus?): cit"), "{all}");
    let tree = shown(&bench, "pgherdctl -d 127.0.0.1:2379 topology -f json", "", &[]).await;
    assert!(tree.contains(r#""name": "demo""#) && tree.contains(r#""name": "gl""#), "{tree}");
    let names = ["nosuch", "gl"].iter().chain(&["demo"; 16]).copied().collect::<Vec<_>>().join(" ");
    let theirs = shown(&bench, &format!("patronictl -c ctl.yml list {names}"), "", &[]).await;
    let mut one_by_one = String::new();
    for name in names.split(' ') {
        let said = shown(&bench, &format!("patronictl -c ctl.yml list {name}"), "", &[]).await;
        one_by_one += said.split_once('\n').unwrap().1.trim_end_matches("[exit] 0\n");
    }
    assert_eq!(theirs.split_once('\n').unwrap().1, format!("{one_by_one}[exit] 0\n"));
    let coordinators = shown(&bench, "pgherdctl -c citus.yml list cit -f json", "", &[]).await;
    assert!(coordinators.contains(r#""group": 2"#), "{coordinators}");
}

/// Only some members, and whether all is well.
#[tokio::test]
async fn members_by_role_and_name_and_a_verdict() {
    let bench = Bench::new();
    ["healthy", "syn_lags"].iter().for_each(|fixture| bench.import(fixture));
    let run = async |args: &str| shown(&bench, &format!("pgherdctl -c ctl.yml {args}"), "", &[]).await;
    let leader = run("list -r leader -f tsv").await;
    assert!(leader.contains("\tpg1\t") && leader.lines().count() == 4, "{leader}");
    let replicas = run("topology --role replica").await;
    assert!(!replicas.contains("pg1 ") && replicas.contains("+ pg2"), "{replicas}");
    let named = run("list --member pg3 -m pg2 -f json").await;
    assert!(!named.contains(r#""name": "pg1""#) && named.contains(r#""name": "pg2""#), "{named}");
    assert!(named.contains(r#""leader": "pg1""#), "what is said of the cluster stays: {named}");
    let nobody = run("list -m pg9").await;
    assert!(nobody.contains("has a member pg9") && nobody.ends_with("[exit] 3\n"), "{nobody}");

    let well = run("list --check").await;
    assert!(well.ends_with("[exit] 0\n") && !well.contains("[stderr]"), "{well}");
    let ill = run("list lags --check -m r00").await;
    assert!(ill.contains("error: cluster lags: r05 is") || ill.contains("error: cluster lags: r06 is 1.5 MB"), "{ill}");
    assert!(ill.contains("error: cluster lags: x3 is starting") && ill.ends_with("[exit] 1\n"), "{ill}");
    let theirs = shown(&bench, "patronictl -c ctl.yml list --check", "", &[]).await;
    assert!(theirs.ends_with("[exit] 2\n"), "{theirs}");
}

#[tokio::test]
async fn contexts() {
    let bench = Bench::new();
    bench.import("healthy");
    bench.import("syn_gl");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("pgherd/pgherdctl.yaml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text =
        "current-context: one\netcd3: {host: '127.0.0.1:2379'}\ncontexts:\n  one: {scope: demo}\n  two: {scope: gl}\n";
    std::fs::write(&file, text).unwrap();
    let environment = [("XDG_CONFIG_HOME", home.path().to_str().unwrap())];
    let current = shown(&bench, "pgherdctl list", "", &environment).await;
    assert!(current.contains("Cluster demo") && current.ends_with("[exit] 0\n"), "{current}");
    let other = shown(&bench, "pgherdctl list --context two", "", &environment).await;
    assert!(other.contains("Cluster gl"), "{other}");
    let wrong = shown(&bench, "pgherdctl --context tow list", "", &environment).await;
    assert!(wrong.contains("did you mean two?") && wrong.ends_with("[exit] 2\n"), "{wrong}");
    // Theirs is read where ours is not there, and by their personality in any case.
    let theirs = shown(&bench, "patronictl list", "", &environment).await;
    assert!(!theirs.contains("demo"), "{theirs}");
    let fallback = shown(&bench, "pgherdctl list", "", &[("XDG_CONFIG_HOME", "./xdg")]).await;
    assert!(fallback.contains("Cluster gl"), "{fallback}");
}

#[tokio::test]
async fn colour_only_where_it_is_wanted() {
    let bench = Bench::new();
    bench.import("healthy");
    assert!(!shown(&bench, "pgherdctl -c ctl.yml list", "", &[]).await.contains('\u{1b}'));
    assert!(shown(&bench, "pgherdctl -c ctl.yml list --color always", "", &[]).await.contains("\u{1b}["));
    let error = shown(&bench, "pgherdctl -c ctl.yml --color always history nosuch", "", &[]).await;
    assert!(error.contains("\u{1b}["), "{error}");
    assert!(!shown(&bench, "pgherdctl -c ctl.yml --color never list", "", &[]).await.contains('\u{1b}'));
}
