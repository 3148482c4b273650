//! The quality score: mergeable integer sums in, a score that can be taken apart out.
//!
//! Q = G · Π max(s_d, 0.01)^w_d, formula `hk-quality/1`:
//!
//! | d | w | s_d |
//! |---|---|---|
//! | validity | .25 | valid rows / received rows |
//! | label | .20 | (1 − min(1, 5·conflicts/valid)) · min(1, rarest class / (0.5·`minority`)) |
//! | completeness | .15 | 1 − mean over columns with `allowedNullRate` of min(1, null rate / allowed) |
//! | uniqueness | .15 | 1 − exact duplicates / valid |
//! | stability | .10 | 1 − mean over columns with `edges` of min(1, PSI / 0.25) |
//! | information | .10 | 1 − (constant + duplicated columns) / columns, over features |
//! | outliers | .05 | 1 − min(1, max(0, outlier rate − .01)/.05), over columns with `median` and `mad` |
//!
//! Gates G: an incompatible schema or contamination give 0, a leaking column caps Q at 0.3. Below 100 valid
//! rows there is no score.
//!
//! Invariants:
//! * sums are integers and merge in any order and grouping to the same result: 1 or 100 chunks, one score;
//! * every s_d is rounded to 6 decimals before its loss is taken, every loss before they are added, and
//!   Q = exp(−Σ loss): a reader recomputes loss and score from what a receipt shows. Rounding also hides the
//!   last-bit differences between platforms' `ln` and `exp`.

mod merge;

pub use merge::{merge, merge_counts};

use crate::domain::contract::{LogicalType, Policy, Property, Spec};
use crate::domain::records::{ColumnSums, Quality, QualityDimension, QualitySums};
use crate::math;

/// Version of the formula.
pub const FORMULA: &str = "hk-quality/1";
/// Fewer valid rows have no score.
pub const MIN_ROWS: i64 = 100;
/// Fewer valid rows show a lower bound of validity.
const FEW_ROWS: i64 = 1_000;
const FLOOR: f64 = 0.01;
const PSI_EPSILON: f64 = 1e-4;
/// Contamination is never judged below this rate.
const CONTAMINATION_RATE: f64 = 0.01;
const LEAKAGE_CAP: f64 = 0.3;
const WILSON_Z: f64 = 1.96;

/// What the contract says that columns are measured against.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QualityReference {
    columns: Vec<ColumnReference>,
    label: Option<LabelReference>,
}

#[derive(Debug, Clone, PartialEq)]
struct ColumnReference {
    name: String,
    allowed_null_rate: Option<f64>,
    shares: Vec<f64>,
    outliers: bool,
    /// Counts for information: a feature that leaves intake.
    feature: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct LabelReference {
    /// Number of classes; 0 when the label is a number.
    classes: usize,
    minority: Option<f64>,
}

impl QualityReference {
    /// The references of a contract.
    #[must_use]
    pub fn new(spec: &Spec) -> Self {
        let is_label = |p: &Property| spec.label.as_ref() == Some(&p.name);
        let mut columns: Vec<_> = spec
            .properties()
            .iter()
            .map(|p| column_reference(p, !is_label(p) && !spec.exclude_from_identity.contains(&p.name)))
            .collect();
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        let label = spec.properties().iter().find(|p| is_label(p)).map(|p| LabelReference {
            classes: label_classes(p).len(),
            minority: p.reference.as_ref().and_then(|r| r.minority),
        });
        Self { columns, label }
    }
}

fn column_reference(property: &Property, feature: bool) -> ColumnReference {
    let reference = property.reference.clone().unwrap_or_default();
    let bins = if reference.edges.is_empty() { 0 } else { reference.edges.len() + 1 };
    #[allow(clippy::cast_precision_loss)] // at most 100 bins
    let shares = if reference.shares.is_empty() { vec![1.0 / bins as f64; bins] } else { reference.shares };
    ColumnReference {
        name: property.name.clone(),
        allowed_null_rate: property.allowed_null_rate,
        shares,
        outliers: reference.median.is_some(),
        feature: feature && property.pii.policy != Policy::Drop,
    }
}

/// The classes of a label as they stand in [`QualitySums::labels`], in the order of the contract; empty for a number.
#[must_use]
pub fn label_classes(label: &Property) -> Vec<String> {
    let options = &label.logical_type_options;
    match label.logical_type {
        LogicalType::Boolean => vec!["false".to_owned(), "true".to_owned()],
        LogicalType::String => options.values.iter().map(ToString::to_string).collect(),
        LogicalType::Integer if options.values.is_empty() => {
            let bound = |b: &Option<crate::domain::contract::Scalar>| {
                b.as_ref().and_then(crate::domain::contract::Scalar::as_i64)
            };
            match (bound(&options.minimum), bound(&options.maximum)) {
                (Some(least), Some(most)) => (least..=most).map(|class| class.to_string()).collect(),
                _ => Vec::new(),
            }
        }
        LogicalType::Integer => {
            options.values.iter().filter_map(|v| v.as_i64()).map(|class| class.to_string()).collect()
        }
        LogicalType::Number | LogicalType::Date | LogicalType::Timestamp => Vec::new(),
    }
}

/// What a score is made of.
#[derive(Debug, Clone, Copy)]
pub struct QualityInputs<'a> {
    /// The contract's references; none when no contract was found.
    pub reference: Option<&'a QualityReference>,
    /// Rows received.
    pub received: i64,
    /// Merged sums of all chunks.
    pub sums: &'a QualitySums,
    /// Exact duplicates that deduplication refused.
    pub duplicates: i64,
    /// Rows whose features stand earlier with another label.
    pub label_conflicts: i64,
    /// Rows that stand in a sealed benchmark.
    pub contaminated: i64,
    /// Natural collision rate that was measured when the benchmark was sealed.
    pub collision_rate: f64,
    /// The chunk brought a column that tells the answer, and the contract let it pass.
    pub leakage: bool,
}

/// The quality of a contribution.
#[must_use]
pub fn score(inputs: &QualityInputs<'_>) -> Quality {
    let none = QualityReference::default();
    let reference = inputs.reference.unwrap_or(&none);
    let sums = inputs.sums;
    let dimensions = vec![
        dimension("validity", 0.25, Some(ratio(sums.valid, inputs.received))),
        dimension("label", 0.20, label(reference, inputs)),
        dimension("completeness", 0.15, completeness(reference, sums)),
        dimension("uniqueness", 0.15, Some(1.0 - ratio(inputs.duplicates, sums.valid))),
        dimension("stability", 0.10, stability(reference, sums)),
        dimension("information", 0.10, information(reference, sums)),
        dimension("outliers", 0.05, outliers(reference, sums)),
    ];
    let loss: f64 = dimensions.iter().map(|d| d.loss).sum();
    let gate = gate(inputs);
    let product = round6(math::exp(-loss));
    let gated = match gate {
        "" => product,
        "leakage" => product.min(LEAKAGE_CAP),
        _ => 0.0,
    };
    let insufficient = sums.valid < MIN_ROWS;
    let zero = gate == "incompatible_schema" || gate == "contamination";
    Quality {
        formula: FORMULA.to_owned(),
        score: (!insufficient || zero).then_some(gated),
        validity_lower: (sums.valid < FEW_ROWS).then(|| wilson_lower(sums.valid, inputs.received)),
        gate: gate.to_owned(),
        flags: flags(inputs, insufficient),
        dimensions,
    }
}

fn gate(inputs: &QualityInputs<'_>) -> &'static str {
    let contamination = CONTAMINATION_RATE.max(3.0 * inputs.collision_rate);
    if inputs.sums.incompatible_schema {
        "incompatible_schema"
    } else if ratio(inputs.contaminated, inputs.received) > contamination {
        "contamination"
    } else if inputs.leakage {
        "leakage"
    } else {
        ""
    }
}

fn flags(inputs: &QualityInputs<'_>, insufficient: bool) -> Vec<String> {
    let mut flags = Vec::new();
    if insufficient {
        flags.push("insufficient".to_owned());
    }
    if inputs.label_conflicts > 0 {
        flags.push(format!("label_conflict:{}", inputs.label_conflicts));
    }
    if inputs.leakage {
        flags.push("leakage_column".to_owned());
    }
    if inputs.sums.near_duplicates > 0 {
        flags.push(format!("near_dup:{}", inputs.sums.near_duplicates));
    }
    flags
}

fn dimension(name: &str, weight: f64, value: Option<f64>) -> QualityDimension {
    let measured = value.is_some();
    let value = round6(value.unwrap_or(1.0).clamp(0.0, 1.0));
    // Adding zero turns −0 into 0.
    let loss = round6(-weight * math::ln(value.max(FLOOR))) + 0.0;
    QualityDimension { name: name.to_owned(), value, weight, loss, measured }
}

#[allow(clippy::cast_precision_loss)] // counts of rows are far below 2^53
fn ratio(part: i64, whole: i64) -> f64 {
    if whole <= 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn round6(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

/// The references together with the sums of their columns.
fn measured<'a>(
    reference: &'a QualityReference,
    sums: &'a QualitySums,
) -> impl Iterator<Item = (&'a ColumnReference, &'a ColumnSums)> {
    reference.columns.iter().filter_map(|column| find(&sums.columns, &column.name).map(|s| (column, s)))
}

fn find<'a>(columns: &'a [ColumnSums], name: &str) -> Option<&'a ColumnSums> {
    columns.binary_search_by(|c| c.column.as_str().cmp(name)).ok().and_then(|i| columns.get(i))
}

fn label(reference: &QualityReference, inputs: &QualityInputs<'_>) -> Option<f64> {
    let label = reference.label.as_ref()?;
    let agreement = 1.0 - (5.0 * ratio(inputs.label_conflicts, inputs.sums.valid)).min(1.0);
    let Some(minority_reference) = label.minority.filter(|_| label.classes > 0 && inputs.sums.valid > 0) else {
        return Some(agreement);
    };
    let labels = &inputs.sums.labels;
    let rarest = if labels.len() < label.classes { 0 } else { labels.iter().map(|l| l.count).min().unwrap_or(0) };
    Some(agreement * (ratio(rarest, inputs.sums.valid) / (0.5 * minority_reference)).min(1.0))
}

fn completeness(reference: &QualityReference, sums: &QualitySums) -> Option<f64> {
    let used = measured(reference, sums).filter_map(|(column, s)| {
        let allowed = column.allowed_null_rate?;
        let rate = ratio(s.nulls, sums.valid);
        Some(if rate == 0.0 { 0.0 } else { (rate / allowed).min(1.0) })
    });
    mean(used).map(|used| 1.0 - used)
}

fn stability(reference: &QualityReference, sums: &QualitySums) -> Option<f64> {
    let shifts = measured(reference, sums)
        .filter(|(column, s)| !column.shares.is_empty() && s.bins.len() == column.shares.len());
    let shifts = shifts.filter_map(|(column, s)| psi(&s.bins, &column.shares));
    mean(shifts.map(|psi| (psi / 0.25).min(1.0))).map(|shift| 1.0 - shift)
}

/// Population stability index; none without cells.
fn psi(bins: &[i64], shares: &[f64]) -> Option<f64> {
    let cells: i64 = bins.iter().sum();
    let term = |(count, share): (&i64, &f64)| {
        let (actual, expected) = (ratio(*count, cells).max(PSI_EPSILON), share.max(PSI_EPSILON));
        (actual - expected) * math::ln(actual / expected)
    };
    (cells > 0).then(|| bins.iter().zip(shares).map(term).sum())
}

fn information(reference: &QualityReference, sums: &QualitySums) -> Option<f64> {
    let features: Vec<_> = measured(reference, sums).filter(|(column, _)| column.feature).map(|(_, s)| s).collect();
    let constant = |s: &ColumnSums| s.nulls == sums.valid || (s.nulls == 0 && s.least == s.greatest);
    let idle = |(i, s): &(usize, &&ColumnSums)| {
        constant(s) || features.iter().take(*i).any(|earlier| earlier.fingerprint == s.fingerprint)
    };
    let idle = features.iter().enumerate().filter(idle).count();
    #[allow(clippy::cast_precision_loss)] // at most 1,000 columns
    (!features.is_empty() && sums.valid > 0).then(|| 1.0 - idle as f64 / features.len() as f64)
}

fn outliers(reference: &QualityReference, sums: &QualitySums) -> Option<f64> {
    let columns = measured(reference, sums).filter(|(column, _)| column.outliers);
    let (outliers, cells) = columns.fold((0, 0), |(o, c), (_, s)| (o + s.outliers, c + sums.valid - s.nulls));
    (cells > 0).then(|| 1.0 - ((ratio(outliers, cells) - 0.01).max(0.0) / 0.05).min(1.0))
}

/// Lower bound of a proportion (Wilson, z = 1.96), 6 decimals.
#[allow(clippy::cast_precision_loss)] // counts of rows are far below 2^53
fn wilson_lower(successes: i64, trials: i64) -> f64 {
    if trials <= 0 {
        return 0.0;
    }
    let (n, p, z2) = (trials as f64, ratio(successes, trials), WILSON_Z * WILSON_Z);
    let spread = WILSON_Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    round6(((p + z2 / (2.0 * n) - spread) / (1.0 + z2 / n)).max(0.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::records::Count;

    fn spec() -> Spec {
        Spec::parse_yaml(include_str!("contract/example.yaml"), "example.yaml").unwrap()
    }

    fn column(name: &str, valid: i64, bins: usize) -> ColumnSums {
        let mut counts = vec![valid / (bins.max(1) as i64); bins];
        if let Some(first) = counts.first_mut() {
            *first += valid % bins as i64;
        }
        ColumnSums {
            column: name.to_owned(),
            nulls: 0,
            outliers: 0,
            bins: counts,
            least: "00000000000000aa".to_owned(),
            greatest: "00000000000000ff".to_owned(),
            fingerprint: format!("{:016x}", name.len() as u64 * 31 + name.bytes().map(u64::from).sum::<u64>()),
        }
    }

    fn sums(valid: i64) -> QualitySums {
        let mut columns: Vec<_> = spec()
            .properties()
            .iter()
            .map(|p| column(&p.name, valid, if p.name == "age" || p.name == "balance" { 10 } else { 0 }))
            .collect();
        columns.sort_by(|a, b| a.column.cmp(&b.column));
        let labels = vec![
            Count { name: "false".to_owned(), count: valid - valid / 4 },
            Count { name: "true".to_owned(), count: valid / 4 },
        ];
        QualitySums { valid, columns, labels, near_duplicates: 0, incompatible_schema: false }
    }

    fn inputs<'a>(reference: &'a QualityReference, sums: &'a QualitySums) -> QualityInputs<'a> {
        QualityInputs {
            reference: Some(reference),
            received: sums.valid,
            sums,
            duplicates: 0,
            label_conflicts: 0,
            contaminated: 0,
            collision_rate: 0.0,
            leakage: false,
        }
    }

    fn value(quality: &Quality, name: &str) -> f64 {
        quality.dimensions.iter().find(|d| d.name == name).unwrap().value
    }

    #[test]
    fn clean_data_scores_one() {
        let (reference, sums) = (QualityReference::new(&spec()), sums(1000));
        let quality = score(&inputs(&reference, &sums));
        assert_eq!(quality.score, Some(1.0), "{quality:?}");
        assert!(quality.flags.is_empty() && quality.gate.is_empty());
        assert!(quality.dimensions.iter().all(|d| d.measured && d.loss == 0.0 && d.loss.is_sign_positive()));
    }

    #[test]
    fn each_dimension_falls_by_its_formula() {
        let reference = QualityReference::new(&spec());
        let mut sums = sums(1000);
        let at = |sums: &QualitySums, name: &str| sums.columns.iter().position(|c| c.column == name).unwrap();
        let (age, balance, plan, country) =
            (at(&sums, "age"), at(&sums, "balance"), at(&sums, "plan"), at(&sums, "country"));
        sums.columns[balance].nulls = 20; // 2 % of an allowed 5 %
        sums.columns[age].outliers = 59; // of 1,980 cells
        sums.columns[plan].greatest = sums.columns[plan].least.clone();
        sums.columns[country].fingerprint = sums.columns[age].fingerprint.clone();
        sums.columns[age].bins = vec![1000, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        sums.labels =
            vec![Count { name: "false".to_owned(), count: 946 }, Count { name: "true".to_owned(), count: 54 }];
        let quality =
            score(&QualityInputs { received: 1250, duplicates: 100, label_conflicts: 20, ..inputs(&reference, &sums) });
        assert_eq!(value(&quality, "validity"), 0.8);
        assert_eq!(value(&quality, "label"), 0.36); // (1 − 0.1) · 0.054/0.135
        assert_eq!(value(&quality, "completeness"), 0.6);
        assert_eq!(value(&quality, "uniqueness"), 0.9);
        assert_eq!(value(&quality, "stability"), 0.5); // one of two columns is lost
        assert_eq!(value(&quality, "information"), 0.714286); // 2 of 7 features
        assert_eq!(value(&quality, "outliers"), 0.60404); // 59/1980 = 2.98 %
        assert_eq!(quality.flags, ["label_conflict:20"]);
    }

    #[test]
    fn gates_cap_the_score_and_leave_the_dimensions() {
        let (reference, mut sums) = (QualityReference::new(&spec()), sums(1000));
        let quality = score(&QualityInputs { leakage: true, ..inputs(&reference, &sums) });
        assert_eq!((quality.score, quality.gate.as_str()), (Some(0.3), "leakage"));
        let contaminated = |contaminated, collision_rate| {
            score(&QualityInputs { contaminated, collision_rate, ..inputs(&reference, &sums) }).score
        };
        assert_eq!(contaminated(10, 0.0), Some(1.0));
        assert_eq!(contaminated(11, 0.0), Some(0.0));
        assert_eq!(contaminated(80, 0.0293), Some(1.0));
        sums.incompatible_schema = true;
        let quality = score(&inputs(&reference, &sums));
        assert_eq!((quality.score, quality.gate.as_str()), (Some(0.0), "incompatible_schema"));
    }

    #[test]
    fn few_rows_have_no_score_but_a_lower_bound() {
        let (reference, sums) = (QualityReference::new(&spec()), sums(99));
        let quality = score(&inputs(&reference, &sums));
        assert_eq!((quality.score, quality.gate.as_str()), (None, ""));
        assert_eq!(quality.flags, ["insufficient"]);
        assert_eq!(quality.validity_lower, Some(0.962645)); // 99/(99 + 1.96²)
    }

    #[test]
    fn without_references_nothing_is_claimed_to_be_measured() {
        let sums = sums(1000);
        let quality = score(&QualityInputs { reference: None, ..inputs(&QualityReference::default(), &sums) });
        let measured: Vec<_> = quality.dimensions.iter().filter(|d| d.measured).map(|d| d.name.as_str()).collect();
        assert_eq!(measured, ["validity", "uniqueness"]);
    }

    fn any_sums() -> impl Strategy<Value = QualitySums> {
        let column = (0usize..8, 0i64..50, 0i64..50, prop::collection::vec(0i64..100, 10), any::<(u64, u64, u64)>());
        let columns = prop::collection::vec(column, 0..6);
        (0i64..500, columns, prop::collection::vec((0usize..2, 1i64..100), 0..3), 0i64..9).prop_map(
            |(valid, columns, labels, near)| {
                let mut sums = QualitySums { valid, near_duplicates: near, ..QualitySums::default() };
                let names = ["age", "balance", "comment", "country", "email", "event_time", "plan", "record_id"];
                for (name, nulls, outliers, bins, (a, b, fingerprint)) in columns {
                    let part = ColumnSums {
                        column: names[name].to_owned(),
                        nulls,
                        outliers,
                        bins,
                        least: format!("{:016x}", a.min(b)),
                        greatest: format!("{:016x}", a.max(b)),
                        fingerprint: format!("{fingerprint:016x}"),
                    };
                    merge(&mut sums, &QualitySums { columns: vec![part], ..QualitySums::default() });
                }
                let labels: Vec<_> = labels
                    .into_iter()
                    .map(|(l, count)| Count { name: ["false", "true"][l].to_owned(), count })
                    .collect();
                labels.iter().for_each(|l| merge_counts(&mut sums.labels, std::slice::from_ref(l)));
                sums
            },
        )
    }

    proptest! {
        #[test]
        fn losses_add_up_to_the_logarithm_of_the_score(sums in any_sums(), received in 0i64..1000, duplicates in 0i64..500, label_conflicts in 0i64..100) {
            let reference = QualityReference::new(&spec());
            let quality = score(&QualityInputs { received: sums.valid + received, duplicates, label_conflicts, ..inputs(&reference, &sums) });
            prop_assert!((quality.dimensions.iter().map(|d| d.weight).sum::<f64>() - 1.0).abs() < 1e-12);
            for d in &quality.dimensions {
                prop_assert!((0.0..=1.0).contains(&d.value) && d.loss >= 0.0);
            }
            if let Some(score) = quality.score {
                let loss: f64 = quality.dimensions.iter().map(|d| d.loss).sum();
                prop_assert!((math::exp(-loss) - score).abs() < 1e-6);
                prop_assert!((0.01..=1.0).contains(&score));
            }
        }

        #[test]
        fn the_order_and_grouping_of_chunks_do_not_matter(a in any_sums(), b in any_sums(), c in any_sums()) {
            let fold = |parts: &[&QualitySums]| parts.iter().fold(QualitySums::default(), |mut all, part| { merge(&mut all, part); all });
            let bc = fold(&[&b, &c]);
            prop_assert_eq!(fold(&[&a, &b, &c]), fold(&[&c, &a, &b]));
            prop_assert_eq!(fold(&[&a, &b, &c]), fold(&[&a, &bc]));
        }
    }
}
