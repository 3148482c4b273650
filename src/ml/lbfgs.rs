//! Limited-memory BFGS for smooth convex functions (Nocedal & Wright, "Numerical Optimization", algorithm 7.5), with a backtracking
//! line search (Armijo). All sums go through a fixed tree, so the path depends on the function alone.

use crate::math;

/// Pairs of steps and gradient changes that are remembered.
const MEMORY: usize = 10;
/// Share of the predicted fall that a step must reach.
const ARMIJO: f64 = 1e-4;

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

struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    curvature: f64,
}

/// Minimises `function` (value and gradient) from `start`; `after` each step may stop it by returning false.
pub fn minimise(
    start: Vec<f64>,
    tolerance: f64,
    most: u32,
    function: impl Fn(&[f64]) -> (f64, Vec<f64>),
    mut after: impl FnMut(u32) -> bool,
) -> Minimum {
    let (mut at, mut steps) = (start, 0);
    let (mut value, mut gradient) = function(&at);
    let mut pairs: Vec<Pair> = Vec::new();
    while steps < most && greatest(&gradient) > tolerance {
        let direction = direction(&gradient, &pairs);
        let slope = dot(&direction, &gradient);
        let first = if pairs.is_empty() { 1.0 / math::sqrt(dot(&gradient, &gradient)).max(1.0) } else { 1.0 };
        let Some((length, next, next_value, next_gradient)) = search(&function, &at, value, &direction, slope, first)
        else {
            break; // no step gains any more: the sums' last bits
        };
        let step: Vec<f64> = direction.iter().map(|d| d * length).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(new, old)| new - old).collect();
        let curvature = dot(&step, &change);
        if curvature > 1e-12 * dot(&change, &change) {
            if pairs.len() == MEMORY {
                pairs.remove(0);
            }
            pairs.push(Pair { step, change, curvature });
        }
        (at, value, gradient) = (next, next_value, next_gradient);
        steps += 1;
        if !after(steps) {
            break;
        }
    }
    Minimum { converged: greatest(&gradient) <= tolerance, at, steps }
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
        let found = minimise(vec![0.0; 4], 1e-9, 200, function, |_| true);
        assert!(found.converged, "{found:?}");
        assert!(found.at.iter().zip(bottom).all(|(x, b)| (x - b).abs() < 1e-6), "{found:?}");
    }
}
