//! Label texts to class ids.

use std::collections::HashMap;

/// Numbers labels in the order in which they come, and sorts them at the end.
#[derive(Debug, Default)]
pub(crate) struct LabelIds {
    ids: HashMap<String, u32>,
}

impl LabelIds {
    /// The number of `label`.
    pub(crate) fn id(&mut self, label: &str) -> u32 {
        if let Some(id) = self.ids.get(label) {
            return *id;
        }
        let id = u32::try_from(self.ids.len()).expect("there are fewer than 2^32 labels");
        self.ids.insert(label.to_owned(), id);
        id
    }

    /// The labels in order, and for each number that [`LabelIds::id`] gave the label's place in it.
    ///
    /// Integers are sorted by value, so that a class's id is the number that the data set gives it where these begin at 0;
    /// anything else by code point.
    pub(crate) fn sorted(self) -> (Vec<String>, Vec<u32>) {
        let mut labels: Vec<(String, u32)> = self.ids.into_iter().collect();
        labels.sort_by(|left, right| left.0.cmp(&right.0));
        if labels.iter().all(|(label, _)| label.parse::<i64>().is_ok()) {
            labels.sort_by_key(|(label, _)| label.parse::<i64>().ok());
        }
        let mut order = vec![0; labels.len()];
        for (place, (_, id)) in labels.iter().enumerate() {
            order[*id as usize] = u32::try_from(place).expect("there are fewer than 2^32 labels");
        }
        (labels.into_iter().map(|(label, _)| label).collect(), order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_sort_by_value_and_names_by_code_point() {
        let sorted = |labels: &[&str]| {
            let mut ids = LabelIds::default();
            let numbers: Vec<u32> = labels.iter().map(|label| ids.id(label)).collect();
            let (classes, order) = ids.sorted();
            for (label, number) in labels.iter().zip(numbers) {
                assert_eq!(classes[order[number as usize] as usize], *label);
            }
            classes
        };
        assert_eq!(sorted(&["10", "9", "0", "9"]), ["0", "9", "10"]);
        assert_eq!(sorted(&["10", "9", "a"]), ["10", "9", "a"]);
        assert_eq!(sorted(&["b", "B", "a"]), ["B", "a", "b"]);
        assert!(sorted(&[]).is_empty());
    }
}
