//! The script in docs/ that reads a segment with NumPy alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::Scene;

/// Prints what the module's `read` returns, a line each: content, view, and the row's bytes, in hexadecimal.
const PRINT_ROWS: &str = "
import sys
sys.path.insert(0, sys.argv[1])
import read_segment
header, contents, views, rows = read_segment.read(sys.argv[2])
assert rows.shape == (header['rows'], header['dim']) and header['device'] == 'cpu' and header['runtime']
for content, view, row in zip(contents, views, rows):
    print(content.tobytes().hex(), view, row.tobytes().hex())
";

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `python3` with NumPy; `LASTLAYER_TEST_PYTHON` names another one.
fn python() -> Option<Command> {
    let program = std::env::var_os("LASTLAYER_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let found = Command::new(&program).args(["-c", "import numpy"]).output();
    found
        .is_ok_and(|output| output.status.success())
        .then(|| Command::new(program))
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { segments(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect()
}

#[test]
fn the_script_in_docs_reads_every_row_of_a_segment_bit_by_bit() {
    let Some(mut python) = python() else {
        eprintln!("skipped: there is no python3 with NumPy");
        return;
    };
    let scene = Scene::extracted();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let [segment] = segments(&scene.path("cache")).try_into().unwrap();
    let output = python
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-c", PRINT_ROWS])
        .args([&docs, &segment])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let read: BTreeMap<&str, &str> = printed.lines().map(|line| line.split_once(" 0 ").unwrap()).collect();
    assert_eq!(read.len(), 27);
    let expected: Vec<(String, String)> = scene
        .rows_of("cache")
        .into_values()
        .flatten()
        .map(|(content, row)| {
            let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            (hexadecimal(&content), hexadecimal(&bytes))
        })
        .collect();
    assert_eq!(
        read.into_iter()
            .map(|(content, row)| (content.to_owned(), row.to_owned()))
            .collect::<Vec<_>>(),
        expected
    );
}
