//! The pictures that `predict` is given: files, folders, patterns, and a list on stdin.

use std::ffi::OsStr;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::output::Result;
use crate::dataset::{has_picture_extension, pattern};
use crate::error::Error;

/// Kinds of picture that are looked at in folders beside those of a data set: most can be read, and for the others a
/// person wants to be told that they can't.
const MORE_EXTENSIONS: [&str; 14] = [
    "gif", "jpe", "jfif", "pbm", "pnm", "avif", "heic", "heif", "jp2", "jxl", "tga", "ico", "svg", "psd",
];

/// The files that `arguments` name, in their order; files in folders by path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) files: Vec<PathBuf>,
    /// Files in folders that are no pictures by their name.
    pub(super) left_out: usize,
    /// Arguments that name nothing; one line each.
    pub(super) warnings: Vec<String>,
}

impl Inputs {
    /// Expands the arguments. `stdin` is read when one of them is `-`: one path a line.
    pub(super) fn expand(arguments: &[PathBuf], stdin: &mut dyn BufRead) -> Result<Self> {
        let mut inputs = Self::default();
        for argument in arguments {
            if argument.as_os_str() == "-" {
                inputs.add_lines(stdin)?;
            } else if argument.is_dir() {
                inputs.add_folder(argument);
            } else if let Some(text) = argument
                .to_str()
                .filter(|text| !argument.exists() && pattern::is_pattern(text))
            {
                inputs.add_pattern(text)?;
            } else {
                inputs.files.push(argument.clone());
            }
        }
        Ok(inputs)
    }

    fn add_lines(&mut self, stdin: &mut dyn BufRead) -> Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if stdin.read_until(b'\n', &mut line).map_err(Error::io("read", "stdin"))? == 0 {
                return Ok(());
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if !text.is_empty() {
                self.files.push(path_of(text));
            }
        }
    }

    fn add_folder(&mut self, folder: &Path) {
        let before = self.files.len();
        let visible = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || entry.file_name().as_encoded_bytes().first() != Some(&b'.')
        };
        for entry in WalkDir::new(folder)
            .follow_links(true)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(visible)
        {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) if looks_like_picture(entry.path()) => self.files.push(entry.into_path()),
                Ok(_) => self.left_out += 1,
                // A broken link is a picture that can't be read; a folder that can't be listed is worth a line.
                Err(error) => match error
                    .path()
                    .filter(|path| path.is_symlink() && looks_like_picture(path))
                {
                    Some(path) => self.files.push(path.to_path_buf()),
                    None => self.warnings.push(format!("{error}")),
                },
            }
        }
        if self.files.len() == before {
            self.warnings.push(format!("{} holds no picture", folder.display()));
        }
    }

    /// Adds what matches `pattern`.
    fn add_pattern(&mut self, text: &str) -> Result<()> {
        let before = self.files.len();
        for path in pattern::matching(text)? {
            if path.is_dir() {
                self.add_folder(&path);
            } else {
                self.files.push(path);
            }
        }
        if self.files.len() == before {
            self.warnings.push(format!("nothing matches {text}"));
        }
        Ok(())
    }
}

fn looks_like_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    has_picture_extension(path)
        || extension.is_some_and(|extension| {
            MORE_EXTENSIONS
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        })
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn files_folders_patterns_and_lists_are_expanded() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("b/.hidden")).unwrap();
        for name in [
            "b/2.jpg",
            "b/10.PNG",
            "b/notes.txt",
            "b/.x.jpg",
            "b/.hidden/y.jpg",
            "a.jpg",
            "c.gif",
        ] {
            std::fs::write(root.join(name), b"x").unwrap();
        }
        let expand = |arguments: &[&str], stdin: &str| {
            let arguments: Vec<PathBuf> = arguments
                .iter()
                .map(|argument| {
                    if *argument == "-" {
                        PathBuf::from("-")
                    } else {
                        root.join(argument)
                    }
                })
                .collect();
            let inputs = Inputs::expand(&arguments, &mut stdin.as_bytes()).unwrap();
            let names: Vec<String> = inputs
                .files
                .iter()
                .map(|path| {
                    path.strip_prefix(root)
                        .unwrap_or(path)
                        .to_str()
                        .unwrap()
                        .replace('\\', "/")
                })
                .collect();
            (names, inputs.left_out, inputs.warnings.len())
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            expand(&["b", "missing.jpg"], ""),
            (names(&["b/10.PNG", "b/2.jpg", "missing.jpg"]), 1, 0)
        );
        assert_eq!(expand(&["*.jpg", "c.gif"], ""), (names(&["a.jpg", "c.gif"]), 0, 0));
        assert_eq!(
            expand(&["*.webp", "b/.hidden/*"], ""),
            (names(&["b/.hidden/y.jpg"]), 0, 1)
        );
        assert_eq!(
            expand(&["-"], "one.jpg\r\n\ntwo words.jpg"),
            (names(&["one.jpg", "two words.jpg"]), 0, 0)
        );
    }
}
