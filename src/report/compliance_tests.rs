use super::*;
use crate::attest::decision::{NamedArtefact, SignedCommand};
use crate::domain::records::{ModelContract, PiiCount, Quality, RefusedCount};

const HOSTILE: &str = "\"><script>alert(1)</script>\u{202e}&";

fn at(time: i64, offset: i64) -> At {
    At { time, partition: 0, offset }
}

fn receipt(model: &str, time: i64, cells: i64) -> Receipt {
    Receipt {
        contribution_id: "c".to_owned(),
        contributor: HOSTILE.to_owned(),
        model: model.to_owned(),
        contract_digest: "ab".repeat(32),
        status: "admitted".to_owned(),
        received: 10,
        accepted: 8,
        refused: vec![RefusedCount { reason: "PII_UNDECLARED".to_owned(), count: 2 }],
        quality: Quality {
            formula: "1".to_owned(),
            score: None,
            validity_lower: None,
            gate: String::new(),
            flags: Vec::new(),
            dimensions: Vec::new(),
        },
        pii: vec![PiiCount { kind: "email_address".to_owned(), count: cells }],
        merkle_root: String::new(),
        merkle_rows: 0,
        chunks: 1,
        bound: Vec::new(),
        chunks_digest: String::new(),
        last_appended: time,
        contributor_verified: false,
        contributor_signature: None,
        leaf: String::new(),
    }
}

fn audit(action: &str, resource: &str, allowed: bool, command: Option<&str>) -> Audit {
    Audit {
        actor: "cd".repeat(32),
        action: action.to_owned(),
        resource: resource.to_owned(),
        allowed,
        reason: HOSTILE.to_owned(),
        command_id: command.map(str::to_owned),
        ..Audit::default()
    }
}

fn model(name: &str) -> Model {
    let text = format!(
        "apiVersion: hokusai/v1\nkind: Model\nname: {name}\nschema:\n  - name: t\n    properties:\n      - {{name: mail, logicalType: string, pii: \
         {{policy: keep, type: email_address, reason: asked for}}}}\n      - {{name: born, logicalType: string, pii: {{policy: generalise, \
         to: birthYear, type: date_of_birth}}}}\n      - {{name: n, logicalType: integer}}\n"
    );
    let spec = Spec::parse_yaml(&text, "test").unwrap().canonical_json().unwrap();
    let contract = |digest: String| ModelContract { digest, revision: 1, spec: spec.clone() };
    let contracts = vec![contract("ab".repeat(32)), contract("ff".repeat(32))];
    Model { model: name.to_owned(), contracts, ..Model::default() }
}

fn decision(command: &str) -> RegistryDecision {
    RegistryDecision {
        action: "promote".to_owned(),
        command: SignedCommand { id: command.to_owned(), payload_digest: String::new(), signer: "ef".repeat(32) },
        from_stage: Some("staging".to_owned()),
        model: "shop".to_owned(),
        replaced: Some(NamedArtefact { digest: "00".repeat(32), version: "1.0.0".to_owned() }),
        revision: 7,
        rule: "EVALUATED e on holdout@1".to_owned(),
        stage: "production".to_owned(),
        version: "1.1.0".to_owned(),
    }
}

fn refused() -> Evaluation {
    Evaluation {
        evaluation_id: "e1".to_owned(),
        model: HOSTILE.to_owned(),
        attempt: 3,
        alpha: "0.003".to_owned(),
        status: "refused".to_owned(),
        reasons: vec!["NOT_SIGNIFICANT".to_owned()],
        metric: "auroc".to_owned(),
        ..Evaluation::default()
    }
}

fn gathered() -> Compliance {
    let mut gather = Gather::new(Period { from: 1_000, to: 2_000 });
    gather.receipt(&receipt("shop", 1_000, 3));
    gather.receipt(&receipt("shop", 1_999, 4));
    gather.receipt(&receipt("shop", 2_000, 100));
    gather.receipt(&receipt(HOSTILE, 1_500, 1));
    gather.model(&model("shop"));
    gather.model(&model("other"));
    gather.audit(at(1_500, 2), audit("model.promote", "model/shop", true, Some("c2")));
    gather.audit(at(1_400, 1), audit("model.promote", &format!("model/{HOSTILE}"), false, Some("c1")));
    gather.audit(at(1_600, 3), audit("model.promote", "model/shop", true, Some("again")));
    gather.audit(at(999, 0), audit("watch.plaintext", "topic/contributions", true, None));
    gather.audit(at(1_001, 5), audit("watch.plaintext", "topic/contributions", true, None));
    gather.decision(9, "aa".repeat(32), &decision("c2"));
    gather.decision(8, "bb".repeat(32), &decision("long ago"));
    // An evaluation that was first refused uncounted, then counted; and one outside the period.
    gather.evaluation(at(1_100, 0), Evaluation { attempt: 0, ..refused() });
    gather.evaluation(at(1_200, 1), refused());
    gather.evaluation(at(5_000, 2), Evaluation { evaluation_id: "late".to_owned(), ..refused() });
    gather.finish()
}

#[test]
fn a_period_counts_what_is_in_it_and_nothing_else() {
    let report = gathered();
    let data = &report.personal_data;
    assert_eq!((data.receipts.get("admitted"), data.rows_received, data.rows_accepted), (Some(&3), 30, 24));
    assert_eq!(data.rows_refused_undeclared, 6);
    let shop = data.found.iter().find(|found| found.model == "shop").unwrap();
    assert_eq!((shop.kind.as_str(), shop.cells, shop.contributions), ("email_address", 7, 2));
    let policies: Vec<_> = data
        .policies
        .iter()
        .map(|p| (p.model.as_str(), p.column.as_str(), p.policy.as_str(), p.to.as_deref()))
        .collect();
    assert_eq!(policies, [("shop", "mail", "keep", None), ("shop", "born", "generalise", Some("birthYear"))]);
    assert_eq!((report.access.total, report.decisions.total), (1, 3));
    assert_eq!(report.evaluations.listed.iter().map(|e| e.told.attempt).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_promotion_stands_with_its_signer_and_one_that_changed_nothing_is_none() {
    let report = gathered();
    let [promotion] = report.promotions.listed.as_slice() else { panic!("{:?}", report.promotions) };
    assert_eq!((promotion.signer.as_str(), promotion.version.as_str()), ("ef".repeat(32).as_str(), "1.1.0"));
    assert_eq!((promotion.index, promotion.time.as_str()), (9, "1970-01-01T00:00:01.500Z"));
    assert_eq!(report.transitions_without_statement, 1);
}

#[test]
fn hostile_names_stay_text_on_the_page_and_the_page_has_no_script() {
    let html = gathered().html();
    assert!(html.contains("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}&amp;"));
    assert!(!html.contains("<script") && !html.contains("http://") && !html.contains("https://"));
    assert!(html.contains("default-src 'none'"), "nothing is loaded or run");
}

#[test]
fn the_same_records_give_the_same_bytes_in_whatever_order_they_are_read() {
    let mut other = Gather::new(Period { from: 1_000, to: 2_000 });
    other.receipt(&receipt(HOSTILE, 1_500, 1));
    other.receipt(&receipt("shop", 1_999, 4));
    other.receipt(&receipt("shop", 1_000, 3));
    other.model(&model("shop"));
    other.audit(at(1_001, 5), audit("watch.plaintext", "topic/contributions", true, None));
    other.audit(at(1_600, 3), audit("model.promote", "model/shop", true, Some("again")));
    other.audit(at(1_500, 2), audit("model.promote", "model/shop", true, Some("c2")));
    other.audit(at(1_400, 1), audit("model.promote", &format!("model/{HOSTILE}"), false, Some("c1")));
    other.decision(9, "aa".repeat(32), &decision("c2"));
    other.evaluation(at(1_200, 1), refused());
    let (first, second) = (gathered(), other.finish());
    assert_eq!(first.html(), second.html());
    assert_eq!(serde_json::to_string(&first).unwrap(), serde_json::to_string(&second).unwrap());
    super::super::tests::assert_golden("compliance.html", &first.html());
}

#[test]
fn a_list_is_bounded_and_says_how_much_there_is() {
    let mut gather = Gather::new(Period { from: 0, to: i64::MAX });
    for number in (0..3_000).rev() {
        gather.audit(at(number, number), audit("model.tag", "model/shop", true, None));
    }
    let report = gather.finish();
    assert_eq!((report.decisions.total, report.decisions.listed.len()), (3_000, MAX_LISTED));
    assert_eq!(report.decisions.listed[0].time, "1970-01-01T00:00:00.000Z", "the earliest are kept");
    assert!(report.html().contains("2000 more"));
}
