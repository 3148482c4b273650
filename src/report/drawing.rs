//! Drawings as SVG within a page: curves of two models, and bounds against margins.

use super::aggregate::{Bin, Roc};
use super::markup::Markup;

/// Edge of a square plot with its axes.
const LEFT: f64 = 52.0;
const TOP: f64 = 12.0;
const SIDE: f64 = 288.0;

/// A line of a plot of bounds: by how much something improved, at least, and how much worse it might have been.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// Metric or stratum.
    pub name: String,
    /// The improvement.
    pub delta: f64,
    /// Its one-sided lower bound.
    pub lower: f64,
    /// The margin, positive.
    pub margin: f64,
    /// Whether it is shown not to be worse by the margin.
    pub passed: bool,
}

/// Values between which an axis goes.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis that holds all values, with a little room; never empty.
    fn over(values: impl IntoIterator<Item = f64>) -> Self {
        let finite = values.into_iter().filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return Self { low: 0.0, high: 1.0 };
        }
        let room = ((high - low) * 0.05).max(high.abs().max(low.abs()) * 1e-6).max(1e-6);
        Self { low: low - room, high: high + room }
    }

    /// Place of a value on a length.
    fn place(self, value: f64, length: f64) -> f64 {
        (value - self.low) / (self.high - self.low) * length
    }

    /// Round numbers on it, at most seven, with the digits that tell them apart.
    fn ticks(self) -> (Vec<f64>, usize) {
        let rough = (self.high - self.low) / 5.0;
        let (mut step, mut digits) = (1.0_f64, 0_usize);
        while step > rough && digits < 9 {
            step /= 10.0;
            digits += 1;
        }
        while step * 10.0 <= rough {
            step *= 10.0;
        }
        if step * 5.0 <= rough {
            step *= 5.0;
        } else if step * 2.0 <= rough {
            step *= 2.0;
        }
        let first = (self.low / step).ceil();
        let ticks = (0..40).map(|n| (first + f64::from(n)) * step).take_while(|tick| *tick <= self.high);
        (ticks.collect(), digits)
    }
}

fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    // The sign of a zero tells nothing.
    if text.bytes().all(|b| matches!(b, b'-' | b'0' | b'.')) { text.replace('-', "") } else { text }
}

fn open(out: &mut Markup, width: f64, height: f64, label: &str) {
    out.raw("<svg role=\"img\" viewBox=\"0 0 ").place(width).raw(" ").place(height).raw("\" width=\"").place(width);
    out.raw("\" height=\"").place(height).raw("\" aria-label=\"").text(label).raw("\">\n");
}

fn line(out: &mut Markup, class: &'static str, [x1, y1, x2, y2]: [f64; 4]) {
    out.raw("<line class=\"").raw(class).raw("\" x1=\"").place(x1).raw("\" y1=\"").place(y1).raw("\" x2=\"").place(x2);
    out.raw("\" y2=\"").place(y2).raw("\"/>\n");
}

fn words(out: &mut Markup, anchor: &'static str, (x, y): (f64, f64), text: &str) {
    out.raw("<text text-anchor=\"").raw(anchor).raw("\" x=\"").place(x).raw("\" y=\"").place(y).raw("\">").text(text);
    out.raw("</text>\n");
}

/// Frame, grid and names of a square plot.
fn square(out: &mut Markup, label: &str, (x, y): (Axis, Axis), (x_name, y_name): (&str, &str)) {
    open(out, LEFT + SIDE + 16.0, TOP + SIDE + 44.0, label);
    let (ticks, digits) = x.ticks();
    for tick in ticks {
        let at = LEFT + x.place(tick, SIDE);
        line(out, "grid", [at, TOP, at, TOP + SIDE]);
        words(out, "middle", (at, TOP + SIDE + 15.0), &number(tick, digits));
    }
    let (ticks, digits) = y.ticks();
    for tick in ticks {
        let at = TOP + SIDE - y.place(tick, SIDE);
        line(out, "grid", [LEFT, at, LEFT + SIDE, at]);
        words(out, "end", (LEFT - 5.0, at + 4.0), &number(tick, digits));
    }
    line(out, "axis", [LEFT, TOP + SIDE, LEFT + SIDE, TOP + SIDE]);
    line(out, "axis", [LEFT, TOP, LEFT, TOP + SIDE]);
    words(out, "middle", (LEFT + SIDE / 2.0, TOP + SIDE + 34.0), x_name);
    out.raw("<text text-anchor=\"middle\" transform=\"translate(12 ").place(TOP + SIDE / 2.0);
    out.raw(") rotate(-90)\">").text(y_name).raw("</text>\n");
}

fn curve(out: &mut Markup, class: &'static str, (x, y): (Axis, Axis), points: &[(f64, f64)]) {
    out.raw("<polyline class=\"line ").raw(class).raw("\" points=\"");
    for (at, (px, py)) in points.iter().enumerate() {
        out.raw(if at == 0 { "" } else { " " });
        out.place(LEFT + x.place(*px, SIDE)).raw(",").place(TOP + SIDE - y.place(*py, SIDE));
    }
    out.raw("\"/>\n");
}

/// Names of the two models, where a plot leaves room for them.
fn legend(out: &mut Markup, top: f64) {
    for (class, name, y) in [("baseline", "baseline", top), ("candidate", "candidate", top + 16.0)] {
        let x = LEFT + SIDE - 100.0;
        out.raw("<line class=\"line ").raw(class).raw("\" x1=\"").place(x).raw("\" y1=\"").place(y).raw("\" x2=\"");
        out.place(x + 26.0)
            .raw("\" y2=\"")
            .place(y)
            .raw("\"/>\n<text class=\"")
            .raw(class)
            .raw("\" x=\"")
            .place(x + 32.0);
        out.raw("\" y=\"").place(y + 4.0).raw("\">").raw(name).raw("</text>\n");
    }
}

/// Both models' curves of the receiver operating characteristic.
pub fn roc(out: &mut Markup, baseline: &Roc, candidate: &Roc) {
    let unit = Axis { low: 0.0, high: 1.0 };
    let axes = (unit, unit);
    square(out, "ROC curves of baseline and candidate", axes, ("false-positive rate", "true-positive rate"));
    line(out, "grid", [LEFT, TOP + SIDE, LEFT + SIDE, TOP]);
    for (class, roc) in [("baseline", baseline), ("candidate", candidate)] {
        let thousandths = |value: &u32| f64::from(*value) / 1_000.0;
        let points = roc.false_positive.iter().map(thousandths).zip(roc.true_positive.iter().map(thousandths));
        curve(out, class, axes, &points.collect::<Vec<_>>());
    }
    legend(out, TOP + SIDE - 40.0);
    out.raw("</svg>\n");
}

/// Both models' reliability: what they predicted against what was observed.
pub fn reliability(out: &mut Markup, [baseline, candidate]: [&[Bin]; 2], names: (&str, &str)) {
    let real = |value: i64| value as f64 / 1e6;
    let all = || baseline.iter().chain(candidate);
    let both = Axis::over(all().flat_map(|bin| [real(bin.predicted), real(bin.observed)]));
    let axes = (both, both);
    square(out, "Reliability of baseline and candidate", axes, names);
    line(out, "grid", [LEFT, TOP + SIDE, LEFT + SIDE, TOP]);
    for (class, bins) in [("baseline", baseline), ("candidate", candidate)] {
        let points: Vec<_> = bins.iter().map(|bin| (real(bin.predicted), real(bin.observed))).collect();
        curve(out, class, axes, &points);
        for (x, y) in points {
            out.raw("<circle class=\"").raw(class).raw("\" r=\"3\" cx=\"").place(LEFT + both.place(x, SIDE));
            out.raw("\" cy=\"").place(TOP + SIDE - both.place(y, SIDE)).raw("\"/>\n");
        }
    }
    legend(out, TOP + SIDE - 40.0);
    out.raw("</svg>\n");
}

/// Improvements with their lower bounds against their margins, one line each, at most `most`.
pub fn bounds(out: &mut Markup, label: &str, unit: &str, bounds: &[Bound], most: usize) {
    const NAMES: f64 = 190.0;
    const LENGTH: f64 = 430.0;
    const LINE: f64 = 24.0;
    let shown = &bounds[..bounds.len().min(most)];
    let axis = Axis::over(shown.iter().flat_map(|own| [own.delta, own.lower, -own.margin]).chain([0.0]));
    let height = LINE * shown.len() as f64;
    open(out, NAMES + LENGTH + 20.0, TOP + height + 44.0, label);
    let (ticks, digits) = axis.ticks();
    for tick in ticks {
        let at = NAMES + axis.place(tick, LENGTH);
        line(out, "grid", [at, TOP, at, TOP + height]);
        words(out, "middle", (at, TOP + height + 15.0), &number(tick, digits));
    }
    let zero = NAMES + axis.place(0.0, LENGTH);
    line(out, "axis", [zero, TOP, zero, TOP + height]);
    for (index, own) in shown.iter().enumerate() {
        let y = TOP + LINE * (index as f64 + 0.5);
        let clipped: String = own.name.chars().take(28).collect();
        words(out, "end", (NAMES - 8.0, y + 4.0), &if clipped == own.name { clipped } else { format!("{clipped}…") });
        let class = if own.passed { "good" } else { "bad" };
        let [delta, lower, margin] = [own.delta, own.lower, -own.margin].map(|value| NAMES + axis.place(value, LENGTH));
        line(out, class, [lower, y, delta, y]);
        line(out, class, [lower, y - 4.0, lower, y + 4.0]);
        out.raw("<circle class=\"")
            .raw(class)
            .raw("\" r=\"3.5\" cx=\"")
            .place(delta)
            .raw("\" cy=\"")
            .place(y)
            .raw("\"/>\n");
        line(out, "axis", [margin, y - 9.0, margin, y + 9.0]);
    }
    words(out, "middle", (NAMES + LENGTH / 2.0, TOP + height + 34.0), unit);
    out.raw("</svg>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers_whatever_lies_on_them() {
        let ticks = |low, high| {
            let (ticks, digits) = Axis { low, high }.ticks();
            ticks.iter().map(|tick| number(*tick, digits)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ticks(0.0, 1.0), "0.0 0.2 0.4 0.6 0.8 1.0");
        assert_eq!(ticks(-0.0132, 0.004), "-0.012 -0.010 -0.008 -0.006 -0.004 -0.002 0.000 0.002 0.004");
        assert_eq!(ticks(-3.0, 1_200.0), "0 200 400 600 800 1000 1200");
        for values in [vec![], vec![f64::NAN], vec![0.0], vec![5.0; 3], vec![1e15, -1e15], vec![1e-12]] {
            let axis = Axis::over(values);
            assert!(axis.low < axis.high && axis.ticks().0.len() < 40, "{axis:?}");
        }
    }

    #[test]
    fn names_in_a_drawing_stay_text() {
        let mut out = Markup::new();
        let name = "</svg><script>alert(1)</script>\" onload=\"x".to_owned();
        bounds(
            &mut out,
            "Strata",
            "auroc",
            &[Bound { name, delta: 0.1, lower: f64::NAN, margin: 0.0, passed: false }],
            9,
        );
        assert!(!out.as_str().contains("<script") && out.as_str().matches("</svg>").count() == 1);
        assert!(!out.as_str().contains("NaN"));
    }
}
