//! The table that patronictl prints, in the manner of Python's prettytable.

use unicode_width::UnicodeWidthStr;

/// A column: its heading and whether it stands to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Heading.
    pub title: &'a str,
    /// Numbers stand to the right.
    pub is_right: bool,
}

impl<'a> Column<'a> {
    /// Text, to the left.
    pub const fn left(title: &'a str) -> Self {
        Self { title, is_right: false }
    }

    /// Numbers, to the right.
    pub const fn right(title: &'a str) -> Self {
        Self { title, is_right: true }
    }
}

/// Draws the table. The title, if any, overwrites the top line from its second character on. As soon as one cell has
/// several lines there are lines between all rows.
pub fn grid(title: &str, columns: &[Column<'_>], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let cells = rows.iter().flat_map(|row| row[i].split('\n'));
            cells.chain([column.title]).map(UnicodeWidthStr::width).max().unwrap_or(0)
        })
        .collect();
    let rule = rule(&widths);
    let header: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let between = rows.iter().flatten().any(|cell| cell.contains('\n'));
    let mut lines = vec![titled(&rule, title)];
    draw(&header, columns, &widths, &mut lines);
    lines.push(rule.clone());
    for (i, row) in rows.iter().enumerate() {
        if between && i > 0 {
            lines.push(rule.clone());
        }
        draw(row, columns, &widths, &mut lines);
    }
    lines.push(rule);
    lines.join("\n")
}

fn rule(widths: &[usize]) -> String {
    let parts: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    format!("+{}+", parts.join("+"))
}

fn titled(rule: &str, title: &str) -> String {
    let room = rule.chars().count().saturating_sub(2);
    let title: String = title.chars().take(room).collect();
    let rest: String = rule.chars().skip(1 + title.chars().count()).collect();
    format!("+{title}{rest}")
}

fn draw(row: &[String], columns: &[Column<'_>], widths: &[usize], lines: &mut Vec<String>) {
    let cells: Vec<Vec<&str>> = row.iter().map(|cell| cell.split('\n').collect()).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(1);
    for y in 0..height {
        let parts: Vec<String> = cells
            .iter()
            .zip(columns)
            .zip(widths)
            .map(|((cell, column), width)| {
                let text = cell.get(y).copied().unwrap_or_default();
                let fill = " ".repeat(width - text.width());
                if column.is_right { format!(" {fill}{text} ") } else { format!(" {text}{fill} ") }
            })
            .collect();
        lines.push(format!("|{}|", parts.join("|")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_lines_in_a_cell_draw_lines_between_rows() {
        let columns = [Column::left("A"), Column::right("LSN")];
        let rows = vec![vec!["x\ny".to_owned(), "1".to_owned()], vec!["京".to_owned(), String::new()]];
        let drawn = grid(" a title that is long ", &columns, &rows);
        assert_eq!(
            drawn,
            "+ a title t+\n| A  | LSN |\n+----+-----+\n| x  |   1 |\n| y  |     |\n+----+-----+\n| 京 |     |\n+----+-----+"
        );
    }
}
