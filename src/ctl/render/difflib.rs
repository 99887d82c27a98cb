//! Comparing sequences as Python's `difflib` does, so that a diff has the same hunks.

use std::collections::HashMap;
use std::hash::Hash;

/// A stretch that both sides have: where it starts in each, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    a: usize,
    b: usize,
    size: usize,
}

/// What happens to a stretch of the old side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Both sides are the same here.
    pub is_equal: bool,
    /// From and to in the old side.
    pub old: (usize, usize),
    /// From and to in the new side.
    pub new: (usize, usize),
}

/// The longest common stretch first, the earliest of several; then the same to its left and right.
fn blocks<T: Eq + Hash>(old: &[T], new: &[T]) -> Vec<Block> {
    let mut places: HashMap<&T, Vec<usize>> = HashMap::new();
    for (j, item) in new.iter().enumerate() {
        places.entry(item).or_default().push(j);
    }
    let mut found = Vec::new();
    let mut todo = vec![((0, old.len()), (0, new.len()))];
    while let Some((a, b)) = todo.pop() {
        let block = longest(old, &places, a, b);
        if block.size > 0 {
            todo.push(((a.0, block.a), (b.0, block.b)));
            todo.push(((block.a + block.size, a.1), (block.b + block.size, b.1)));
            found.push(block);
        }
    }
    found.sort_by_key(|block| (block.a, block.b));
    found
}

fn longest<T: Eq + Hash>(old: &[T], places: &HashMap<&T, Vec<usize>>, a: (usize, usize), b: (usize, usize)) -> Block {
    let mut best = Block { a: a.0, b: b.0, size: 0 };
    // Length of the common stretch that ends at the previous item and at this place of the new side.
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (i, item) in old.iter().enumerate().take(a.1).skip(a.0) {
        let mut next = HashMap::new();
        let candidates = places.get(item).map(Vec::as_slice).unwrap_or_default();
        for &j in candidates.iter().filter(|j| (b.0..b.1).contains(*j)) {
            let size = j.checked_sub(1).and_then(|j| lengths.get(&j)).copied().unwrap_or(0) + 1;
            next.insert(j, size);
            if size > best.size {
                best = Block { a: i + 1 - size, b: j + 1 - size, size };
            }
        }
        lengths = next;
    }
    best
}

/// The changes from the old side to the new one, in order.
pub fn changes<T: Eq + Hash>(old: &[T], new: &[T]) -> Vec<Change> {
    let mut changes = Vec::new();
    let (mut i, mut j) = (0, 0);
    let end = Block { a: old.len(), b: new.len(), size: 0 };
    for block in blocks(old, new).into_iter().chain([end]) {
        if i < block.a || j < block.b {
            changes.push(Change { is_equal: false, old: (i, block.a), new: (j, block.b) });
        }
        (i, j) = (block.a + block.size, block.b + block.size);
        if block.size > 0 {
            changes.push(Change { is_equal: true, old: (block.a, i), new: (block.b, j) });
        }
    }
    merged(changes)
}

/// Neighbouring equal stretches are one.
fn merged(changes: Vec<Change>) -> Vec<Change> {
    let mut result: Vec<Change> = Vec::new();
    for change in changes {
        match result.last_mut() {
            Some(last) if last.is_equal && change.is_equal => {
                (last.old.1, last.new.1) = (change.old.1, change.new.1);
            }
            _ => result.push(change),
        }
    }
    result
}

/// How alike two words are, from 0 to 1.
fn ratio(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let total = a.len() + b.len();
    let common: usize = blocks(&a, &b).iter().map(|block| block.size).sum();
    if total == 0 { 1.0 } else { 2.0 * common as f64 / total as f64 }
}

/// The known word most like `word`, if one is like enough.
pub fn close_match<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let scored = known.iter().map(|other| (ratio(other, word), other.as_str())).filter(|(ratio, _)| *ratio >= 0.6);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
}

/// The same as a question; none where several are equally like it, as `pg1` and `pg2` are like `pg9`.
pub fn did_you_mean(word: &str, known: &[String]) -> Option<String> {
    let meant = close_match(word, known)?;
    let best = ratio(meant, word);
    let is_alone = known.iter().filter(|other| ratio(other, word) >= best).count() == 1;
    is_alone.then(|| format!("did you mean {meant}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness() {
        let known = ["topology", "failover", "list"].map(str::to_owned);
        assert_eq!(close_match("topo", &known), Some("topology"));
        assert_eq!(close_match("nosuchcommand", &known), None);
    }

    #[test]
    fn changes_cover_both_sides() {
        let found = changes(&['a', 'b', 'c', 'd'], &['a', 'x', 'c', 'd', 'e']);
        let change = |is_equal, old, new| Change { is_equal, old, new };
        let expected = [
            change(true, (0, 1), (0, 1)),
            change(false, (1, 2), (1, 2)),
            change(true, (2, 4), (2, 4)),
            change(false, (4, 4), (4, 5)),
        ];
        assert_eq!(found, expected);
    }
}
