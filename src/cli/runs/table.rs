//! Columns of text.

use std::io::{self, Write};

/// A table: numbers to the right, all else to the left.
#[derive(Debug)]
pub(super) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            heading: heading.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of as many cells as the heading has.
    pub(super) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Writes it with two spaces between columns.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let lines = || std::iter::once(&self.heading).chain(&self.rows);
        let width = |column: usize| lines().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.heading.len()).map(width).collect();
        let number = |cell: &str| cell.split(' ').next().is_some_and(|word| word.parse::<f64>().is_ok());
        let is_numeric = |column: usize| self.rows.iter().all(|row| row[column] == "-" || number(&row[column]));
        let right: Vec<bool> = (0..self.heading.len()).map(is_numeric).collect();
        for row in lines() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.chars().count());
                if column > 0 {
                    line.push_str("  ");
                }
                match right[column] {
                    true => line.extend([padding.as_str(), cell]),
                    false => line.extend([cell.as_str(), &padding]),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
