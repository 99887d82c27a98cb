//! The difference between two configurations.

use super::difflib::{Change, changes};

/// Lines of context around a change.
const CONTEXT: usize = 3;

/// A unified diff with empty file names, one line per entry; nothing when the texts are equal.
pub fn unified(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (lines(old), lines(new));
    let mut out = Vec::new();
    for hunk in hunks(&changes(&old, &new)) {
        if out.is_empty() {
            out.extend(["--- ".to_owned(), "+++ ".to_owned()]);
        }
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let (before, after) = (range(first.old.0, last.old.1), range(first.new.0, last.new.1));
        out.push(format!("@@ -{before} +{after} @@"));
        for change in &hunk {
            if change.is_equal {
                out.extend(old[change.old.0..change.old.1].iter().map(|line| format!(" {line}")));
            } else {
                out.extend(old[change.old.0..change.old.1].iter().map(|line| format!("-{line}")));
                out.extend(new[change.new.0..change.new.1].iter().map(|line| format!("+{line}")));
            }
        }
    }
    out
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end_matches('\n').split('\n').collect()
}

fn range(from: usize, to: usize) -> String {
    match to - from {
        1 => format!("{}", from + 1),
        0 => format!("{from},0"),
        length => format!("{},{length}", from + 1),
    }
}

/// Groups changes that are closer to each other than twice the context.
fn hunks(changes: &[Change]) -> Vec<Vec<Change>> {
    let mut changes = changes.to_vec();
    if let Some(first) = changes.first_mut().filter(|change| change.is_equal) {
        first.old.0 = first.old.0.max(first.old.1.saturating_sub(CONTEXT));
        first.new.0 = first.new.0.max(first.new.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = changes.last_mut().filter(|change| change.is_equal) {
        last.old.1 = last.old.1.min(last.old.0 + CONTEXT);
        last.new.1 = last.new.1.min(last.new.0 + CONTEXT);
    }
    let mut hunks = Vec::new();
    let mut hunk: Vec<Change> = Vec::new();
    for mut change in changes {
        if change.is_equal && change.old.1 - change.old.0 > 2 * CONTEXT {
            let head = Change {
                old: (change.old.0, change.old.0 + CONTEXT),
                new: (change.new.0, change.new.0 + CONTEXT),
                ..change
            };
            hunk.push(head);
            hunks.push(std::mem::take(&mut hunk));
            change.old.0 = change.old.1 - CONTEXT;
            change.new.0 = change.new.1 - CONTEXT;
        }
        hunk.push(change);
    }
    hunks.push(hunk);
    hunks.retain(|hunk| hunk.iter().any(|change| !change.is_equal));
    hunks
}

const RESET: &str = "\x1b[0m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";

/// The same diff in colours; words that differ within a changed line are inverted.
pub fn coloured(diff: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(line) = diff.get(at) {
        if !is_removed(line) && !is_added(line) {
            let colour = match line {
                line if line.starts_with("--- ") || line.starts_with("+++ ") => "\x1b[33m",
                line if line.starts_with("@@") => "\x1b[34m",
                _ => RESET,
            };
            out.push(format!("{colour}{line}{RESET}"));
            at += 1;
            continue;
        }
        let count = |from: usize, test: fn(&str) -> bool| diff[from..].iter().take_while(|line| test(line)).count();
        let removed = count(at, is_removed);
        let added = count(at + removed, is_added);
        let pair = |i: usize| (i < removed && i < added).then(|| (&diff[at + i][1..], &diff[at + removed + i][1..]));
        out.extend((0..removed).map(|i| one_side(RED, '-', &diff[at + i][1..], pair(i), true)));
        out.extend((0..added).map(|i| one_side(GREEN, '+', &diff[at + removed + i][1..], pair(i), false)));
        at += (removed + added).max(1);
    }
    out
}

fn is_removed(line: &str) -> bool {
    line.starts_with('-') && line != "--- "
}

fn is_added(line: &str) -> bool {
    line.starts_with('+') && line != "+++ "
}

fn one_side(colour: &str, sign: char, line: &str, pair: Option<(&str, &str)>, is_old: bool) -> String {
    let Some((old, new)) = pair else { return format!("{colour}{sign}{line}{RESET}") };
    let (old, new) = (words(old), words(new));
    let found = changes(&old, &new);
    let mut text = format!("{colour}{sign}");
    for change in found {
        let part =
            if is_old { old[change.old.0..change.old.1].concat() } else { new[change.new.0..change.new.1].concat() };
        if change.is_equal || part.is_empty() {
            text.push_str(&part);
        } else {
            text.push_str(&format!("\x1b[7m{part}{RESET}{colour}"));
        }
    }
    text + RESET
}

/// Runs of letters and digits, and every other character by itself.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, after) = rest.split_at(length);
        words.push(word);
        rest = after;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_are_apart_when_the_context_is() {
        let old: Vec<String> = (1..=20).map(|n| format!("line {n}")).collect();
        let mut new = old.clone();
        new[1] = "changed".to_owned();
        new.remove(14);
        let diff = unified(&old.join("\n"), &(new.join("\n") + "\n"));
        let heads: Vec<&String> = diff.iter().filter(|line| line.starts_with("@@")).collect();
        assert_eq!(heads, ["@@ -1,5 +1,5 @@", "@@ -12,7 +12,6 @@"]);
        assert!(unified("a\n", "a").is_empty());
        assert_eq!(unified("{}\n", "ttl: 30\n"), ["--- ", "+++ ", "@@ -1 +1 @@", "-{}", "+ttl: 30"]);
    }

    #[test]
    fn the_word_that_differs_is_inverted() {
        let shown = coloured(&unified("ttl: 20\n", "ttl: 26\n"));
        assert_eq!(shown[3], "\x1b[31m-ttl: \x1b[7m20\x1b[0m\x1b[31m\x1b[0m");
        assert_eq!(shown[4], "\x1b[32m+ttl: \x1b[7m26\x1b[0m\x1b[32m\x1b[0m");
    }
}
