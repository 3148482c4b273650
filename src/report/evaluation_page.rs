//! The page of one evaluation.

use super::aggregate::{Bin, LEAST};
use super::drawing::{self, Bound};
use super::evaluation::{Drawn, EvaluationReport};
use super::markup::{self, Markup};
use super::table::{Cell, table};
use crate::attest::evaluation::{Margin, Preregistration};
use crate::attest::figures::{CalibrationFacts, FullRecord, MetricFacts, StratumFacts};
use crate::domain::records::{Attribution, Evaluation, Player};
use crate::stats::fixed::micro_string;

/// Most lines of a drawing; the table beneath has all.
const MOST_LINES: usize = 40;

/// The page.
pub(super) fn page(report: &EvaluationReport) -> String {
    let (told, mut out) = (&report.told, Markup::new());
    if report.is_opened {
        out.raw("<p class=\"verdict bad\">").text(
            "Opened by the benchmark's owner: this page holds figures that are published nowhere. Whoever trains candidates must not see \
             it before the benchmark is retired.",
        );
        out.raw("</p>\n");
    }
    verdict(&mut out, report);
    facts(&mut out, report);
    figures(&mut out, report);
    if let Some(drawn) = &report.drawn {
        drawings(&mut out, drawn);
    }
    attribution(&mut out, report);
    checking(&mut out, report);
    let subtitle = format!("{} on the sealed benchmark {}, recorded {} (UTC)", told.model, told.benchmark, report.time);
    markup::page(&format!("Evaluation {}", told.evaluation_id), &subtitle, &out)
}

fn verdict(out: &mut Markup, report: &EvaluationReport) {
    let told = &report.told;
    out.heading("What was decided");
    let is_accepted = told.status == Evaluation::ACCEPTED;
    out.raw(if is_accepted { "<p class=\"verdict good\">" } else { "<p class=\"verdict bad\">" });
    match (told.status.as_str(), told.attempt) {
        (Evaluation::ACCEPTED, _) => {
            out.text("Accepted: the candidate is shown to be better, and nothing protected to suffer.")
        }
        (Evaluation::FAILED, _) => out.text("Failed: the attempt could not be scored. Its level is spent."),
        (Evaluation::CANCELLED, _) => {
            out.text("Cancelled: the attempt was taken back before it was scored. Its level is spent.")
        }
        (_, 0) => out.text("Refused before it was an attempt: no level was spent."),
        _ => out.text("Refused: the candidate is not shown to be better without anything protected suffering."),
    };
    out.raw("</p>\n");
    if let (Some(delta), Some(lower), Some(p)) = (&told.delta, &told.lower, &told.p_value) {
        out.paragraph(format_args!(
            "{} improves by {delta}; with the attempt's level the improvement is at least {lower} (one-sided p ≤ {p}, level {}).",
            metric(&told.metric),
            told.alpha
        ));
    }
    if !told.reasons.is_empty() {
        out.raw("<ul>\n");
        for reason in &told.reasons {
            out.raw("<li><strong>").text(reason).raw("</strong>: ").text(meaning(reason)).raw("</li>\n");
        }
        out.raw("</ul>\n");
    }
    if !told.detail.is_empty() {
        out.paragraph(&told.detail);
    }
    if !is_accepted && !report.is_opened && told.attempt > 0 && !Evaluation::is_unscored(&told.status) {
        out.paragraph(
            "Of an attempt that is not accepted nothing else is told before the benchmark is retired: from more, candidates could be \
             climbed towards the sealed rows. The benchmark's owner can open it (`hokusai report EVALUATION --open`), which is audited.",
        );
    }
}

/// What a metric is measured in.
fn unit(name: &str) -> &'static str {
    match name {
        "accuracy" | "f1" | "f1_macro" | "f1_micro" | "precision" | "recall" | "auroc" => "share of 1",
        "log_loss" => "nats",
        "brier" => "squared probability",
        "mae" | "rmse" => "units of the label",
        "mse" => "squared units of the label",
        "r2" => "share of variance",
        _ => "the metric's unit",
    }
}

fn metric(name: &str) -> String {
    format!("{name} ({})", unit(name))
}

fn meaning(reason: &str) -> &'static str {
    match reason {
        "NOT_SIGNIFICANT" => "the improvement is not significant at the attempt's level.",
        "LOWER_BOUND_NOT_POSITIVE" => "the lower bound of the improvement is not above 0.",
        "BELOW_MINIMUM_EFFECT" => "the improvement is smaller than the least one worth accepting.",
        "GUARDRAIL_INFERIOR" => "a guardrail is not shown to stay within its margin.",
        "STRATUM_INFERIOR" => "in a stratum the candidate is not shown to stay within the margin.",
        "STRATUM_TOO_SMALL" => "a stratum has too few rows of a class to show anything.",
        "BENCHMARK_TOO_SMALL" => "there are too few rows, of a class or on which the models differ, for the test.",
        "BENCHMARK_RETIRED" => "the benchmark is retired, or has had its acceptances.",
        "METRIC_UNDEFINED" => {
            "a metric is 0/0 on the rows, has no finite value on one of them, or does not fit the task."
        }
        "MARGIN_MISSING" | "MINIMUM_EFFECT_MISSING" => "the contract leaves out what the decision needs.",
        "GUARDRAIL_MISSING" | "STRATUM_MISSING" | "PRIMARY_MISSING" => {
            "something that the decision needs was not observed."
        }
        "NOT_PREREGISTERED" | "ATTEMPT_UNKNOWN" | "ALPHA_INVALID" => {
            "the attempt's place in its family is not laid down."
        }
        "CANCELLED" => "whoever asked for the attempt took it back.",
        _ => "see the detail, or the documentation of the code.",
    }
}

fn decimal(ppm: &str) -> String {
    ppm.parse().map_or_else(|_| ppm.to_owned(), micro_string)
}

/// 10⁻⁹ as a decimal.
fn billionths(e9: &str) -> String {
    e9.parse::<u64>().map_or_else(|_| e9.to_owned(), |n| format!("{}.{:09}", n / 1_000_000_000, n % 1_000_000_000))
}

fn facts(out: &mut Markup, report: &EvaluationReport) {
    let told = &report.told;
    out.heading("What was asked");
    let mut rows = vec![
        ("Model", Cell::text(&told.model)),
        ("Benchmark", Cell::text(&told.benchmark)),
        ("Candidate (SHA-256 of the artefact)", Cell::code(&told.candidate)),
        ("Baseline (version, SHA-256)", Cell::code(format!("{} {}", told.baseline_version, told.baseline))),
        ("Attempt of the benchmark's family", Cell::text(told.attempt.to_string())),
        ("Level α of this attempt, 6α/(π²t²) of the family's", Cell::text(&told.alpha)),
        ("Attempts family", Cell::code(&told.family)),
        ("Primary metric", Cell::text(metric(&told.metric))),
        ("Score on the Ladder", Cell::text(told.ladder_score.as_deref().unwrap_or("none"))),
        ("Training run, recipe", Cell::code(format!("{} {}", told.run_id, told.recipe_digest))),
    ];
    if let Some(laid) = &report.preregistration {
        let said = &laid.said;
        rows.extend([
            ("Sealed rows", Cell::text(said.benchmark.rows.n.to_string())),
            ("Test that decides", Cell::text(&said.test)),
            ("Least improvement worth accepting", Cell::text(decimal(&said.minimum_effect_ppm))),
            ("All of the family may spend", Cell::text(decimal(&said.attempt.alpha_ppm))),
            ("Replicates, seed of what is resampled", Cell::code(format!("{} {}", said.replicates, said.seed))),
            ("Preregistered as leaf (log index)", Cell::code(format!("{} ({})", laid.leaf, laid.index))),
        ]);
        if let (Some(rows_of), Some(root)) = (said.candidate.dataset_rows, &said.candidate.dataset_root) {
            rows.push(("Candidate's training rows (root)", Cell::code(format!("{rows_of} ({root})"))));
        }
    }
    if let Some(outcome) = &report.outcome {
        rows.push((
            "Outcome attested as leaf (log index)",
            Cell::code(format!("{} ({})", outcome.leaf, outcome.index)),
        ));
        if let Some(withheld) = &outcome.said.withheld {
            rows.push(("Salted digest of what is withheld", Cell::code(withheld)));
        }
    }
    let rows = rows.into_iter().map(|(name, cell)| vec![Cell::text(name), cell]);
    table(out, "Laid down before any score was computed, where it was an attempt", &["What", "Value"], rows, "");
}

fn figures(out: &mut Markup, report: &EvaluationReport) {
    out.heading("Figures");
    let Some(figures) = &report.figures else {
        out.paragraph("None are published of this evaluation.");
        return;
    };
    out.paragraph(format_args!(
        "Both models scored the same {} sealed rows. Values are rounded against the candidate; an improvement is positive whether more or \
         less of a metric is better.",
        figures.n
    ));
    if let Some(counts) = &figures.counts {
        out.paragraph(format_args!(
            "Rows that the candidate got right: {}, alone: {}; the baseline: {}, alone: {}. Beside the deciding test: 95 % interval of the \
             difference of both shares (Newcombe) {} to {}, two-sided mid-p {}.",
            counts.candidate_right,
            counts.candidate_only,
            counts.baseline_right,
            counts.baseline_only,
            decimal(&counts.newcombe_ppm[0]),
            decimal(&counts.newcombe_ppm[1]),
            billionths(&counts.mid_p_e9),
        ));
    }
    if let Some(CalibrationFacts { baseline, bins, candidate }) = &figures.calibration {
        out.paragraph(format_args!(
            "Distance of mean score and share in {bins} bins, on average and at most: candidate {} and {}, baseline {} and {}.",
            decimal(&candidate.expected_ppm),
            decimal(&candidate.largest_ppm),
            decimal(&baseline.expected_ppm),
            decimal(&baseline.largest_ppm),
        ));
    }
    table(
        out,
        "Metrics of both models",
        &METRICS,
        figures.metrics.iter().map(metric_row),
        "No metric is defined on the rows.",
    );
    let laid = report.preregistration.as_ref().map(|laid| &laid.said);
    guardrails(out, figures, laid);
    strata(out, &figures.strata, &report.told.metric);
    let subjects = figures.reasons.iter().filter(|reason| !reason.subject.is_empty());
    let rows = subjects.map(|reason| vec![Cell::text(&reason.code), Cell::text(&reason.subject)]);
    if figures.reasons.iter().any(|reason| !reason.subject.is_empty()) {
        table(out, "Reasons, with what they concern", &["Reason", "Guardrail or stratum"], rows, "");
    }
}

const METRICS: [&str; 8] = [
    "Metric (unit)",
    "#Baseline",
    "#Candidate",
    "#Improvement",
    "#95 % interval (bootstrap)",
    "#Lower bound (one-sided 5 %)",
    "#One-sided p",
    "#p by permutation",
];

fn metric_row(own: &MetricFacts) -> Vec<Cell> {
    let or = |value: Option<String>| Cell::number(value.unwrap_or_else(|| "none".to_owned()));
    let interval = own.interval_ppm.as_ref();
    vec![
        Cell::text(metric(&own.name)),
        Cell::number(decimal(&own.baseline_ppm)),
        Cell::number(decimal(&own.candidate_ppm)),
        Cell::number(decimal(&own.delta_ppm)),
        or(interval.map(|[low, high]| format!("{} to {}", decimal(low), decimal(high)))),
        or(own.lower_ppm.as_deref().map(decimal)),
        or(own.p_e9.as_deref().map(billionths)),
        or(own.permutation_p_e9.as_deref().map(billionths)),
    ]
}

/// A number of millionths for a drawing.
fn real(ppm: &str) -> Option<f64> {
    ppm.parse::<i64>().ok().map(|ppm| ppm as f64 / 1e6)
}

fn guardrails(out: &mut Markup, figures: &FullRecord, laid: Option<&Preregistration>) {
    let Some(laid) = laid.filter(|laid| !laid.guardrails.is_empty()) else {
        out.paragraph("No guardrail was declared.");
        return;
    };
    let of = |own: &Margin| figures.metrics.iter().find(|metric| metric.name == own.name);
    let passes = |own: &Margin| {
        let lower: Option<i64> = of(own).and_then(|metric| metric.lower_ppm.as_ref()?.parse().ok());
        lower.zip(own.margin_ppm.parse::<i64>().ok()).is_some_and(|(lower, margin)| lower > -margin)
    };
    let rows = laid.guardrails.iter().map(|own| {
        let figure = |value: Option<&String>| Cell::number(value.map_or_else(|| "none".to_owned(), |ppm| decimal(ppm)));
        vec![
            Cell::text(metric(&own.name)),
            figure(of(own).map(|metric| &metric.delta_ppm)),
            figure(of(own).and_then(|metric| metric.lower_ppm.as_ref())),
            Cell::number(decimal(&own.margin_ppm)),
            shown(passes(own)),
        ]
    });
    let headings =
        ["Guardrail (unit)", "#Improvement", "#Lower bound (one-sided 5 %)", "#Margin", "Not worse by the margin"];
    // Metrics have units of their own: beside each other they stand in their margins.
    let in_margins = laid.guardrails.iter().filter_map(|own| {
        let (metric, margin) = (of(own)?, real(&own.margin_ppm).filter(|margin| *margin > 0.0)?);
        let (delta, lower) = (real(&metric.delta_ppm)? / margin, real(metric.lower_ppm.as_ref()?)? / margin);
        Some(Bound { name: own.name.clone(), delta, lower, margin: 1.0, passed: passes(own) })
    });
    plot(
        out,
        ("Guardrails against their margins", AGAINST_MARGINS),
        "improvement, in margins of each guardrail",
        &in_margins.collect::<Vec<_>>(),
    );
    table(out, "Metrics that must not get worse", &headings, rows, "");
}

fn shown(passed: bool) -> Cell {
    Cell::Verdict(passed, if passed { "shown" } else { "not shown" })
}

/// How a plot of improvements against margins is read.
const AGAINST_MARGINS: &str = ": the dot is the improvement, the bar reaches down to its lower bound, the upright mark is the margin. What reaches beyond its mark is not shown to be harmless.";
/// How a plot of the players' values is read.
const OF_PLAYERS: &str = ": the dot is a player's value, the bar reaches down by one standard error. Green is what is significantly above 0.";

fn plot(out: &mut Markup, (label, reading): (&str, &str), unit: &str, bounds: &[Bound]) {
    if bounds.is_empty() {
        return;
    }
    out.raw("<figure>\n");
    drawing::bounds(out, label, unit, bounds, MOST_LINES);
    out.raw("<figcaption>").text(label);
    out.text(reading);
    if bounds.len() > MOST_LINES {
        out.text(format_args!(" The first {MOST_LINES} of {} are drawn.", bounds.len()));
    }
    out.raw("</figcaption>\n</figure>\n");
}

fn strata(out: &mut Markup, strata: &[StratumFacts], primary: &str) {
    let bounds = strata.iter().filter_map(|own| {
        let (delta, lower, margin) = (real(&own.delta_ppm)?, real(&own.lower_ppm)?, real(&own.margin_ppm)?);
        Some(Bound { name: own.name.clone(), delta, lower, margin, passed: own.passed })
    });
    let unit = format!("improvement of {}", metric(primary));
    plot(out, ("Strata against their margins", AGAINST_MARGINS), &unit, &bounds.collect::<Vec<_>>());
    let rows = strata.iter().map(|own| {
        vec![
            Cell::text(&own.name),
            Cell::number(own.n),
            Cell::number(decimal(&own.delta_ppm)),
            Cell::number(decimal(&own.lower_ppm)),
            Cell::number(decimal(&own.margin_ppm)),
            Cell::number(own.p_e9.as_deref().map_or_else(|| "none".to_owned(), billionths)),
            shown(own.passed),
        ]
    });
    let headings = [
        "Stratum",
        "#Rows",
        "#Improvement",
        "#Lower bound (one-sided 5 %)",
        "#Margin",
        "#p of being better (Holm)",
        "Not worse by the margin",
    ];
    table(out, "The primary metric by stratum", &headings, rows, "No stratum was compared.");
}

fn drawings(out: &mut Markup, drawn: &Drawn) {
    out.heading("Plots");
    out.raw("<p class=\"note\">").text(format_args!(
        "Summed up from {} sealed rows so that no place stands for fewer than {LEAST}; the figures above are computed on every row.",
        drawn.rows
    ));
    out.raw("</p>\n<div class=\"plots\">\n");
    if let Some([baseline, candidate]) = &drawn.roc {
        out.raw("<figure>\n");
        drawing::roc(out, baseline, candidate);
        out.raw("<figcaption>Receiver operating characteristic. The diagonal is what a coin does.</figcaption>\n</figure>\n");
    }
    let [baseline, candidate] = &drawn.reliability;
    if !baseline.is_empty() || !candidate.is_empty() {
        let (names, caption) = match drawn.task {
            "binary" => (
                ("mean predicted probability", "share of rows of class 1"),
                "Calibration. On the diagonal a probability is what it says.",
            ),
            "multiclass" => (
                ("mean score of the chosen class", "share of rows that are right"),
                "Calibration of the chosen class. Below the diagonal a model is too sure.",
            ),
            _ => (
                ("mean prediction", "mean of the label"),
                "Calibration. On the diagonal predictions are right on average.",
            ),
        };
        out.raw("<figure>\n");
        drawing::reliability(out, [baseline, candidate], names);
        out.raw("<figcaption>").text(caption).raw("</figcaption>\n</figure>\n");
    }
    out.raw("</div>\n");
    if drawn.task == "binary" && drawn.roc.is_none() {
        out.paragraph("A class has too few rows for a ROC curve that tells none of them.");
    }
    let rows = [("baseline", baseline), ("candidate", candidate)].into_iter().flat_map(|(name, bins)| {
        bins.iter().map(move |bin: &Bin| {
            let millionths = |value: i64| Cell::number(micro_string(i128::from(value)));
            vec![Cell::text(name), Cell::number(bin.rows), millionths(bin.predicted), millionths(bin.observed)]
        })
    });
    let headings = ["Model", "#Rows", "#Mean predicted", "#Mean observed"];
    table(out, "Calibration by bin", &headings, rows, "There are too few rows for bins.");
}

/// What a player is called: its first contributor, and how many more.
fn called(player: &Player) -> String {
    let first = player.members.first().map_or("the rest", |member| member.contributor.as_str());
    match player.contributors - 1 {
        more if more > 0 => format!("{first} and {more} more"),
        _ => first.to_owned(),
    }
}

/// Who is credited with the improvement, and with how much of it.
fn attribution(out: &mut Markup, report: &EvaluationReport) {
    out.heading("Attribution");
    let Some(told) = &report.attribution else {
        out.paragraph(if report.told.status == Evaluation::ACCEPTED {
            "No attribution of this improvement to contributors has been published."
        } else {
            "Only improvements that were accepted are attributed to contributors."
        });
        return;
    };
    if told.status != Attribution::ATTRIBUTED {
        out.paragraph(format_args!("The improvement could not be attributed: {}. {}", told.reason, told.detail));
        return;
    }
    out.paragraph(format_args!(
        "The game ({}, {} small trainings under {} seeds) is worth {} of the improvement by {}; {} is nobody's. {}",
        told.method,
        told.trainings,
        told.seeds,
        told.delta_game,
        told.delta,
        told.remainder,
        if told.payable {
            "The shares may be paid.".to_owned()
        } else {
            format!("Nothing is payable: {}.", told.reasons.join(", "))
        }
    ));
    let values = told.players.iter().filter_map(|player| {
        let (value, error) = (player.effect.parse::<f64>().ok()?, player.standard_error.parse::<f64>().ok()?);
        Some(Bound {
            name: called(player),
            delta: value,
            lower: value - error,
            margin: 0.0,
            passed: player.significant,
        })
    });
    let label = ("Values of the players", OF_PLAYERS);
    plot(out, label, &format!("part of the improvement of {}", told.metric), &values.collect::<Vec<_>>());
    let players = told.players.iter().map(|player| {
        let share: i64 = player
            .members
            .iter()
            .map(|member| {
                told.shares
                    .iter()
                    .find(|share| share.contributor == member.contributor)
                    .map_or(0, |share| share.basis_points)
            })
            .sum();
        vec![
            Cell::text(called(player)),
            Cell::number(player.rows),
            Cell::number(&player.effect),
            Cell::number(&player.standard_error),
            shown(player.significant),
            Cell::number(share),
        ]
    });
    let headings = ["Contributors", "#Rows", "#Shapley value", "#Standard error", "Above 0", "#Basis points"];
    table(
        out,
        "Values of the players, and their shares of what is payable",
        &headings,
        players,
        "The game has no players.",
    );
}

fn checking(out: &mut Markup, report: &EvaluationReport) {
    out.heading("Check it yourself");
    let (Some(laid), Some(outcome)) = (&report.preregistration, &report.outcome) else {
        out.paragraph("The request was no attempt: nothing of it stands in the log.");
        return;
    };
    out.paragraph(
        "Both statements are signed entries of an append-only log. Whether the preregistration stands before the outcome, and how many \
         attempts came before this one, can be checked without trusting this page or whoever made it:",
    );
    out.raw("<pre>hokusai attestation export ").text(&outcome.leaf).raw(" -o bundle.json\n");
    out.raw("hokusai attestation log -o log.jsonl\n");
    out.raw("hokusai verify bundle.json --trust trust.json --log log.jsonl\n</pre>\n");
    out.paragraph(format_args!("Preregistration: leaf {} (index {}).", laid.leaf, laid.index));
}
