//! What Python and its libraries do to text, as far as patronictl's output shows it.

/// Wraps at blanks to `width` columns: the first line begins with `first`, the others with `rest`.
pub fn wrap(text: &str, width: usize, first: &str, rest: &str) -> String {
    let mut lines = vec![first.to_owned()];
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if is_empty {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("{rest}{word}"));
        }
        is_empty = false;
    }
    lines.join("\n")
}

/// Two columns as in a help page: terms and their texts.
pub fn definition_list(rows: &[(String, String)]) -> String {
    let widest = rows.iter().map(|(term, _)| term.chars().count()).max().unwrap_or(0).min(30);
    let column = widest + 2;
    let lines = rows.iter().map(|(term, text)| {
        let indent = " ".repeat(column + 2);
        let head =
            if term.chars().count() <= widest { format!("  {term:<column$}") } else { format!("  {term}\n{indent}") };
        // Only the last line of the head counts for the width.
        let (before, last) = head.rsplit_once('\n').map_or(("", head.as_str()), |(b, l)| (b, l));
        let body = wrap(text, 78, last, &indent);
        if before.is_empty() { body } else { format!("{before}\n{body}") }
    });
    lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// The known word most like `word`, if one is like enough (`difflib.get_close_matches`, ratio 0.6).
pub fn close_match<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let word: Vec<char> = word.chars().collect();
    let ratio = |other: &str| {
        let other: Vec<char> = other.chars().collect();
        let total = word.len() + other.len();
        if total == 0 { 1.0 } else { 2.0 * matching(&word, &other) as f64 / total as f64 }
    };
    let scored = known.iter().map(|other| (ratio(other), other.as_str())).filter(|(ratio, _)| *ratio >= 0.6);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
}

/// Characters in common: the longest common block, then the same left and right of it.
fn matching(a: &[char], b: &[char]) -> usize {
    let mut best = (0, 0, 0);
    for i in 0..a.len() {
        for j in 0..b.len() {
            let size = a[i..].iter().zip(&b[j..]).take_while(|(x, y)| x == y).count();
            if size > best.2 {
                best = (i, j, size);
            }
        }
    }
    let (i, j, size) = best;
    if size == 0 { 0 } else { size + matching(&a[..i], &b[..j]) + matching(&a[i + size..], &b[j + size..]) }
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
}
