//! Data sets as folders: `DIR/{train,val[,test]}/<class>/**` and `DIR/<class>/**`, as torchvision's `ImageFolder`
//! takes them.
//!
//! The same extensions, the same order of classes and samples, symbolic links followed. Three differences, because
//! they are what goes wrong in practice: hidden files and folders (`.DS_Store`, `._photo.jpg`, `.ipynb_checkpoints`)
//! are no pictures and no classes; classes are named over all splits, so a missing folder in `val` shifts no index;
//! and whatever is left out is counted.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use walkdir::WalkDir;

use super::{Dataset, DatasetKind, Ignored, Sample, Split, Storage, has_picture_extension};
use crate::error::{Error, Result};

impl Dataset {
    /// Lists the pictures below `root`; reads no picture.
    ///
    /// # Errors
    /// When the folder can't be listed, holds no class, a class without a picture in the training split, or a class
    /// in another split that the training split lacks.
    pub fn scan(root: &Path) -> Result<Self> {
        let root = absolute(root)?;
        if !root.exists() {
            return Err(Error::Dataset {
                path: root,
                problem: "does not exist".to_owned(),
                hint: "check the path: it names a folder of pictures, a table of them, or tar shards".to_owned(),
            });
        }
        if root.is_file() {
            return Err(Error::Dataset {
                path: root,
                problem: "is a file, not a folder of pictures".to_owned(),
                hint: "name the folder that holds one folder per class, or train/ and val/".to_owned(),
            });
        }
        let mut scan = Scan {
            root: &root,
            ignored: Ignored::default(),
            warnings: Vec::new(),
        };
        let top = scan.subfolders(&root)?;
        let splits = split_folders(&root, &top, &mut scan)?;
        let (classes, samples) = match splits {
            Some(splits) => scan.split_layout(&splits)?,
            None if top.is_empty() => scan.without_classes()?,
            None => {
                scan.warn_of_loose_pictures()?;
                scan.flat_layout(&top)?
            }
        };
        let Scan { ignored, warnings, .. } = scan;
        let mut dataset = Self {
            name: root.clone(),
            kind: DatasetKind::Folder,
            root,
            classes,
            samples,
            archives: Vec::new(),
            stamps: Vec::new(),
            ignored,
            warnings,
        };
        dataset.take_val_from_train();
        Ok(dataset)
    }
}

/// The path made absolute, with symbolic links resolved as far as it exists, so that a folder that is gone is still
/// called what it was called when it was there.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let whole = std::path::absolute(path).map_err(Error::io("resolve", path))?;
    let mut existing = whole.as_path();
    let mut rest = Vec::new();
    loop {
        match fs::canonicalize(existing) {
            Ok(resolved) => {
                let mut resolved = resolved;
                for part in rest.into_iter().rev() {
                    match part {
                        Component::ParentDir => drop(resolved.pop()),
                        part => resolved.push(part),
                    }
                }
                return Ok(resolved);
            }
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                let (Some(parent), Some(part)) = (existing.parent(), existing.components().next_back()) else {
                    return Ok(whole);
                };
                rest.push(part);
                existing = parent;
            }
            Err(source) => return Err(Error::io("open", path)(source)),
        }
    }
}

/// The split folders among `top`, or `None` for a flat data set.
///
/// A vehicle data set may have a class called `train`: a folder of that name that holds pictures and no folders is a
/// class. As soon as one of the names has folders below it, it is taken for a split, and all must fit.
fn split_folders(root: &Path, top: &[PathBuf], scan: &mut Scan<'_>) -> Result<Option<Vec<(Split, PathBuf)>>> {
    let mut found: Vec<(Split, PathBuf)> = Vec::new();
    let mut others = Vec::new();
    for folder in top {
        let name = file_name(folder);
        match Split::from_name(&name) {
            Some(split) => found.push((split, folder.clone())),
            None => others.push(name),
        }
    }
    found.sort();
    let mut layered = Vec::new();
    for (_, folder) in &found {
        layered.push(!scan.peek_subfolders(folder)?.is_empty());
    }
    if !layered.contains(&true) {
        return Ok(None);
    }
    let refuse = |path: &Path, problem: String, hint: &str| {
        Err(Error::Dataset {
            path: path.to_path_buf(),
            problem,
            hint: hint.to_owned(),
        })
    };
    if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let (one, other) = (file_name(&pair[0].1), file_name(&pair[1].1));
        let problem = format!(
            "has two folders for the {} split, `{one}` and `{other}`",
            pair[0].0.name()
        );
        return refuse(root, problem, "keep one of them");
    }
    if let Some(((split, folder), _)) = found.iter().zip(&layered).find(|(_, layered)| !**layered) {
        let problem = format!("is the {} split but holds no class folder", split.name());
        return refuse(
            folder,
            problem,
            "put its pictures into one folder per class, or move the folder elsewhere",
        );
    }
    if found[0].0 != Split::Train {
        let problem = format!("has a folder `{}` but no `train`", file_name(&found[0].1));
        return refuse(root, problem, "name the training folder `train`");
    }
    if found.len() == 1 && !others.is_empty() {
        let problem = format!(
            "has `train` with folders in it beside `{}`: is it a split or a class?",
            others.join("`, `")
        );
        return refuse(
            root,
            problem,
            "move the other folders elsewhere, or the pictures of a class `train` directly into it",
        );
    }
    for name in others {
        scan.warnings
            .push(format!("`{name}/` beside train/ is no split and is left out"));
    }
    Ok(Some(found))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'.')
}

/// One walk over a data set's folder: what was left out and what is worth saying.
struct Scan<'a> {
    root: &'a Path,
    ignored: Ignored,
    warnings: Vec<String>,
}

impl Scan<'_> {
    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.root).unwrap_or(path).to_path_buf()
    }

    /// The visible folders in `folder`, sorted by name; other entries are counted as ignored.
    fn subfolders(&mut self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let path = entry.map_err(Error::io("list", folder))?.path();
            let name = path.file_name().unwrap_or_default();
            if is_hidden(name) {
                self.ignored.hidden += 1;
                self.ignored.note_example(self.relative(&path));
            } else if path.is_dir() {
                folders.push(path);
            } else {
                self.ignored.foreign += 1;
                self.ignored.note_example(self.relative(&path));
            }
        }
        folders.sort();
        Ok(folders)
    }

    /// The visible folders in `folder`, counting nothing.
    fn peek_subfolders(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut probe = Scan {
            root: self.root,
            ignored: Ignored::default(),
            warnings: Vec::new(),
        };
        probe.subfolders(folder)
    }

    fn split_layout(&mut self, splits: &[(Split, PathBuf)]) -> Result<(Vec<String>, Vec<Sample>)> {
        let mut per_split = Vec::new();
        for (split, folder) in splits {
            let mut classes = Vec::new();
            for class_folder in self.subfolders(folder)? {
                classes.push((class_name(&class_folder)?, self.pictures(&class_folder)?));
            }
            per_split.push((*split, folder, classes));
        }
        let (_, train_folder, train) = &per_split[0];
        self.require_classes(train_folder, train)?;
        let classes: Vec<String> = train.iter().map(|(name, _)| name.clone()).collect();

        for (split, folder, found) in &per_split[1..] {
            for (name, pictures) in found {
                // One that the training split knows is told with the other problems, once the pictures are read.
                if !classes.contains(name) && pictures.is_empty() {
                    self.warnings.push(format!("{}/{name} holds no picture", split.name()));
                } else if !classes.contains(name) {
                    return Err(Error::Dataset {
                        path: folder.join(name),
                        problem: format!(
                            "is a class that {} lacks, so no head can learn it",
                            train_folder.display()
                        ),
                        hint: format!(
                            "the training classes are {}; rename or remove the folder",
                            classes.join(", ")
                        ),
                    });
                }
            }
        }

        let mut samples = Vec::new();
        for (split, _, found) in per_split {
            for (name, pictures) in found {
                let Some(class) = classes.iter().position(|class| *class == name) else {
                    continue;
                };
                samples.extend(pictures.into_iter().map(|path| sample(path, class, Some(split))));
            }
        }
        Ok((classes, samples))
    }

    /// A folder of pictures and no folders: nothing is labelled.
    fn without_classes(&mut self) -> Result<(Vec<String>, Vec<Sample>)> {
        // They were counted when folders were looked for.
        self.ignored = Ignored::default();
        let root = self.root.to_path_buf();
        let pictures = self.pictures(&root)?;
        if pictures.is_empty() {
            self.require_classes(&root, &[])?;
        }
        self.warnings.push(
            "there is no class folder: the pictures have no labels, and no head can be trained on them".to_owned(),
        );
        let sample = |path| Sample {
            path,
            class: None,
            split: None,
            storage: Storage::File,
        };
        Ok((Vec::new(), pictures.into_iter().map(sample).collect()))
    }

    fn flat_layout(&mut self, folders: &[PathBuf]) -> Result<(Vec<String>, Vec<Sample>)> {
        let mut found = Vec::new();
        for folder in folders {
            found.push((class_name(folder)?, self.pictures(folder)?));
        }
        let root = self.root.to_path_buf();
        self.require_classes(&root, &found)?;
        let classes = found.iter().map(|(name, _)| name.clone()).collect();
        let samples = found.into_iter().enumerate();
        let samples =
            samples.flat_map(|(class, (_, paths))| paths.into_iter().map(move |path| sample(path, class, None)));
        Ok((classes, samples.collect()))
    }

    /// Pictures beside the class folders belong to no class; a folder of pictures that holds another folder looks like this.
    fn warn_of_loose_pictures(&mut self) -> Result<()> {
        let entries = fs::read_dir(self.root).map_err(Error::io("list", self.root))?;
        let names = entries.filter_map(|entry| entry.ok().map(|entry| PathBuf::from(entry.file_name())));
        let is_loose = |name: &PathBuf| {
            has_picture_extension(name) && !is_hidden(name.as_os_str()) && self.root.join(name).is_file()
        };
        let loose = names.filter(is_loose).count();
        if loose > 0 {
            self.warnings.push(format!(
                "pictures beside the class folders belong to no class and are left out: {loose} of them"
            ));
        }
        Ok(())
    }

    fn require_classes(&mut self, folder: &Path, found: &[(String, Vec<PathBuf>)]) -> Result<()> {
        if found.is_empty() {
            let pictures = self.pictures(folder)?.len();
            let problem = match pictures {
                0 => "holds no class folder and no picture".to_owned(),
                count => format!("holds {count} pictures but no class folder"),
            };
            return Err(Error::Dataset {
                path: folder.to_path_buf(),
                problem,
                hint: "put the pictures of each class into a folder of the class's name, `DIR/<class>/*.jpg`"
                    .to_owned(),
            });
        }
        if let Some((name, _)) = found.iter().find(|(_, pictures)| pictures.is_empty()) {
            return Err(Error::Dataset {
                path: folder.join(name),
                problem: "is a class without a picture".to_owned(),
                hint: format!("add pictures ({}) or remove the folder", super::EXTENSIONS.join(", ")),
            });
        }
        if found.len() == 1 {
            self.warnings.push(format!(
                "there is one class only, `{}`: a classifier needs two",
                found[0].0
            ));
        }
        Ok(())
    }

    /// The pictures anywhere below `folder`, in `ImageFolder`'s order: by folder, then by name.
    fn pictures(&mut self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut pictures = Vec::new();
        let mut walk = WalkDir::new(folder).follow_links(true).into_iter();
        while let Some(entry) = walk.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let path = error.path().unwrap_or(folder).to_path_buf();
                    if error.loop_ancestor().is_some() {
                        self.warnings.push(links_back(&path));
                    } else if path.is_symlink() && has_picture_extension(&path) {
                        // A broken link is a picture that can't be read: it is counted as one further down the line.
                        pictures.push(self.relative(&path));
                    } else {
                        let source = error
                            .into_io_error()
                            .unwrap_or_else(|| std::io::Error::other("unknown error"));
                        return Err(Error::io("list", path)(source));
                    }
                    continue;
                }
            };
            let hidden = entry.depth() > 0 && is_hidden(entry.file_name());
            if hidden {
                self.ignored.hidden += 1;
                self.ignored.note_example(self.relative(entry.path()));
                if entry.file_type().is_dir() {
                    walk.skip_current_dir();
                }
            } else if entry.file_type().is_dir() {
                if entry.depth() > 0 && entry.path_is_symlink() && leads_above(entry.path(), folder) {
                    self.warnings.push(links_back(entry.path()));
                    walk.skip_current_dir();
                }
            } else if has_picture_extension(entry.path()) {
                pictures.push(self.relative(entry.path()));
            } else {
                self.ignored.foreign += 1;
                self.ignored.note_example(self.relative(entry.path()));
            }
        }
        // As strings, not as components: `a-b` comes before `a/b`, as in Python's sorted(os.walk(..)).
        pictures.sort_unstable_by(|left, right| folder_and_name(left).cmp(&folder_and_name(right)));
        Ok(pictures)
    }
}

/// The bytes of a path before and behind its last separator.
fn folder_and_name(path: &Path) -> (&[u8], &[u8]) {
    let bytes = path.as_os_str().as_encoded_bytes();
    let is_separator = |byte: &u8| std::path::is_separator(char::from(*byte));
    match bytes.iter().rposition(is_separator) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (&[], bytes),
    }
}

/// Whether a link leads to a folder that `folder` lies in: the pictures of other classes would become this one's.
fn leads_above(link: &Path, folder: &Path) -> bool {
    let (target, folder) = (fs::canonicalize(link), fs::canonicalize(folder));
    matches!((target, folder), (Ok(target), Ok(folder)) if folder.starts_with(&target))
}

fn links_back(link: &Path) -> String {
    format!("`{}` links back to a folder above it and is left out", link.display())
}

fn class_name(folder: &Path) -> Result<String> {
    let name = folder.file_name().unwrap_or_default();
    name.to_str().map(str::to_owned).ok_or_else(|| Error::Dataset {
        path: folder.to_path_buf(),
        problem: "is a class whose name is not valid UTF-8".to_owned(),
        hint: "rename the folder; picture files may have any name".to_owned(),
    })
}

fn sample(path: PathBuf, class: usize, split: Option<Split>) -> Sample {
    let class = u32::try_from(class).expect("a folder holds fewer than 2^32 class folders");
    Sample {
        path,
        class: Some(class),
        split,
        storage: Storage::File,
    }
}
