//! Commands that show again and again.

use std::time::Duration;

use crate::bench::{Bench, Said};

async fn watched(bench: &Bench, command: &str, seconds: f64) -> Said {
    let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
    bench.run_for(Duration::from_secs_f64(seconds), &words).await
}

fn rounds(said: &Said) -> usize {
    said.stdout.lines().filter(|line| line.starts_with("Cluster\t") || line.starts_with("cluster\t")).count()
}

#[tokio::test(start_paused = true)]
async fn rounds_start_at_the_period() {
    let bench = Bench::new();
    bench.import("healthy");
    for (options, seconds, expected) in [("-W", 5.0, 3), ("-w 1", 3.5, 4), ("-W -w 0.5", 1.9, 4), ("-w 0", 5.0, 1)] {
        for program in ["pgherdctl", "patronictl"] {
            let command = format!("{program} -c ctl.yml list -f tsv {options}");
            assert_eq!(rounds(&watched(&bench, &command, seconds).await), expected, "{command}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_round_that_fails_ends_the_watch() {
    let mut bench = Bench::new();
    bench.reach = pgherd::dcs::memory::Reach::Refused;
    let said = watched(&bench, "pgherdctl -c ctl.yml list -W", 60.0).await;
    assert_eq!(said.exit, 7, "{}", said.stderr);
}
