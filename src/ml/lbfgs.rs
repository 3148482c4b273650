//! Limited-memory BFGS for smooth convex functions (Nocedal & Wright, "Numerical Optimization", algorithm 7.5), with a backtracking
//! line search (Armijo). All sums go through a fixed tree, so the path depends on the function alone.

use sha2::{Digest as _, Sha256};

use crate::math;

/// Pairs of steps and gradient changes that are remembered.
const MEMORY: usize = 10;
/// Share of the predicted fall that a step must reach.
const ARMIJO: f64 = 1e-4;
/// How a path's bytes begin: what they are, and the version of their form.
const MAGIC: [u8; 6] = *b"HKLP\x01\x00";

/// Where the search ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Minimum {
    /// The point.
    pub at: Vec<f64>,
    /// Steps taken.
    pub steps: u32,
    /// Whether the gradient's greatest component is at most the tolerance.
    pub converged: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    curvature: f64,
}

/// How far a search has come: all that the rest of its way depends on, besides the function.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    at: Vec<f64>,
    steps: u32,
    pairs: Vec<Pair>,
}

impl Path {
    /// Before the first step.
    #[must_use]
    pub fn from(start: Vec<f64>) -> Self {
        Self { at: start, steps: 0, pairs: Vec::new() }
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The path as bytes, bound to the run of this digest: magic, format version, digest; steps, variables, pairs; the point, then
    /// every pair's step and change of gradient, the oldest first, as little-endian doubles; SHA-256 of all that.
    #[must_use]
    pub fn to_bytes(&self, run: &[u8; 32]) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], run].concat();
        for count in [self.steps, self.at.len() as u32, self.pairs.len() as u32] {
            bytes.extend(count.to_le_bytes());
        }
        let vectors = self.pairs.iter().flat_map(|pair| [&pair.step, &pair.change]);
        for value in std::iter::once(&self.at).chain(vectors).flatten() {
            bytes.extend(value.to_bits().to_le_bytes());
        }
        let sum: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend(sum);
        bytes
    }

    /// The path that these bytes hold, of a search over so many variables with at most so many steps.
    ///
    /// # Errors
    /// What is wrong with them: another format or run, damaged.
    pub fn from_bytes(bytes: &[u8], run: &[u8; 32], variables: usize, most: u32) -> Result<Self, String> {
        let (body, sum) = bytes.split_last_chunk::<32>().ok_or("it ends too early")?;
        if Sha256::digest(body)[..] != sum[..] {
            return Err("it is damaged".to_owned());
        }
        let rest = body.strip_prefix(&MAGIC[..]).ok_or("its format is another one")?;
        let rest = rest.strip_prefix(&run[..]).ok_or("it is of another run")?;
        let (head, rest) = rest.split_first_chunk::<12>().ok_or("it ends too early")?;
        let [steps, width, count] = [0, 4, 8].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|byte| head[at + byte])));
        let fits = steps <= most && width as usize == variables && count as usize <= MEMORY && count <= steps;
        if !fits || rest.len() != (1 + 2 * count as usize) * variables * 8 {
            return Err("its counts are not those of such a search".to_owned());
        }
        let (values, _) = rest.as_chunks::<8>();
        let values: Vec<f64> = values.iter().map(|bytes| f64::from_bits(u64::from_le_bytes(*bytes))).collect();
        if !values.iter().all(|value| value.is_finite()) {
            return Err("a number is not finite".to_owned());
        }
        let mut vectors = values.chunks(variables.max(1)).map(<[f64]>::to_vec);
        let at = vectors.next().unwrap_or_default();
        let mut pairs = Vec::with_capacity(MEMORY);
        while let (Some(step), Some(change)) = (vectors.next(), vectors.next()) {
            pairs.push(Pair::of(step, change).ok_or("a pair has no curvature")?);
        }
        Ok(Self { at, steps, pairs })
    }
}

impl Pair {
    /// None without a curvature that can be relied on.
    fn of(step: Vec<f64>, change: Vec<f64>) -> Option<Self> {
        let curvature = dot(&step, &change);
        (curvature > 1e-12 * dot(&change, &change)).then_some(Self { step, change, curvature })
    }
}

/// Minimises `function` (value and gradient), going on from `path`; `after` each step may stop it by returning false.
pub fn minimise(
    path: Path,
    tolerance: f64,
    most: u32,
    function: impl Fn(&[f64]) -> (f64, Vec<f64>),
    mut after: impl FnMut(&Path) -> bool,
) -> Minimum {
    let mut path = path;
    let (mut value, mut gradient) = function(&path.at);
    while path.steps < most && greatest(&gradient) > tolerance {
        let direction = direction(&gradient, &path.pairs);
        let slope = dot(&direction, &gradient);
        let first = if path.pairs.is_empty() { 1.0 / math::sqrt(dot(&gradient, &gradient)).max(1.0) } else { 1.0 };
        let Some((length, next, next_value, next_gradient)) =
            search(&function, &path.at, value, &direction, slope, first)
        else {
            break; // no step gains any more: the sums' last bits
        };
        let step: Vec<f64> = direction.iter().map(|d| d * length).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(new, old)| new - old).collect();
        if let Some(pair) = Pair::of(step, change) {
            if path.pairs.len() == MEMORY {
                path.pairs.remove(0);
            }
            path.pairs.push(pair);
        }
        (path.at, value, gradient) = (next, next_value, next_gradient);
        path.steps += 1;
        if !after(&path) {
            break;
        }
    }
    Minimum { converged: greatest(&gradient) <= tolerance, at: path.at, steps: path.steps }
}

type Step = (f64, Vec<f64>, f64, Vec<f64>);

fn search(
    function: &impl Fn(&[f64]) -> (f64, Vec<f64>),
    at: &[f64],
    value: f64,
    direction: &[f64],
    slope: f64,
    first: f64,
) -> Option<Step> {
    let mut length = first;
    for _ in 0..40 {
        let next: Vec<f64> = at.iter().zip(direction).map(|(x, d)| x + length * d).collect();
        let (next_value, gradient) = function(&next);
        if next_value <= value + ARMIJO * length * slope && next_value.is_finite() {
            return (next_value < value || greatest(&gradient) == 0.0).then_some((length, next, next_value, gradient));
        }
        length /= 2.0;
    }
    None
}

/// The two-loop recursion.
fn direction(gradient: &[f64], pairs: &[Pair]) -> Vec<f64> {
    let mut d: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut weights = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let weight = dot(&pair.step, &d) / pair.curvature;
        d.iter_mut().zip(&pair.change).for_each(|(d, change)| *d -= weight * change);
        weights.push(weight);
    }
    if let Some(last) = pairs.last() {
        let scale = last.curvature / dot(&last.change, &last.change);
        d.iter_mut().for_each(|d| *d *= scale);
    }
    for (pair, weight) in pairs.iter().zip(weights.into_iter().rev()) {
        let other = dot(&pair.change, &d) / pair.curvature;
        d.iter_mut().zip(&pair.step).for_each(|(d, step)| *d += (weight - other) * step);
    }
    d
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    math::sum(&a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f64>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badly_scaled_bowl_is_minimised_to_its_bottom() {
        let scales = [1.0, 100.0, 0.01, 7.0];
        let bottom = [3.0, -2.0, 50.0, 0.5];
        let function = |x: &[f64]| {
            let off: Vec<f64> = x.iter().zip(bottom).map(|(x, b)| x - b).collect();
            let value = off.iter().zip(scales).map(|(o, s)| s * o * o / 2.0).sum();
            (value, off.iter().zip(scales).map(|(o, s)| s * o).collect())
        };
        let found = minimise(Path::from(vec![0.0; 4]), 1e-9, 200, function, |_| true);
        assert!(found.converged, "{found:?}");
        assert!(found.at.iter().zip(bottom).all(|(x, b)| (x - b).abs() < 1e-6), "{found:?}");
    }
}
