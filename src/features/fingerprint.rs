//! Which rows a head was trained and validated on, as a hash: whether a later run would see the same data, and if not,
//! where they differ.

use serde::{Deserialize, Serialize};

use crate::cache::RowKey;
use crate::dataset::Split;

/// Says which version of the hashed bytes it is.
const DOMAIN: &[u8; 16] = b"lastlayer data 1";

/// The identity of the rows of a data set, in their order, with their labels and splits.
///
/// `id` is the blake3 of these bytes, integers little-endian:
///
/// | bytes | what |
/// |---|---|
/// | 16 | `lastlayer data 1` |
/// | 8 | number of classes |
/// | 8 + length | each class's name in the head's order: length in bytes, then UTF-8 |
/// | 41 | each row: the training pictures' plain views, their first random views, second …, the validation pictures' plain views; content blake3 32, view u32, class u32 (an index into the names), split u8 (0 train, 1 val, 2 test) |
///
/// No path is in it: renamed or moved pictures are the same data, if they come in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataFingerprint {
    /// blake3, hexadecimal.
    pub id: String,
    /// Number of rows.
    pub rows: u64,
    /// Class names.
    pub classes: Vec<String>,
    /// The same by split and class, to tell where data differ; parts without a row are left out.
    pub parts: Vec<FingerprintPart>,
}

/// The rows of one class in one split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintPart {
    /// The split.
    pub split: Split,
    /// Index into [`DataFingerprint::classes`].
    pub class: u32,
    /// Number of rows.
    pub rows: u64,
    /// A sum over the rows in whatever order, hexadecimal; tells other pictures from the same ones.
    pub sum: String,
}

impl DataFingerprint {
    /// The fingerprint of rows in the order they are used; a class is an index into `classes`.
    ///
    /// # Panics
    /// If a class has no name.
    #[must_use]
    pub fn of(classes: &[String], rows: impl IntoIterator<Item = (RowKey, u32, Split)>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DOMAIN);
        hasher.update(&(classes.len() as u64).to_le_bytes());
        for name in classes {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
        }
        let splits = [Split::Train, Split::Val, Split::Test];
        let mut parts = vec![(0_u64, 0_u64); splits.len() * classes.len()];
        let mut count = 0;
        for (key, class, split) in rows {
            let mut row = [0_u8; 41];
            row[..32].copy_from_slice(&key.content);
            row[32..36].copy_from_slice(&key.view.to_le_bytes());
            row[36..40].copy_from_slice(&class.to_le_bytes());
            row[40] = split as u8;
            hasher.update(&row);
            let part = &mut parts[split as usize * classes.len() + class as usize];
            *part = (part.0 + 1, part.1.wrapping_add(key.table_hash()));
            count += 1;
        }
        let part = |(index, &(rows, sum)): (usize, &(u64, u64))| {
            (rows > 0).then(|| FingerprintPart {
                split: splits[index / classes.len()],
                class: (index % classes.len()) as u32,
                rows,
                sum: format!("{sum:016x}"),
            })
        };
        Self {
            id: hasher.finalize().to_hex().to_string(),
            rows: count,
            classes: classes.to_vec(),
            parts: parts.iter().enumerate().filter_map(part).collect(),
        }
    }

    /// What is different in these data from those of `before`, one line each; empty where they are the same.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        if self.id == before.id {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let missing = |from: &[String], of: &[String]| -> Vec<String> {
            let names = of.iter().filter(|name| !from.contains(name));
            names.map(|name| format!("`{name}`")).collect()
        };
        let (gone, new) = (
            missing(&self.classes, &before.classes),
            missing(&before.classes, &self.classes),
        );
        for (names, what) in [(gone, "gone"), (new, "new")] {
            if !names.is_empty() {
                let class = if names.len() == 1 { "class" } else { "classes" };
                changes.push(format!("{class} {}: {what}", names.join(", ")));
            }
        }
        if changes.is_empty() && self.classes != before.classes {
            changes.push("the classes come in another order".to_owned());
        }
        for (split, class, then) in before.named() {
            let now = self.named().find(|(other, name, _)| (*other, *name) == (split, class));
            let place = format!("{}, class `{class}`", split.name());
            match now {
                None => changes.push(format!("{place}: {} then, none now", then.counted())),
                Some((_, _, now)) if now.rows != then.rows => {
                    changes.push(format!("{place}: {} then, {} now", then.counted(), now.rows));
                }
                Some((_, _, now)) if now.sum != then.sum => {
                    changes.push(format!("{place}: {} as before, of other pictures", then.counted()));
                }
                Some(_) => {}
            }
        }
        for (split, class, now) in self.named() {
            if !before.named().any(|(other, name, _)| (other, name) == (split, class)) {
                let now = now.counted();
                changes.push(format!("{}, class `{class}`: {now} now, none then", split.name()));
            }
        }
        if changes.is_empty() {
            changes.push("the same rows come in another order".to_owned());
        }
        changes
    }

    /// The parts with their classes' names.
    fn named(&self) -> impl Iterator<Item = (Split, &str, &FingerprintPart)> {
        self.parts.iter().map(|part| {
            // A file from elsewhere may say anything.
            let name = self.classes.get(part.class as usize).map_or("?", String::as_str);
            (part.split, name, part)
        })
    }
}

impl FingerprintPart {
    fn counted(&self) -> String {
        let plural = if self.rows == 1 { "" } else { "s" };
        format!("{} row{plural}", self.rows)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    type Row = (RowKey, u32, Split);

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn row(content: u8, view: u32, class: u32, split: Split) -> Row {
        let key = RowKey {
            content: *blake3::hash(&[content]).as_bytes(),
            view,
        };
        (key, class, split)
    }

    fn rows() -> Vec<Row> {
        vec![
            row(1, 0, 0, Split::Train),
            row(2, 0, 0, Split::Train),
            row(3, 0, 1, Split::Train),
            row(4, 0, 1, Split::Val),
        ]
    }

    #[test]
    fn it_is_the_blake3_of_the_bytes_that_are_documented() {
        let mut bytes = b"lastlayer data 1".to_vec();
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend("ant".as_bytes());
        bytes.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend("bé".as_bytes());
        bytes.extend(blake3::hash(&[9]).as_bytes());
        bytes.extend([0, 0, 0, 0x80]);
        bytes.extend([1, 0, 0, 0]);
        bytes.push(1);
        let made = DataFingerprint::of(&names(&["ant", "bé"]), [row(9, 1 << 31, 1, Split::Val)]);
        assert_eq!(made.id, blake3::hash(&bytes).to_hex().as_str());
        assert_eq!(made.rows, 1);
    }

    #[test]
    fn any_change_of_the_rows_is_another_fingerprint_and_is_told() {
        let classes = names(&["ant", "bee"]);
        let before = DataFingerprint::of(&classes, rows());
        let json = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<DataFingerprint>(&json).unwrap(), before);
        assert_eq!(before.changes_since(&before), [""; 0]);
        let told = |edit: &dyn Fn(&mut Vec<String>, &mut Vec<Row>)| {
            let (mut classes, mut rows) = (classes.clone(), rows());
            edit(&mut classes, &mut rows);
            let now = DataFingerprint::of(&classes, rows);
            assert_ne!(now.id, before.id);
            now.changes_since(&before)
        };
        assert_eq!(
            told(&|_, rows| rows[0] = row(7, 0, 0, Split::Train)),
            ["train, class `ant`: 2 rows as before, of other pictures"]
        );
        assert_eq!(
            told(&|_, rows| rows[0].0.view = 1),
            ["train, class `ant`: 2 rows as before, of other pictures"]
        );
        assert_eq!(
            told(&|_, rows| rows.swap(0, 1)),
            ["the same rows come in another order"]
        );
        assert_eq!(
            told(&|_, rows| rows[1].2 = Split::Val),
            [
                "train, class `ant`: 2 rows then, 1 now",
                "val, class `ant`: 1 row now, none then"
            ]
        );
        assert_eq!(
            told(&|_, rows| rows[3].1 = 0),
            [
                "val, class `bee`: 1 row then, none now",
                "val, class `ant`: 1 row now, none then"
            ]
        );
        assert_eq!(
            told(&|_, rows| rows.truncate(3)),
            ["val, class `bee`: 1 row then, none now"]
        );
        assert_eq!(told(&|classes, _| classes.push("cat".to_owned())), ["class `cat`: new"]);
        let renamed = told(&|classes, _| classes[1] = "wasp".to_owned());
        assert_eq!(renamed[..2], ["class `bee`: gone", "class `wasp`: new"]);
        let swapped = told(&|classes, rows| {
            classes.swap(0, 1);
            rows.iter_mut().for_each(|row| row.1 = 1 - row.1);
        });
        assert_eq!(swapped, ["the classes come in another order"]);
    }
}
