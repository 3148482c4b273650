//! Operators that move elements: the rows of a batch stay its first dimension.

use super::OnnxError;
use super::tensor::{Budget, Tensor};

type Made = Result<Tensor, OnnxError>;

fn wrong<T>(problem: impl Into<String>) -> Result<T, OnnxError> {
    Err(OnnxError::Problem(problem.into()))
}

/// The numbers of a constant.
///
/// # Errors
/// A tensor that depends on the rows.
pub fn constant(tensor: &Tensor) -> Result<Vec<i64>, OnnxError> {
    if tensor.batch {
        return wrong("a shape, index or axis depends on the rows");
    }
    Ok(tensor.data.iter().map(|&value| value as i64).collect())
}

/// An axis that may be counted from the end; never the rows of a batch.
///
/// # Errors
/// No such axis, or the rows.
pub fn axis(x: &Tensor, axis: i64) -> Result<usize, OnnxError> {
    let rank = x.shape.len() as i64;
    let at = if axis < 0 { axis.saturating_add(rank) } else { axis };
    match usize::try_from(at) {
        Ok(0) if x.batch => wrong("it would mix the rows of a batch"),
        Ok(at) if at < x.shape.len() => Ok(at),
        _ => wrong("its axis does not exist"),
    }
}

/// Sizes before, along and after an axis.
#[must_use]
pub fn around(x: &Tensor, axis: usize) -> (usize, usize, usize) {
    let product = |sizes: &[usize]| sizes.iter().product::<usize>();
    let size = x.shape.get(axis).copied().unwrap_or(1);
    (product(x.shape.get(..axis).unwrap_or_default()), size, product(x.shape.get(axis + 1..).unwrap_or_default()))
}

/// The same elements in another shape; `wanted` may hold 0 (as it was) and one −1 (what is left).
///
/// # Errors
/// Another number of elements, or rows that are torn apart.
pub fn reshape(x: &Tensor, wanted: &[i64], budget: &mut Budget) -> Made {
    let kept = wanted.iter().enumerate().map(|(i, &size)| match size {
        0 => x.shape.get(i).and_then(|&size| i64::try_from(size).ok()).ok_or(()),
        size if size >= -1 => Ok(size),
        _ => Err(()),
    });
    let Ok(sizes) = kept.collect::<Result<Vec<i64>, ()>>() else { return wrong("its shape is none") };
    let (sizes, total) = if x.batch {
        // The first dimension has to come out as the rows: as 0, as what is left, or as what is left for the others.
        if !matches!(wanted.first(), Some(0 | -1)) {
            return wrong("its shape fixes the number of rows\nhelp: export it with a dynamic batch size");
        }
        (&sizes[1..], x.width())
    } else {
        (&sizes[..], x.data.len())
    };
    let known = sizes.iter().filter(|&&size| size >= 0).try_fold(1usize, |all, &size| all.checked_mul(size as usize));
    let open = sizes.iter().filter(|&&size| size < 0).count();
    let Some(known) = known else { return wrong("its shape is too large") };
    if open > 1 || (x.batch && open == 1 && wanted.first() == Some(&-1)) {
        return wrong("its shape has two open sizes");
    }
    let rest = if open == 1 { total.checked_div(known).unwrap_or(0) } else { 1 };
    if known.checked_mul(rest) != Some(total) {
        return wrong("its shape has another number of elements");
    }
    let rows = x.batch.then(|| x.rows());
    let inner = sizes.iter().map(|&size| if size < 0 { rest } else { size as usize });
    let shape: Vec<usize> = rows.into_iter().chain(inner).collect();
    budget.tensor(&shape)?;
    Ok(Tensor { shape, ..x.clone() })
}

/// [N, everything else]; `from` is the first axis of what becomes the second dimension.
///
/// # Errors
/// Rows that are torn apart.
pub fn flatten(x: &Tensor, from: i64, budget: &mut Budget) -> Made {
    let rank = x.shape.len() as i64;
    let from = if from < 0 { from.saturating_add(rank) } else { from };
    if x.batch && from != 1 {
        return wrong("it would mix the rows of a batch");
    }
    let Some((first, second)) = usize::try_from(from).ok().and_then(|from| x.shape.split_at_checked(from)) else {
        return wrong("its axis does not exist");
    };
    let shape = vec![first.iter().product(), second.iter().product()];
    budget.tensor(&shape)?;
    Ok(Tensor { shape, ..x.clone() })
}

/// Without the axes of size 1: these, or all.
///
/// # Errors
/// An axis of another size.
pub fn squeeze(x: &Tensor, axes: Option<&[i64]>, budget: &mut Budget) -> Made {
    let gone: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|&own| axis(x, own)).collect::<Result<_, _>>()?,
        None => (usize::from(x.batch)..x.shape.len()).filter(|&at| x.shape[at] == 1).collect(),
    };
    if gone.iter().any(|&at| x.shape[at] != 1) {
        return wrong("it squeezes a dimension that is not 1");
    }
    budget.tensor(&x.shape)?;
    let kept = x.shape.iter().enumerate().filter(|(at, _)| !gone.contains(at));
    Ok(Tensor { shape: kept.map(|(_, &size)| size).collect(), ..x.clone() })
}

/// With further axes of size 1.
///
/// # Errors
/// Axes that do not exist.
pub fn unsqueeze(x: &Tensor, axes: &[i64], budget: &mut Budget) -> Made {
    let rank = x.shape.len().saturating_add(axes.len());
    if rank > super::tensor::MAX_RANK {
        return Err(OnnxError::Limit { what: "dimensions of a tensor", limit: super::tensor::MAX_RANK });
    }
    let mut new = Vec::new();
    for &own in axes {
        let at = usize::try_from(if own < 0 { own.saturating_add(rank as i64) } else { own });
        match at {
            Ok(0) if x.batch => return wrong("it would mix the rows of a batch"),
            Ok(at) if at < rank && !new.contains(&at) => new.push(at),
            _ => return wrong("its axis does not exist"),
        }
    }
    let mut old = x.shape.iter();
    let shape: Vec<usize> =
        (0..rank).map(|at| if new.contains(&at) { 1 } else { old.next().copied().unwrap_or(1) }).collect();
    budget.tensor(&shape)?;
    Ok(Tensor { shape, ..x.clone() })
}

/// One behind the other along an axis.
///
/// # Errors
/// Other shapes besides the axis, or constants between batches.
pub fn concat(all: &[&Tensor], at: i64, budget: &mut Budget) -> Made {
    let Some(&first) = all.first() else { return wrong("it has no input") };
    let at = axis(first, at)?;
    let fits = |x: &&&Tensor| {
        x.batch == first.batch
            && x.kind == first.kind
            && x.shape.len() == first.shape.len()
            && x.shape.iter().zip(&first.shape).enumerate().all(|(i, (a, b))| i == at || a == b)
    };
    if !all.iter().all(|x| fits(&x)) {
        return wrong("its inputs differ in more than the axis");
    }
    let mut shape = first.shape.clone();
    shape[at] = all.iter().fold(0usize, |sum, x| sum.saturating_add(x.shape[at]));
    let mut data = Vec::with_capacity(budget.tensor(&shape)?);
    let (outer, _, _) = around(first, at);
    budget.work(outer.saturating_mul(all.len()))?;
    for i in 0..outer {
        for x in all {
            let (_, size, after) = around(x, at);
            data.extend_from_slice(x.data.get(i * size * after..(i + 1) * size * after).unwrap_or_default());
        }
    }
    Ok(Tensor { shape, data, ..first.clone_form() })
}

/// What stands at these positions of an axis; the positions' shape takes the axis' place.
///
/// # Errors
/// Positions that do not exist or depend on the rows.
pub fn gather(x: &Tensor, positions: &Tensor, at: i64, budget: &mut Budget) -> Made {
    let at = axis(x, at)?;
    let (outer, size, after) = around(x, at);
    let chosen = constant(positions)?.into_iter().map(|position| {
        let position = if position < 0 { position.saturating_add(size as i64) } else { position };
        usize::try_from(position).ok().filter(|&position| position < size)
    });
    let Some(chosen) = chosen.collect::<Option<Vec<usize>>>() else { return wrong("a position does not exist") };
    let mut shape = x.shape.clone();
    shape.splice(at..=at, positions.shape.iter().copied());
    let mut data = Vec::with_capacity(budget.tensor(&shape)?);
    for i in 0..outer {
        for position in &chosen {
            let start = (i * size + position) * after;
            data.extend_from_slice(x.data.get(start..start + after).unwrap_or_default());
        }
    }
    Ok(Tensor { shape, data, ..x.clone_form() })
}

/// From `starts` to before `ends` along `axes`, with steps of 1.
///
/// # Errors
/// Axes that do not exist, or other steps.
pub fn slice(x: &Tensor, starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64], budget: &mut Budget) -> Made {
    if starts.len() != ends.len() || starts.len() != axes.len() || steps.iter().any(|&step| step != 1) {
        return wrong("its starts, ends and axes differ in number, or its steps are not 1");
    }
    let mut made = x.clone_form();
    made.data.clone_from(&x.data);
    for ((&start, &end), &own) in starts.iter().zip(ends).zip(axes) {
        let at = axis(&made, own)?;
        let (outer, size, after) = around(&made, at);
        let place = |at: i64| (if at < 0 { at.saturating_add(size as i64) } else { at }).clamp(0, size as i64) as usize;
        let (start, end) = (place(start), place(end).max(place(start)));
        made.shape[at] = end - start;
        let mut data = Vec::with_capacity(budget.tensor(&made.shape)?);
        for i in 0..outer {
            data.extend_from_slice(
                made.data.get((i * size + start) * after..(i * size + end) * after).unwrap_or_default(),
            );
        }
        made.data = data;
    }
    Ok(made)
}

impl Tensor {
    /// Type, shape and batch without the elements.
    fn clone_form(&self) -> Self {
        Self { kind: self.kind, shape: self.shape.clone(), batch: self.batch, data: Vec::new() }
    }
}
