//! What was found of many pictures, put together.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Cause, Explanation, Found, Opened, PictureExplanation, SpaceExplanation};
use crate::cache::{PARTIAL, Space};
use crate::space::SpaceDescription;

/// What was found so far; of many pictures only those that are told of are kept.
pub(super) struct Summary {
    images: usize,
    misses: BTreeMap<Cause, usize>,
    /// Of each space, how many of the pictures have a row in it.
    rows: Vec<usize>,
    /// The contents of all.
    contents: HashSet<[u8; 32]>,
    pictures: Vec<PictureExplanation>,
}

impl Summary {
    pub(super) fn new(spaces: usize) -> Self {
        Self {
            images: 0,
            misses: BTreeMap::new(),
            rows: vec![0; spaces],
            contents: HashSet::new(),
            pictures: Vec::new(),
        }
    }

    /// `tell`: whether the picture is told of although it is no miss.
    pub(super) fn add(mut self, found: Found, tell: bool) -> Self {
        let Found {
            explanation,
            content,
            present,
        } = found;
        self.images += 1;
        self.contents.extend(content);
        for (count, present) in self.rows.iter_mut().zip(present) {
            *count += usize::from(present);
        }
        if let Some(cause) = explanation.miss {
            *self.misses.entry(cause).or_insert(0) += 1;
        }
        if tell || explanation.miss.is_some() {
            self.pictures.push(explanation);
        }
        self
    }

    /// This one with the later pictures of `other`.
    pub(super) fn join(mut self, mut other: Self) -> Self {
        self.images += other.images;
        for (cause, count) in other.misses {
            *self.misses.entry(cause).or_insert(0) += count;
        }
        for (count, more) in self.rows.iter_mut().zip(other.rows) {
            *count += more;
        }
        self.contents.extend(other.contents);
        self.pictures.append(&mut other.pictures);
        self
    }

    /// Finds the random views of the pictures in a space, whose place among the spaces is `number`; returns how many there are.
    fn find_views(&mut self, number: usize, rows: &Space) -> usize {
        let mut told: HashMap<String, Vec<u32>> = HashMap::new();
        told.extend(
            self.pictures
                .iter()
                .filter_map(|picture| Some((picture.content.clone()?, Vec::new()))),
        );
        let mut count = 0;
        for key in rows.keys() {
            if key.view & !PARTIAL == 0 || !self.contents.contains(&key.content) {
                continue;
            }
            count += 1;
            if let Some(views) = told.get_mut(&key.content_hex()) {
                views.push(key.view);
            }
        }
        for picture in &mut self.pictures {
            let views = picture.content.as_ref().and_then(|content| told.get(content));
            let mut views = views.cloned().unwrap_or_default();
            views.sort_unstable();
            picture.rows[number].views = views;
        }
        count
    }

    pub(super) fn explanation(mut self, spaces: Vec<Opened>, wanted: Option<&SpaceDescription>) -> Explanation {
        let mut explained = Vec::new();
        for (number, space) in spaces.into_iter().enumerate() {
            explained.push(SpaceExplanation {
                rows: self.rows[number],
                views: self.find_views(number, &space.rows),
                space: space.id,
                backbone: space.origin.map(|origin| origin.name),
                differs: space.differs,
            });
        }
        Explanation {
            wanted: wanted.map(|wanted| wanted.space().id().to_string()),
            images: self.images,
            hits: self.images - self.misses.values().sum::<usize>(),
            misses: self.misses,
            spaces: explained,
            pictures: self.pictures,
        }
    }
}
