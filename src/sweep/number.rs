//! Numbers of a sweep: the points of a range, and the shortest text of each.

/// The digits that a point between the ends of a range is rounded to, so that it can be read and typed.
const DIGITS: usize = 6;

/// The number that `text` is, if it is a finite one.
pub(super) fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// `count` points from `first` to `last`, both ends exact.
///
/// The others are rounded to six significant digits, unless the points lie so close that this would move them noticeably.
pub(super) fn points(first: f64, last: f64, count: usize, logarithmic: bool) -> Vec<f64> {
    let exact = |index: usize| {
        let share = index as f64 / (count - 1) as f64;
        if logarithmic {
            (first.ln() + share * (last.ln() - first.ln())).exp()
        } else {
            first + share * (last - first)
        }
    };
    let step = |index: usize| exact(index + 1) - exact(index);
    let narrowest = step(0).min(step(count - 2));
    let point = |index: usize| match index {
        0 => first,
        index if index == count - 1 => last,
        index => {
            let value = exact(index);
            let rounded = round(value);
            if (rounded - value).abs() <= 1e-3 * narrowest {
                rounded
            } else {
                value
            }
        }
    };
    (0..count).map(point).collect()
}

fn round(value: f64) -> f64 {
    let digits = format!("{value:.*e}", DIGITS - 1);
    digits.parse().expect("a formatted number is one")
}

/// The shortest text that reads as `value` again; whole numbers below ten million are written out, because options that
/// count know no exponent.
pub(super) fn shortest(value: f64) -> String {
    let (plain, scientific) = (format!("{value}"), format!("{value:e}"));
    let counts = value.fract() == 0.0 && value.abs() < 1e7;
    if counts || plain.len() <= scientific.len() {
        plain
    } else {
        scientific
    }
}

/// A value's text: numbers in their shortest form, anything else as it is.
pub(crate) fn shortest_text(text: &str) -> String {
    if let Ok(whole) = text.parse::<u64>() {
        return whole.to_string();
    }
    finite(text).map_or_else(|| text.to_owned(), shortest)
}
