//! Rows on stdout, for people in columns and for programs as JSON.

use serde_json::{Map, Value};
use std::io::Write;

/// Rows of the same columns.
pub(super) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub(super) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: as many cells as there are columns.
    pub(super) fn row(&mut self, cells: Vec<Value>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            serde_json::to_writer_pretty(&mut out, &self.json())?;
            writeln!(out)?;
        } else {
            out.write_all(self.text().as_bytes())?;
        }
        Ok(())
    }

    /// The rows as JSON objects.
    pub(super) fn json(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let fields = self.columns.iter().zip(row).map(|(name, cell)| (key(name), cell.clone()));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }

    fn text(&self) -> String {
        let cells: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let width = |i: usize| {
            cells.iter().map(|row| row[i].chars().count()).chain([self.columns[i].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let numeric: Vec<bool> = (0..self.columns.len())
            .map(|i| {
                !self.rows.is_empty() && self.rows.iter().all(|row| row[i].is_number() || row[i].is_null())
            })
            .collect();
        let mut out = String::new();
        let header: Vec<String> = self.columns.iter().map(|name| name.to_uppercase()).collect();
        for row in std::iter::once(&header).chain(&cells) {
            let line: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(i, text)| {
                    let width = widths[i];
                    if numeric[i] { format!("{text:>width$}") } else { format!("{text:<width$}") }
                })
                .collect();
            out.push_str(line.join("  ").trim_end());
            out.push('\n');
        }
        out
    }
}

fn key(column: &str) -> String {
    column.replace([' ', '-'], "_")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::Table;
    use serde_json::json;

    #[test]
    fn numbers_stand_right_and_text_left() {
        let mut table = Table::new(&["topic", "end offset"]);
        table.row(vec![json!("flights"), json!(336_776)]);
        table.row(vec![json!("a"), json!(null)]);
        assert_eq!(table.text(), "TOPIC    END OFFSET\nflights      336776\na                 -\n");
        assert_eq!(table.json()[0]["end_offset"], 336_776);
    }
}
