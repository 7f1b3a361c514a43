//! Arithmetic on axis lengths of which some are unknown and one counts the pictures.

/// The length of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dim {
    /// The number of pictures in the batch.
    Batch,
    /// Always this length.
    Known(i64),
    /// Anything, the number of pictures included.
    Unknown,
}

/// An axis counted from the front or, if negative, from the back.
pub(super) fn position(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    (0..rank).contains(&axis).then(|| usize::try_from(axis).ok())?
}

pub(super) fn positions(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    axes.iter().map(|&axis| position(axis, rank)).collect()
}

/// Batch and channels as they are, everything after them `dim`.
pub(super) fn with_tail(shape: &[Dim], dim: Dim) -> Option<Vec<Dim>> {
    let mut out = shape.to_vec();
    out.get_mut(2..)?.fill(dim);
    Some(out)
}

/// Numpy broadcasting, which ONNX uses: <https://onnx.ai/onnx/repo-docs/Broadcasting.html>.
pub(super) fn broadcast(left: &[Dim], right: &[Dim]) -> Vec<Dim> {
    let rank = left.len().max(right.len());
    let at = |shape: &[Dim], axis: usize| match (axis + shape.len()).checked_sub(rank) {
        Some(axis) => shape[axis],
        None => Dim::Known(1),
    };
    let join = |axis| match (at(left, axis), at(right, axis)) {
        (one, other) if one == other => one,
        (Dim::Known(1), other) | (other, Dim::Known(1)) => other,
        (Dim::Batch, Dim::Unknown) | (Dim::Unknown, Dim::Batch) => Dim::Batch,
        (Dim::Known(length), Dim::Unknown) | (Dim::Unknown, Dim::Known(length)) => Dim::Known(length),
        _ => Dim::Unknown,
    };
    (0..rank).map(join).collect()
}

/// Two lengths that the operator requires to be equal.
pub(super) fn agree(one: Dim, other: Dim) -> Dim {
    match (one, other) {
        (Dim::Unknown, dim) | (dim, Dim::Unknown) => dim,
        // A batch beside a fixed length: the graph works for that length only.
        (Dim::Known(length), _) | (_, Dim::Known(length)) => Dim::Known(length),
        (Dim::Batch, Dim::Batch) => Dim::Batch,
    }
}

pub(super) fn add(one: Dim, other: Dim) -> Dim {
    match (one, other) {
        (Dim::Known(one), Dim::Known(other)) => one.checked_add(other).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    }
}

/// The product of `dims`; `None` unless all are known.
pub(super) fn product(dims: &[Dim]) -> Option<i64> {
    dims.iter().try_fold(1i64, |product, dim| match dim {
        Dim::Known(length) => product.checked_mul(*length),
        _ => None,
    })
}

pub(super) fn flatten(shape: Option<&[Dim]>, axis: i64) -> Vec<Dim> {
    let split = shape.and_then(|shape| {
        let axis = if usize::try_from(axis) == Ok(shape.len()) {
            shape.len()
        } else {
            position(axis, shape.len())?
        };
        Some(shape.split_at(axis))
    });
    let Some((rows, columns)) = split else {
        return vec![Dim::Unknown; 2];
    };
    let joined = |dims: &[Dim]| match dims {
        [dim] => *dim,
        dims => product(dims).map_or(Dim::Unknown, Dim::Known),
    };
    vec![joined(rows), joined(columns)]
}

pub(super) fn matmul(left: &[Dim], right: &[Dim]) -> Option<Vec<Dim>> {
    match (left, right) {
        ([rows @ .., _], [_, columns]) => Some([rows, &[*columns]].concat()),
        ([_, _, ..], [_, _, _, ..]) => Some(vec![Dim::Unknown; left.len().max(right.len())]),
        _ => None,
    }
}

pub(super) fn reshape(from: Option<&[Dim]>, target: Option<&[i64]>, target_shape: Option<&[Dim]>) -> Option<Vec<Dim>> {
    let Some(target) = target else {
        // The target is computed at run time: its length is the rank.
        return match target_shape? {
            [Dim::Known(rank)] => Some(vec![
                Dim::Unknown;
                usize::try_from(*rank).ok().filter(|&rank| rank <= 16)?
            ]),
            _ => None,
        };
    };
    let copied = |axis: usize| from.and_then(|from| from.get(axis)).copied().unwrap_or(Dim::Unknown);
    let mut out: Vec<Dim> = target
        .iter()
        .enumerate()
        .map(|(axis, &length)| match length {
            0 => copied(axis),
            1.. => Dim::Known(length),
            _ => Dim::Unknown,
        })
        .collect();
    // The -1: what is left of one picture's elements, or the batch itself if nothing is left.
    if let (Some(open), Some([Dim::Batch, rest @ ..])) = (target.iter().position(|&length| length == -1), from) {
        let others: Vec<Dim> = out
            .iter()
            .enumerate()
            .filter(|(axis, dim)| *axis != open && **dim != Dim::Batch)
            .map(|(_, &d)| d)
            .collect();
        if let (Some(inside), Some(placed @ 1..)) = (product(rest), product(&others)) {
            let batch_placed = out.contains(&Dim::Batch);
            out[open] = match (batch_placed, inside % placed) {
                (true, 0) => Dim::Known(inside / placed),
                (false, _) if inside == placed => Dim::Batch,
                _ => Dim::Unknown,
            };
        }
    }
    Some(out)
}
