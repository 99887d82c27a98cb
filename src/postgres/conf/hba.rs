//! `pg_hba.conf` and `pg_ident.conf`, when their lines are configured.

use super::postgresql::HEADER;

/// Stands in a file that lets the superuser in while a new cluster has no users of ours. Where it is found later, an
/// agent died in the middle of a bootstrap.
pub const FOR_NOW: &str = "# only until the users of the new cluster exist";

/// The file for a list of lines.
pub fn render(lines: &[String]) -> String {
    let mut text = String::from(HEADER);
    text.push('\n');
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_follow_the_header() {
        let text = render(&["local all all peer".to_owned(), "host all all all md5".to_owned()]);
        assert!(text.starts_with("# "));
        assert!(text.ends_with("\nlocal all all peer\nhost all all all md5\n"), "{text}");
    }
}
