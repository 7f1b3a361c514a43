//! The features of a picture's views, brought together again on the caller's thread.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::{Outcome, Processed, Seen};
use crate::error::Result;
use crate::picture::PictureError;
use crate::views::View;

/// How often the caller's thread gets its turn when no result comes.
const TICK: Duration = Duration::from_millis(200);

/// What the threads tell the caller's.
pub(super) enum Told {
    /// A picture that came to its end before it was decoded.
    Ended(Processed),
    /// The feature of one view.
    Feature(Seen, Result<Vec<f32>, PictureError>),
}

/// The features of a picture of which some are on their way.
#[derive(Default)]
struct Gathered {
    features: Vec<(View, Vec<f32>)>,
    failure: Option<PictureError>,
    count: usize,
}

/// Hands pictures over to `sink` as they are complete, and every now and then `None`, until no thread has more to tell.
pub(super) fn collect(
    collected: &Receiver<Result<Told>>,
    sink: &mut dyn FnMut(Option<Processed>) -> Result<()>,
) -> Result<()> {
    // Pictures whose last view is still to come; a run that is stopped leaves them out.
    let mut gathered: HashMap<usize, Gathered> = HashMap::new();
    loop {
        match collected.recv_timeout(TICK) {
            Ok(told) => match told? {
                Told::Ended(processed) => sink(Some(processed))?,
                Told::Feature(seen, feature) => {
                    if let Some(processed) = gather(&mut gathered, seen, feature) {
                        sink(Some(processed))?;
                    }
                }
            },
            Err(RecvTimeoutError::Timeout) => sink(None)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Puts the feature of a view with the others of its picture; gives the picture once they are complete. One of them that
/// can't be had is a failure of the picture.
fn gather(
    gathered: &mut HashMap<usize, Gathered>,
    seen: Seen,
    feature: Result<Vec<f32>, PictureError>,
) -> Option<Processed> {
    let mut picture = gathered.remove(&seen.subject.index).unwrap_or_default();
    picture.count += 1;
    match feature {
        Ok(feature) => picture.features.push((seen.view, feature)),
        Err(error) => picture.failure = Some(error),
    }
    if picture.count < seen.of {
        gathered.insert(seen.subject.index, picture);
        return None;
    }
    picture.features.sort_unstable_by_key(|(view, _)| *view);
    Some(seen.subject.came_to(match picture.failure {
        Some(error) => Outcome::Failed(error),
        None => Outcome::Features(picture.features, seen.completeness),
    }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Subject;
    use super::*;
    use crate::dataset::Stamp;
    use crate::picture::{Completeness, Reason};
    use crate::views::RandomViews;

    /// The views of picture `index`: the plain one and two random ones.
    fn seen(index: usize) -> Vec<Seen> {
        let random = RandomViews::new(2, 0).unwrap();
        let views: Vec<View> = std::iter::once(View::Plain).chain(random.iter()).collect();
        let seen = |(number, view): (usize, &View)| Seen {
            subject: Subject {
                index,
                stamp: Stamp::default(),
                content: Some([index as u8; 32]),
            },
            completeness: Completeness::Whole,
            view: *view,
            following: views.len() - number - 1,
            of: views.len(),
        };
        views.iter().enumerate().map(seen).collect()
    }

    #[test]
    fn views_come_together_with_their_own_picture_whatever_order_they_come_in() {
        let (first, second) = (seen(0), seen(1));
        let mut gathered = HashMap::new();
        let mut complete = Vec::new();
        for (seen, value) in [
            (first[2], 2.0),
            (second[0], 10.0),
            (first[0], 0.0),
            (second[1], 11.0),
            (first[1], 1.0),
        ] {
            complete.extend(gather(&mut gathered, seen, Ok(vec![value])));
        }
        assert_eq!(complete.len(), 1);
        let Outcome::Features(features, _) = &complete[0].outcome else {
            panic!("{:?}", complete[0])
        };
        assert_eq!((complete[0].index, complete[0].content), (0, Some([0; 32])));
        let values: Vec<(View, f32)> = features.iter().map(|(view, feature)| (*view, feature[0])).collect();
        assert_eq!(
            values,
            [(first[0].view, 0.0), (first[1].view, 1.0), (first[2].view, 2.0)]
        );
        assert_eq!(gathered.len(), 1, "the other waits for its last view");
    }

    #[test]
    fn a_view_without_a_feature_fails_its_picture_once() {
        let error = PictureError::new(Reason::Unsupported, "infinite");
        let mut gathered = HashMap::new();
        let told = seen(3);
        assert!(gather(&mut gathered, told[1], Err(error.clone())).is_none());
        assert!(gather(&mut gathered, told[0], Ok(vec![1.0])).is_none());
        let processed = gather(&mut gathered, told[2], Ok(vec![1.0])).unwrap();
        assert!(matches!(processed.outcome, Outcome::Failed(found) if found == error));
        assert!(gathered.is_empty());
    }
}
