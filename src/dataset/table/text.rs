//! Tables that are text: CSV, TSV, JSON Lines, and lists.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::columns::{self, Role, TableColumns, shortened};
use super::rows::Rows;
use super::{RECORD_LIMIT, SNIFF_BYTES, Table};
use crate::error::{Error, Result};

/// What some programs put before UTF-8.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";
const NOT_TEXT: &str = "save the table in UTF-8";

/// Reads a table with a header line.
pub(super) fn read_delimited(
    file: &Path,
    input: &mut dyn BufRead,
    delimiter: u8,
    columns: &TableColumns,
) -> Result<Table> {
    let input = without_bom(file, input)?;
    let lines = Rc::new(RefCell::new(Lines::default()));
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(Numbered {
        input,
        lines: Rc::clone(&lines),
    });
    let mut rows = Rows::new(file, "line");
    let header = reader
        .byte_headers()
        .map_err(|error| csv_error(&rows, &lines, file, error))?;
    let names: Vec<String> = header
        .iter()
        .map(|name| String::from_utf8_lossy(name).trim().to_owned())
        .collect();
    if names.is_empty() {
        return Err(empty(file));
    }
    let places = columns.find(file, &names)?;
    let mut record = csv::ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| csv_error(&rows, &lines, file, error))?
    {
        let line = lines.borrow_mut().of(record.position());
        let text = |place: Option<usize>| {
            place
                .and_then(|place| record.get(place))
                .map(std::str::from_utf8)
                .transpose()
        };
        let not_text = |what| rows.error(line, format!("the {what} is not in UTF-8"), NOT_TEXT);
        let label = text(places.label).map_err(|_| not_text("label"))?;
        let split = text(places.split).map_err(|_| not_text("split"))?;
        rows.push(line, record.get(places.path).unwrap_or_default(), label, split)?;
    }
    Ok(rows.finish())
}

fn csv_error(rows: &Rows<'_>, lines: &RefCell<Lines>, file: &Path, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => Error::io("read", file)(source),
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let problem = format!("there are {len} fields, but {expected_len} columns");
            let line = lines.borrow_mut().of(pos.as_ref());
            rows.error(line, problem, "put quotes around a field that holds a separator")
        }
        other => Error::io("read", file)(io::Error::other(format!("{other:?}"))),
    }
}

/// Where the lines of a text begin that are not blank. The csv crate's own line numbers are those before the line feed
/// of Windows line ends and before blank lines.
#[derive(Default)]
struct Lines {
    /// Offset and number of each such line that was read and not asked for.
    starts: VecDeque<(u64, u64)>,
    offset: u64,
    line_feeds: u64,
    in_line: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    self.line_feeds += 1;
                    self.in_line = false;
                }
                b'\r' if !self.in_line => {}
                _ if self.in_line => {}
                _ => {
                    self.in_line = true;
                    self.starts.push_back((self.offset, self.line_feeds + 1));
                }
            }
            self.offset += 1;
        }
    }

    /// The line of a record that begins at or after `position`, which must not go back.
    fn of(&mut self, position: Option<&csv::Position>) -> u64 {
        let Some(position) = position else { return 0 };
        while self.starts.front().is_some_and(|(offset, _)| *offset < position.byte()) {
            self.starts.pop_front();
        }
        self.starts.front().map_or(position.line(), |(_, line)| *line)
    }
}

/// Notes where lines begin in what passes.
struct Numbered<R> {
    input: R,
    lines: Rc<RefCell<Lines>>,
}

impl<R: Read> Read for Numbered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.lines.borrow_mut().take(&buffer[..count]);
        Ok(count)
    }
}

/// Reads one JSON object a line.
pub(super) fn read_json_lines(file: &Path, input: &mut dyn BufRead, columns: &TableColumns) -> Result<Table> {
    let mut input = without_bom(file, input)?;
    let mut rows = Rows::new(file, "line");
    let mut record = Vec::new();
    let mut number = 0;
    let mut found = [false; 3];
    let mut first_names = Vec::new();
    while read_record(&mut input, b'\n', &mut record).map_err(|problem| problem.into_error(&rows, file, number + 1))? {
        number += 1;
        if record.trim_ascii().is_empty() {
            continue;
        }
        let cells = Object { columns }.read(&record).map_err(|error| {
            let problem = format!("it is no JSON object that can be read: {error}");
            rows.error(number, problem, "each line must be one JSON object")
        })?;
        let mut values: [Option<&Cell>; 3] = [None; 3];
        for (role, value) in Role::ALL.into_iter().zip(&mut values) {
            let mut all = cells.cells.iter().filter(|(of, ..)| *of == role);
            *value = all.next().map(|(.., cell)| cell);
            if all.next().is_some() {
                let all = cells.cells.iter().filter(|(of, ..)| *of == role);
                let several: Vec<&str> = all.map(|(_, name, _)| name.as_str()).collect();
                return Err(columns::ambiguous(file, role, &several, &cells.names));
            }
        }
        for (found, value) in found.iter_mut().zip(&values) {
            *found |= value.is_some();
        }
        if first_names.is_empty() {
            first_names.clone_from(&cells.names);
        }
        let [path, label, split] = values;
        let path = match path {
            Some(Cell::Text(path)) => path,
            Some(Cell::Null) => "",
            Some(_) => return Err(rows.error(number, "the path is no text", "check that the right key is read")),
            None if !found[0] => return Err(columns::absent(file, Role::Path, columns.path.as_deref(), &cells.names)),
            None => return Err(rows.error(number, "there is no path", "fill it in or remove the line")),
        };
        let words = |cell: Option<&Cell>, what| match cell {
            None | Some(Cell::Null) => Ok(None),
            Some(Cell::Text(text)) => Ok(Some(text.clone())),
            Some(Cell::Nested) => {
                let problem = format!("the {what} is a list or an object");
                Err(rows.error(number, problem, "check that the right key is read"))
            }
            Some(Cell::Number(text)) => Ok(Some(text.clone())),
        };
        let (label, split) = (words(label, "label")?, words(split, "split")?);
        rows.push(number, path.as_bytes(), label.as_deref(), split.as_deref())?;
    }
    if number == 0 {
        return Err(empty(file));
    }
    for (role, found) in Role::ALL.into_iter().zip(found) {
        if let Some(named) = columns.named(role).filter(|_| !found) {
            return Err(columns::absent(file, role, Some(named), &first_names));
        }
    }
    Ok(rows.finish())
}

/// A value of a JSON object.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Text(String),
    /// A number or boolean, as text.
    Number(String),
    Nested,
}

/// A number as a label: a whole one has no decimal point, whatever type a program kept it in.
pub(crate) fn number_text(value: f64) -> String {
    // Display of a whole f64 has no point.
    value.to_string()
}

/// Takes the cells that may be needed out of an object and skips the others.
#[derive(Clone, Copy)]
struct Object<'a> {
    columns: &'a TableColumns,
}

#[derive(Default)]
struct Cells {
    cells: Vec<(Role, String, Cell)>,
    /// The keys, for messages.
    names: Vec<String>,
}

impl Object<'_> {
    fn read(self, line: &[u8]) -> serde_json::Result<Cells> {
        let mut deserializer = serde_json::Deserializer::from_slice(line);
        let cells = self.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(cells)
    }
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Cells;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Cells, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Cells;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Cells, A::Error> {
        let mut cells = Cells::default();
        while let Some(name) = map.next_key::<String>()? {
            let mut roles = Role::ALL
                .into_iter()
                .filter(|role| self.columns.fits(*role, &name))
                .peekable();
            if roles.peek().is_none() {
                map.next_value::<IgnoredAny>()?;
            } else {
                let cell = map.next_value_seed(CellSeed)?;
                cells.cells.extend(roles.map(|role| (role, name.clone(), cell.clone())));
            }
            cells.names.push(name);
        }
        Ok(cells)
    }
}

struct CellSeed;

impl<'de> DeserializeSeed<'de> for CellSeed {
    type Value = Cell;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed {
    type Value = Cell;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Cell, E> {
        Ok(Cell::Number(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Cell, E> {
        Ok(Cell::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Cell, E> {
        Ok(Cell::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Cell, E> {
        Ok(Cell::Number(number_text(value)))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Cell, E> {
        Ok(Cell::Text(value.to_owned()))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Cell, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Cell, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Nested)
    }
}

/// See [`super::read_list`].
pub(super) fn read_list(name: &Path, input: &mut dyn BufRead) -> Result<Table> {
    let mut input = without_bom(name, input)?;
    let mut start = Vec::new();
    (&mut input)
        .take(SNIFF_BYTES)
        .read_to_end(&mut start)
        .map_err(Error::io("read", name))?;
    let nul = start.contains(&0);
    let (separator, unit) = if nul { (0, "entry") } else { (b'\n', "line") };
    let mut input = io::Cursor::new(start).chain(input);
    let mut rows = Rows::new(name, unit);
    let mut record = Vec::new();
    let mut number = 0;
    while read_record(&mut input, separator, &mut record)
        .map_err(|problem| problem.into_error(&rows, name, number + 1))?
    {
        number += 1;
        let line = match record.strip_suffix(b"\r") {
            Some(line) if !nul => line,
            _ => record.as_slice(),
        };
        if line.is_empty() {
            continue;
        }
        if !nul && line.contains(&0) {
            let hint = "separate the paths by newlines or by NUL bytes, not by both";
            return Err(rows.error(number, "there is a NUL byte in it", hint));
        }
        let mut fields = line.split(|byte| *byte == b'\t');
        let path = fields.next().unwrap_or_default();
        let mut word = |what| {
            let word = fields.next().map(std::str::from_utf8).transpose();
            word.map_err(|_| rows.error(number, format!("the {what} is not in UTF-8"), NOT_TEXT))
        };
        let (label, split) = (word("label")?, word("split")?);
        if fields.next().is_some() {
            let problem = "there are more than three fields";
            return Err(rows.error(
                number,
                problem,
                "write the path, a tab and the label, a tab and the split",
            ));
        }
        rows.push(number, path, label, split)?;
    }
    Ok(rows.finish())
}

/// Why [`read_record`] gave up.
enum RecordProblem {
    Io(io::Error),
    TooLong,
}

impl RecordProblem {
    fn into_error(self, rows: &Rows<'_>, file: &Path, line: u64) -> Error {
        match self {
            Self::Io(source) => Error::io("read", file)(source),
            Self::TooLong => {
                let problem = format!("it has more than {} MiB", RECORD_LIMIT >> 20);
                rows.error(line, problem, "check that the file is what it should be")
            }
        }
    }
}

/// Reads up to the next separator, which is left out, into `record`; `false` at the end.
fn read_record(
    input: &mut impl BufRead,
    separator: u8,
    record: &mut Vec<u8>,
) -> std::result::Result<bool, RecordProblem> {
    record.clear();
    let mut limited = input.take(RECORD_LIMIT as u64 + 1);
    limited.read_until(separator, record).map_err(RecordProblem::Io)?;
    let any = !record.is_empty();
    if record.last() == Some(&separator) {
        record.pop();
    } else if record.len() > RECORD_LIMIT {
        return Err(RecordProblem::TooLong);
    }
    Ok(any)
}

/// The input without a byte order mark; one of UTF-16 is an error that says so.
fn without_bom<'a>(file: &Path, input: &'a mut dyn BufRead) -> Result<impl BufRead + use<'a>> {
    let mut start = Vec::new();
    (&mut *input)
        .take(BOM.len() as u64)
        .read_to_end(&mut start)
        .map_err(Error::io("read", file))?;
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return Err(Error::Table {
            path: file.to_path_buf(),
            place: None,
            problem: "is in UTF-16".to_owned(),
            hint: NOT_TEXT.to_owned(),
        });
    }
    if start == BOM {
        start.clear();
    }
    Ok(io::Cursor::new(start).chain(input))
}

fn empty(file: &Path) -> Error {
    Error::Table {
        path: file.to_path_buf(),
        place: None,
        problem: "is empty".to_owned(),
        hint: format!(
            "a table begins with a line of column names, such as {}",
            shortened("path,label,split")
        ),
    }
}
