//! Tables for people: what `ls` prints on a terminal.

use clap::{Args, ValueEnum};
use lib_common::error::printable;

/// `--output` of verbs that print lists.
#[derive(Args, Clone, Copy, Debug)]
pub struct Output {
    /// A table, or JSON lines; a table is the default on a terminal
    #[arg(long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// What `--output` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // What is documented here stands in the help of each tool.
pub enum Format {
    Table,
    Json,
}

impl Format {
    /// Whether it is a table.
    pub fn is_table(self) -> bool {
        self == Format::Table
    }
}

impl Output {
    /// Whether it is to be a table, where that was said.
    pub fn table(self) -> Option<bool> {
        self.output.map(Format::is_table)
    }
}

/// Columns as wide as their widest cell, two blanks between, the last one ragged.
pub fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut lines = vec![head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()));
    let width =
        |column: usize| lines.iter().filter_map(|l| l.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, w)| format!("{cell:w$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Bytes as people say them: `2.0G`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "K", "M", "G", "T"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{value:.1}{}", units[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up_and_control_characters_do_not_get_through() {
        let rows = [vec!["dev".into(), "running".into()], vec!["a-longer-name".into(), "x\u{1b}[2J".into()]];
        let table = super::render(&["NAME", "STATE"], &rows);
        assert_eq!(table, "NAME           STATE\ndev            running\na-longer-name  x\\u{1b}[2J\n");
        assert_eq!((super::size(512), super::size(2 << 30)), ("512B".into(), "2.0G".into()));
    }
}
