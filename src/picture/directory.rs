//! Looks at the directory of a TIFF before its decoder does.
//!
//! The decoder takes memory for what an entry claims before it reads it, and the `image` crate opens it with the
//! decoder's own limit of 256 MiB: ours comes only after the directory was read. So an entry must fit the file here.

/// What is claimed without harm: the decoder may want more than there is of an entry that it then does not read.
const HARMLESS: u64 = 1 << 20;

/// Whether an entry of the first directory claims more bytes than the file has.
pub(super) fn claims_too_much(bytes: &[u8]) -> bool {
    claimed(bytes).is_some_and(|most| most > HARMLESS.max(bytes.len() as u64))
}

/// The bytes of the largest entry; what is beyond the end of the file claims nothing.
fn claimed(bytes: &[u8]) -> Option<u64> {
    let little = match bytes.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let number = |at: u64, width: usize| {
        let field = bytes.get(usize::try_from(at).ok()?..)?.get(..width)?;
        let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if little {
            field.iter().rev().fold(0, add)
        } else {
            field.iter().fold(0, add)
        })
    };
    // BigTIFF has wider numbers.
    let (directory, count_width, entry_bytes, value_width) = match number(2, 2)? {
        42 => (number(4, 4)?, 2, 12, 4),
        43 => (number(8, 8)?, 8, 20, 8),
        _ => return None,
    };
    let first = directory.checked_add(count_width as u64)?;
    let mut most = 0;
    for index in 0..number(directory, count_width)? {
        let Some(entry) = index.checked_mul(entry_bytes).and_then(|skip| first.checked_add(skip)) else {
            break;
        };
        let (Some(kind), Some(count)) = (
            number(entry.saturating_add(2), 2),
            number(entry.saturating_add(4), value_width),
        ) else {
            break;
        };
        most = most.max(count.saturating_mul(value_bytes(kind)));
    }
    Some(most)
}

/// The bytes of one value of a type.
fn value_bytes(kind: u64) -> u64 {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16..=18 => 8,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of two entries, the second with `count` values of type `kind`.
    fn file(little: bool, big: bool, kind: u16, count: u64) -> Vec<u8> {
        let mut bytes = if little { b"II".to_vec() } else { b"MM".to_vec() };
        let mut add = |value: u64, width: usize| {
            if little {
                bytes.extend_from_slice(&value.to_le_bytes()[..width]);
            } else {
                bytes.extend_from_slice(&value.to_be_bytes()[8 - width..]);
            }
        };
        add(if big { 43 } else { 42 }, 2);
        if big {
            add(8, 2);
            add(0, 2);
        }
        add(if big { 16 } else { 8 }, if big { 8 } else { 4 });
        add(2, if big { 8 } else { 2 });
        for (kind, count) in [(3, 1), (u64::from(kind), count)] {
            add(258, 2);
            add(kind, 2);
            for field in [count, 0] {
                add(field, if big { 8 } else { 4 });
            }
        }
        bytes
    }

    #[test]
    fn an_entry_beyond_the_file_is_seen_in_either_byte_order_and_width() {
        for (little, big) in [(true, false), (false, false), (true, true), (false, true)] {
            for (kind, size) in [(2, 1), (3, 2), (4, 4), (12, 8), (16, 8)] {
                let limit = HARMLESS / size;
                assert!(!claims_too_much(&file(little, big, kind, limit)), "{kind}");
                assert!(claims_too_much(&file(little, big, kind, limit + 1)), "{kind}");
            }
        }
        let long = [file(true, false, 4, 1 << 19), vec![0; 2 << 20]].concat();
        assert!(!claims_too_much(&long), "the file has them");
        assert!(claims_too_much(&file(true, true, 4, u64::MAX)));
    }

    #[test]
    fn what_is_cut_off_claims_nothing() {
        let whole = file(true, true, 4, u64::MAX);
        for end in 0..whole.len() - 8 {
            assert!(!claims_too_much(&whole[..end]), "{end}");
        }
    }
}
