//! Reports as people meet them: a period for an auditor, an evaluation for whoever may see it, a contributor's account; in a real browser.

use super::evaluation::{base, contributed, model, prepared, text, train};
use crate::support::broker::Kind;
use crate::support::browser::console;
use crate::support::cluster::{Cluster, with};
use crate::support::flow::{contribute, contribution, receipt, row, shop, shop_spec};
use crate::support::late::rows;
use crate::support::{eventually, skip, unique};
use serde_json::{Value, json};
use std::path::PathBuf;

const HOSTILE: &str = "\"><script>console.error('x')</script><img src=x onerror=alert(1)>\u{202e}";

/// Writes a report; its file.
fn written(cluster: &Cluster, arguments: &[&str]) -> PathBuf {
    let file = cluster.scratch().join(format!("{}.html", unique("report")));
    let path = file.to_string_lossy().into_owned();
    let arguments: Vec<&str> = ["report"].into_iter().chain(arguments.to_vec()).chain(["-o", &path]).collect();
    let run = cluster.run(&arguments);
    assert_eq!(run.code, Some(0), "{arguments:?}: {run:?}");
    file
}

fn read(file: &PathBuf) -> String {
    std::fs::read_to_string(file).expect("a page")
}

fn audited(cluster: &Cluster, action: &str, resource: &str) -> usize {
    let of_it = |record: &&Value| record["value"]["action"] == action && record["value"]["resource"] == resource;
    cluster.watch("audit").iter().filter(of_it).count()
}

#[test]
fn an_evaluation_is_told_as_far_as_may_be_and_opened_by_its_owner_alone() {
    with(Kind::Embedded, 0, |cluster| {
        let model = model(cluster);
        let (_, wrong) = prepared(cluster, &model, base(), &unique("first"));
        let run = train(cluster, &model, &unique("better"), &["--benchmark", "holdout"]);
        let told = &run["evaluation"];
        let id = text(told, "/evaluation_id");
        assert_eq!(text(told, "/status"), "accepted", "{run}");
        let worse = ["--benchmark", "holdout", "--base-version", text(&run, "/version"), "--as-of", &wrong];
        let null = train(cluster, &model, &unique("null"), &worse);
        let refused = text(&null, "/evaluation/evaluation_id");
        let resource = |id: &str| format!("evaluation/{id}");

        let published = written(cluster, &[id]);
        let page = read(&published);
        for figure in ["/delta", "/lower", "/p_value", "/alpha", "/preregistration"] {
            assert!(page.contains(text(told, figure)), "{figure} of {told} is not on the page");
        }
        assert!(page.contains("Guardrails against their margins") && !page.contains("ROC curves"));
        let secret = written(cluster, &[refused]);
        let page = read(&secret);
        assert!(
            page.contains("NOT_SIGNIFICANT") && page.contains("None are published") && !page.contains("<svg"),
            "{page}"
        );
        assert_eq!(
            (
                audited(cluster, "evaluation.open", &resource(id)),
                audited(cluster, "evaluation.open", &resource(refused))
            ),
            (0, 0)
        );

        let opened = written(cluster, &[refused, "--open", "--reason", "a test"]);
        let page = read(&opened);
        assert!(page.contains("ROC curves") && page.contains("Reliability") && page.contains("published nowhere"));
        assert_eq!(audited(cluster, "evaluation.open", &resource(refused)), 1);
        let again = written(cluster, &[refused, "--open"]);
        assert_eq!(read(&again), page, "the same evaluation is the same bytes");
        // Nothing of a row in it: no place of a drawing stands for fewer than twenty.
        let facts = cluster.lines(&["report", id, "--open"]).remove(0);
        let bins =
            facts["drawn"]["reliability"].as_array().expect("bins").iter().flat_map(|of| of.as_array().expect("bins"));
        assert!(bins.clone().count() > 4 && bins.into_iter().all(|bin| bin["rows"].as_u64() >= Some(20)), "{facts}");
        // Without the owner's key nothing is opened, and nothing claims to have been.
        let strangers = cluster.scratch().join(unique("keys"));
        std::fs::create_dir(&strangers).expect("a folder");
        let denied = cluster.run(&["report", id, "--open", "--keys", &strangers.to_string_lossy()]);
        assert!(denied.code == Some(1) && denied.err.contains("evaluation key"), "{denied:?}");
        assert_eq!(audited(cluster, "evaluation.open", &resource(id)), 1);
        let unknown = cluster.run(&["report", &"0".repeat(32)]);
        assert!(unknown.code == Some(1) && unknown.err.contains("help:"), "{unknown:?}");
        for page in [&published, &secret, &opened] {
            in_a_browser(page);
        }
    });
}

#[test]
fn a_period_tells_personal_data_access_decisions_and_promotions_with_their_signer() {
    with(Kind::Embedded, 0, |cluster| {
        let shop = unique("shop");
        let note = "      - name: note\n        logicalType: string\n";
        let kept = format!("{note}        pii: {{policy: keep, reason: \"<script>console.error('x')</script>\"}}\n");
        let digest = cluster.apply(&shop, &shop_spec(&shop).replace(note, &kept));
        let id = unique("told");
        contribute(cluster, &[contribution(&id, HOSTILE, &shop, &[row(1), row(2), row(3)])]);
        assert_eq!(receipt(cluster, &id)["pii"], json!([{"type": "email_address", "count": 3}]));
        let model = model(cluster);
        contributed(cluster, &model, &rows(base()..base() + 80, false));
        let run = train(cluster, &model, &unique("only"), &[]);
        let asked =
            ["model", "promote", &model, text(&run, "/version"), "--stage", "production", "--override", HOSTILE];
        let promoted = cluster.lines(&asked).remove(0);
        cluster.lines(&["watch", "contributions", "--plaintext", "--from-beginning", "--until-end"]);

        let report =
            || cluster.lines(&["report", "compliance", "--from", "2020-01-01", "--to", "2100-01-01"]).remove(0);
        let of = |list: &Value| -> Vec<Value> {
            let listed = list["listed"].as_array().expect("a list").iter();
            listed.filter(|entry| entry["model"] == model.as_str()).cloned().collect()
        };
        let report = eventually("the promotion is attested", || {
            let report = report();
            if of(&report["promotions"]).len() == 1 { Ok(report) } else { Err(report["promotions"].to_string()) }
        });
        let promotion = of(&report["promotions"]).remove(0);
        assert_eq!((text(&promotion, "/stage"), &promotion["command_id"]), ("production", &promoted["command_id"]));
        let history = cluster.lines(&["model", "history", &model]);
        let decided = history.iter().find(|entry| entry["action"] == "model.promote").expect("the promotion");
        assert_eq!((&promotion["signer"], &promotion["time"]), (&decided["actor"], &decided["time"]));
        let found = report["personal_data"]["found"].as_array().expect("a list");
        let own: Vec<_> = found.iter().filter(|found| found["model"] == shop.as_str()).collect();
        assert_eq!(own, [&json!({"model": shop, "type": "email_address", "cells": 3, "contributions": 1})]);
        let policies = report["personal_data"]["policies"].as_array().expect("a list");
        assert!(policies.iter().any(|own| own["contract_digest"] == digest.as_str()
            && own["column"] == "email"
            && own["policy"] == "hash"));
        let access = report["access"]["listed"].as_array().expect("a list");
        assert!(access.iter().any(|entry| entry["action"] == "watch.plaintext"), "{access:?}");

        let page = written(cluster, &["compliance", "--from", "2020-01-01", "--to", "2100-01-01"]);
        let html = read(&page);
        assert!(html.contains(text(&promotion, "/signer")) && html.contains(text(&promotion, "/leaf")));
        assert!(
            html.contains("&lt;script&gt;") && !html.contains("<script") && !html.contains("customer1@"),
            "hostile text stays text"
        );
        in_a_browser(&page);
        let empty = cluster.lines(&["report", "compliance", "--from", "2020-01-01", "--to", "2020-01-02"]).remove(0);
        assert_eq!((&empty["promotions"]["total"], &empty["personal_data"]["rows_received"]), (&json!(0), &json!(0)));
        let backwards = cluster.run(&["report", "compliance", "--from", "2026-02-01", "--to", "2026-01-01"]);
        assert!(backwards.code == Some(2) && backwards.err.contains("help:"), "{backwards:?}");
    });
}

#[test]
fn a_contributor_has_an_account_under_name_and_pseudonym() {
    with(Kind::Embedded, 0, |cluster| {
        let (shop, _) = shop(cluster);
        let (who, ids) = (unique(HOSTILE), [unique("c"), unique("c")]);
        contribute(cluster, &[contribution(&ids[0], &who, &shop, &[row(1), row(2), json!({"order": -1})])]);
        receipt(cluster, &ids[0]);
        contribute(cluster, &[contribution(&ids[1], &who, &shop, &[row(1)])]);
        receipt(cluster, &ids[1]);
        let account = eventually("both receipts are attested", || {
            let account = cluster.lines(&["contributor", &who]).remove(0);
            let lines = account["receipts"].as_array().expect("receipts").clone();
            if lines.iter().all(|line| line["attestation"].is_object()) {
                Ok(account)
            } else {
                Err(account.to_string())
            }
        });
        let told: Vec<_> = account["receipts"]
            .as_array()
            .expect("receipts")
            .iter()
            .map(|line| text(line, "/contribution_id"))
            .collect();
        assert_eq!((told, &account["received"]), (vec![ids[0].as_str(), &ids[1]], &json!(4)));
        let leaf = text(&account, "/receipts/0/attestation/leaf");
        assert_eq!(cluster.lines(&["attestation", "show", leaf])[0]["contribution_id"], ids[0].as_str());
        let pseudonym = text(&account, "/pseudonyms/0");
        assert_eq!(cluster.lines(&["contributor", pseudonym]).remove(0), account);
        let shown = cluster.run(&["contributor", &who]);
        assert!(
            shown.code == Some(0) && shown.out.contains("\\u{202e}") && !shown.out.contains('\u{202e}'),
            "{shown:?}"
        );
        let nobody = cluster.run(&["contributor", "nobody at all"]);
        assert!(nobody.code == Some(1) && nobody.err.contains("help:"), "{nobody:?}");
    });
}

/// The page opens in Chromium without a word on its console; one that runs something would have one.
fn in_a_browser(page: &PathBuf) {
    let Some(said) = console(page) else {
        return skip("a page in a browser", "no Chromium (tests/setup.sh installs it)");
    };
    assert!(said.is_empty(), "{}: {said:?}", page.display());
    let spoiled = page.with_extension("spoiled.html");
    let html = read(page).replace("</main>", "<img src=\"x.png\"><script>document.title = 'run'</script></main>");
    std::fs::write(&spoiled, html).expect("a file");
    let said = console(&spoiled).expect("it was there");
    assert_eq!(said.iter().filter(|line| line.contains("Content Security Policy")).count(), 2, "{said:?}");
}
