//! CPU time of intake per row: a 20,000-row CSV chunk with the columns of `benches/peers/intake_gen.py`, from the
//! record to the encoded outputs. What is measured is the thread's CPU time, so that a busy machine does not matter much.

#![allow(missing_docs, clippy::expect_used)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hokusai::codec::wire::Wire;
use hokusai::domain::contract::Spec;
use hokusai::domain::keys::KeyRing;
use hokusai::domain::records::{Contribution, Model, ModelContract};
use hokusai::domain::topics;
use hokusai::stages::intake::{Intake, Limits};
use hokusai::stream::stage::{Batch, Context, Outputs, Stage};

const ROWS: usize = 20_000;
const NOW: i64 = 1_800_000_000_000;
const CONTRACT: &str = include_str!("intake.yaml");
const WORDS: &str = "the order arrived late and support was slow to answer but refund came quickly product works fine battery drains \
    fast screen is bright would buy again price changed after checkout app crashes on login please fix delivery box damaged";

/// CPU time of this thread, as Linux accounts for it.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
        stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("nanoseconds")
    }
    fn end(&self, start: u64) -> u64 {
        self.start() - start
    }
    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }
    fn zero(&self) -> u64 {
        0
    }
    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// A small generator of our own: the same document everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn of<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }
}

fn document() -> String {
    let mut r = Random(7);
    let words: Vec<_> = WORDS.split_whitespace().collect();
    let mut text = "contributor,event_time,age,balance,plan,country,email,phone,comment,label\n".to_owned();
    for _ in 0..ROWS {
        let email = format!("anna.novak{}@example.com", r.below(99_999));
        let mut comment: Vec<_> = (0..8 + r.below(17)).map(|_| r.of(&words).to_owned()).collect();
        if r.below(10) == 0 {
            comment.push(format!("mail me at {email}"));
        }
        let fault = r.below(1000);
        let age = if fault < 4 { 200 + r.below(700) } else { 18 + r.below(73) };
        let plan =
            if (4..7).contains(&fault) { "gold??" } else { r.of(&["basic", "standard", "premium", "enterprise"]) };
        let email = if (7..10).contains(&fault) { String::new() } else { email };
        text.push_str(&format!(
            "c{:04},2024-{:02}-{:02}T{:02}:{:02}:{:02},{age},{}.{:02},{plan},{},{email},+1 415-{:03}-{:04},{},{}\n",
            r.below(500),
            1 + r.below(12),
            1 + r.below(28),
            r.below(24),
            r.below(60),
            r.below(60),
            r.below(4000),
            r.below(100),
            r.of(&["US", "DE", "FR", "IN"]),
            200 + r.below(800),
            r.below(10_000),
            comment.join(" "),
            usize::from(r.below(100) < 27)
        ));
    }
    text
}

fn stage(wire: &Wire) -> Intake {
    let hex = |digit: &str| digit.repeat(64);
    let ring = format!(
        r#"{{"version":1,"tenant":"bench","tokens":[{{"id":"k1","secret":"{}"}}],"dedup":"{}","tree":"{}"}}"#,
        hex("1"),
        hex("2"),
        hex("3")
    );
    let mut stage = Intake::new(Arc::new(KeyRing::from_json(&ring).expect("a ring")), Limits::default());
    let spec = Spec::parse_yaml(CONTRACT, "bench.yaml").expect("a contract");
    let digest = spec.contract_digest().expect("a digest");
    let contract = ModelContract { digest: digest.clone(), revision: 1, spec: spec.canonical_json().expect("json") };
    let model = Model {
        model: "intake-bench".to_owned(),
        revision: 1,
        contract_digest: digest,
        contracts: vec![contract],
        commands: vec![],
        intake_key: None,
        ..Model::default()
    };
    let record = wire.encode(&model).expect("a record");
    stage.broadcast(topics::MODELS, b"intake-bench", Some(&record), wire).expect("a model");
    stage
}

fn batch(wire: &Wire, payload: Vec<u8>) -> Batch {
    let contribution = Contribution {
        contribution_id: Some("bench".to_owned()),
        contributor: "bench".to_owned(),
        model: "intake-bench".to_owned(),
        contract_digest: None,
        format: "csv".to_owned(),
        chunk: 0,
        chunks: 1,
        payload,
        sealed: None,
        signature: None,
    };
    let mut batch = Batch::new(topics::CONTRIBUTIONS, 0);
    batch.push(0, NOW, None, Some(&wire.encode(&contribution).expect("a record")));
    batch
}

fn intake(criterion: &mut Criterion<CpuTime>) {
    let wire = Wire::default();
    let mut stage = stage(&wire);
    let partitions: BTreeMap<String, i32> =
        [(topics::SCREENED, 2), (topics::MANIFESTS, 2), (topics::REFUSED, 1)].map(|(t, n)| (t.to_owned(), n)).into();
    let context = Context { partition: 0, broadcast_is_current: true, partitions: &partitions };
    let text = document();
    let one_row: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    let mut group = criterion.benchmark_group("intake");
    for (name, rows, document) in [("20,000 rows of CSV", ROWS, text), ("one row of CSV", 1, one_row)] {
        let batch = batch(&wire, document.into_bytes());
        group.throughput(Throughput::Elements(rows as u64)).bench_function(name, |b| {
            b.iter(|| {
                let mut out = Outputs::new(&wire);
                stage.process(&context, &mut (), black_box(&batch), &mut out).expect("processed");
                black_box(out.into_parts())
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime).sample_size(20);
    targets = intake
}
criterion_main!(benches);
