//! The page of a compliance report.

use super::compliance::{Asked, Compliance, Evaluated, Listed, PersonalData, Promotion};
use super::markup::{self, Markup};
use super::table::{Cell, table};

/// The page.
pub(super) fn page(report: &Compliance) -> String {
    let mut out = Markup::new();
    personal_data(&mut out, &report.personal_data);
    access(&mut out, &report.access);
    decisions(&mut out, report);
    promotions(&mut out, report);
    out.heading("How to read this");
    out.paragraph(
        "Receipts count by when the broker appended their contribution's last chunk, everything else by when it was recorded on its \
         topic; the period includes its beginning and not its end. The same records give the same page, byte for byte. There is no \
         value of a row in it: personal data appears as counts. Of evaluations that were not accepted nothing stands here but what is \
         published of them. A signer is the id of an Ed25519 key: `hokusai keys trust show` says whose it is, and each leaf hash is \
         what `hokusai attestation export` takes, so that a promotion can be checked offline with `hokusai verify`.",
    );
    let subtitle = format!("{} to {} (UTC)", report.from, report.to);
    markup::page("Compliance report", &subtitle, &out)
}

/// What is left out of a list is said.
fn cut<T>(out: &mut Markup, list: &Listed<T>, query: &str) {
    let left = list.total.saturating_sub(list.listed.len() as u64);
    if left > 0 {
        out.raw("<p class=\"note\">")
            .text(format_args!("The first {} are listed; {left} more: `hokusai sql \"{query}\"`.", list.listed.len()))
            .raw("</p>\n");
    }
}

fn personal_data(out: &mut Markup, data: &PersonalData) {
    out.heading("Personal data found, and the policy applied");
    let receipts: Vec<String> = data.receipts.iter().map(|(status, n)| format!("{n} {status}")).collect();
    let receipts = if receipts.is_empty() { "none".to_owned() } else { receipts.join(", ") };
    out.paragraph(format_args!(
        "Receipts: {receipts}. Rows: {} received, {} accepted, {} refused because a column was full of personal data that nothing \
         announced (PII_UNDECLARED).",
        data.rows_received, data.rows_accepted, data.rows_refused_undeclared
    ));
    let rows = data.found.iter().map(|found| {
        vec![
            Cell::text(&found.model),
            Cell::code(&found.kind),
            Cell::number(found.cells),
            Cell::number(found.contributions),
        ]
    });
    let none = "No cell with personal data was found in this period.";
    table(out, "Cells that held personal data", &["Model", "Type", "#Cells", "#Contributions"], rows, none);
    out.paragraph(
        "Whatever was found in a column that the next table does not name was replaced by a keyed token before anything was written \
         behind intake.",
    );
    let rows = data.policies.iter().map(|own| {
        let to = own.to.iter().map(|to| format!(" to {to}")).collect::<String>();
        vec![
            Cell::text(&own.model),
            Cell::text(&own.column),
            Cell::text(format!("{}{to}", own.policy)),
            Cell::code(own.kind.as_deref().unwrap_or("as detected")),
            Cell::text(own.reason.as_deref().unwrap_or_default()),
            Cell::code(&own.contract_digest),
        ]
    });
    let headings = ["Model", "Column", "Policy", "Type", "Reason given", "Contract"];
    let none = "The contracts of this period's receipts order nothing else for any column.";
    table(out, "What the contracts order, column by column", &headings, rows, none);
}

const ASKED: [&str; 6] = ["Time (UTC)", "Actor (key id)", "Action", "On", "Answer", "Why"];

fn asked(entry: &Asked) -> Vec<Cell> {
    vec![
        Cell::Time(entry.time.clone()),
        Cell::code(&entry.actor),
        Cell::text(&entry.action),
        Cell::text(&entry.resource),
        Cell::Verdict(entry.allowed, if entry.allowed { "allowed" } else { "denied" }),
        Cell::text(&entry.reason),
    ]
}

fn access(out: &mut Markup, list: &Listed<Asked>) {
    out.heading("Access");
    out.paragraph(format_args!(
        "Looks at plaintext and sealed rows, retries of dead letters, changes of keys: {}.",
        list.total
    ));
    let none = "Nobody asked for anything of the kind in this period.";
    table(out, "Who asked for access to what", &ASKED, list.listed.iter().map(asked), none);
    cut(out, list, "select * from audit where resource not like 'model/%'");
}

fn decisions(out: &mut Markup, report: &Compliance) {
    out.heading("Decisions");
    let list = &report.decisions;
    let denied = list.listed.iter().filter(|entry| !entry.allowed).count();
    out.paragraph(format_args!(
        "On models: {} ({denied} of those listed denied). Evaluations: {}.",
        list.total, report.evaluations.total
    ));
    let none = "Nothing was asked of the model registry in this period.";
    table(out, "What was asked of models, and the answer", &ASKED, list.listed.iter().map(asked), none);
    cut(out, list, "select * from audit where resource like 'model/%'");
    let headings = [
        "Time (UTC)",
        "Evaluation",
        "Model",
        "Benchmark",
        "#Attempt",
        "#Level α",
        "Outcome",
        "Metric",
        "#Improvement",
        "#Lower bound",
        "Reasons",
    ];
    let none = "No evaluation ended in this period.";
    let rows = report.evaluations.listed.iter().map(evaluated);
    table(out, "Evaluations on sealed benchmarks", &headings, rows, none);
    cut(out, &report.evaluations, "select * from evaluations");
}

fn evaluated(entry: &Evaluated) -> Vec<Cell> {
    let told = &entry.told;
    let figure = |value: &Option<String>| Cell::number(value.as_deref().unwrap_or("not told"));
    vec![
        Cell::Time(entry.time.clone()),
        Cell::code(&told.evaluation_id),
        Cell::text(&told.model),
        Cell::text(&told.benchmark),
        Cell::number(told.attempt),
        Cell::number(&told.alpha),
        Cell::text(&told.status),
        Cell::text(&told.metric),
        figure(&told.delta),
        figure(&told.lower),
        Cell::text(told.reasons.join(", ")),
    ]
}

fn promotions(out: &mut Markup, report: &Compliance) {
    out.heading("Promotions, with signer");
    let headings = [
        "Time (UTC)",
        "Model",
        "Version",
        "Action",
        "From",
        "To",
        "Replaced",
        "Rule",
        "Signer (key id)",
        "Attested as leaf",
        "#Log index",
    ];
    let none = "No version came into another stage in this period.";
    table(out, "Versions that came into a stage", &headings, report.promotions.listed.iter().map(promoted), none);
    cut(out, &report.promotions, "select * from attestations where predicate_type like '%/registry/v1'");
    if report.transitions_without_statement > 0 {
        out.paragraph(format_args!(
            "{} more such commands were allowed and have no statement in the log: they changed nothing because it was so already, or are \
             not attested yet. They stand among the decisions.",
            report.transitions_without_statement
        ));
    }
}

fn promoted(entry: &Promotion) -> Vec<Cell> {
    vec![
        Cell::Time(entry.time.clone()),
        Cell::text(&entry.model),
        Cell::text(&entry.version),
        Cell::text(&entry.action),
        Cell::text(entry.from_stage.as_deref().unwrap_or("new")),
        Cell::text(&entry.stage),
        Cell::text(entry.replaced.as_deref().unwrap_or("nothing")),
        Cell::text(&entry.rule),
        Cell::code(&entry.signer),
        Cell::code(&entry.leaf),
        Cell::number(entry.index),
    ]
}
