//! Boosted trees, part by part, on synthetic rows: `cargo bench --bench trees`. Beside LightGBM: `benches/trees.py`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hokusai::ml::bins::{Binned, Cut, cuts};
use hokusai::ml::encoding::{Encoded, Features};
use hokusai::ml::fold::Fold;
use hokusai::ml::histogram::{Histogram, Partial, pack};
use hokusai::ml::model::{Model, Predictor};
use hokusai::ml::random::{Purpose, draw, uniform};
use hokusai::ml::{Task, Training, Unattended, learner};

const ROWS: usize = 100_000;
const NUMBERS: usize = 16;
const CATEGORIES: usize = 4;

/// 16 numbers, a tenth of them missing, and 4 categories of 50 codes.
fn features() -> Features {
    let at = |row: usize, column: usize| uniform(1, Purpose::Trials, column as u32, row as u64);
    let column = |column: usize| {
        let codes = if column < NUMBERS { 0 } else { 50 };
        let value = |row| match (at(row, column), codes) {
            (value, 0) if value < 0.1 => f32::NAN,
            (value, 0) => value as f32,
            (value, codes) => (value * f64::from(codes)).floor() as f32,
        };
        Encoded { values: (0..ROWS).map(value).collect(), codes }
    };
    let columns: Vec<Encoded> = (0..NUMBERS + CATEGORIES).map(column).collect();
    Features { names: (0..columns.len()).map(|i| format!("f{i}")).collect(), columns, rows: ROWS }
}

fn labels(features: &Features) -> Vec<f64> {
    let one = |row: usize| {
        let number = |column: usize| f64::from(features.columns[column].values[row].max(0.0));
        let noise = uniform(2, Purpose::Trials, 0, row as u64);
        f64::from(u8::from(number(0) + number(1) * number(2) + number(17) / 50.0 + noise > 1.6))
    };
    (0..features.rows).map(one).collect()
}

fn parts(c: &mut Criterion) {
    let features = features();
    let cuts_of = cuts(&features, 1);
    let rows: Vec<u32> = (0..ROWS as u32).collect();
    let binned = Binned::of(&features, &cuts_of, &rows, 1);
    let gradients: Vec<u32> = (0..ROWS as u64)
        .map(|row| draw(3, Purpose::Trials, 0, row))
        .map(|draw| pack((draw & 0x7fff) as i32 - 0x4000, (draw >> 20 & 0xffff) as i32))
        .collect();
    let mut group = c.benchmark_group("trees");
    group.throughput(Throughput::Elements((ROWS * (NUMBERS + CATEGORIES)) as u64));
    group.bench_function("exact quantiles", |b| b.iter(|| black_box(cuts(&features, 1))));
    let bins: Vec<usize> = cuts_of.iter().map(Cut::bins).collect();
    let (mut part, mut histogram) = (Partial::new(bins.clone()), Histogram::new(bins));
    group.bench_function("histogram of all rows", |b| {
        b.iter(|| {
            part.fill(&binned, black_box(&gradients), &rows);
            histogram.set(&part, 0);
        });
    });
    group.finish();
}

fn whole(c: &mut Criterion) {
    let features = features();
    let labels = labels(&features);
    let task = Task::Classes(vec!["0".into(), "1".into()]);
    let keys: Vec<u64> = (0..ROWS as u64).collect();
    let mut group = c.benchmark_group("learn 20 trees");
    group.sample_size(10);
    let Ok(trees) = learner("trees") else { return };
    let parameters = serde_json::json!({"iterations": 20});
    for threads in [1, 2] {
        let training = Training {
            features: &features,
            labels: &labels,
            task: &task,
            row_keys: &keys,
            fold: &Fold::Rows,
            seed: 1,
            threads,
            warm: None,
        };
        group.bench_function(format!("{threads} threads"), |b| {
            b.iter_batched(
                || (),
                |()| trees.learn(&training, &parameters, None, &mut Unattended).map(black_box).ok(),
                BatchSize::PerIteration,
            );
        });
        if let (1, Ok(learned)) = (threads, trees.learn(&training, &parameters, None, &mut Unattended)) {
            group.bench_function("score", |b| b.iter(|| black_box(learned.predictor.predictions(&features, &task))));
            read(&mut group, learned.predictor, &task);
        }
    }
    group.finish();
}

fn read(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    predictor: Predictor,
    task: &Task,
) {
    let kind = |column: usize| match column {
        column if column < NUMBERS => hokusai::ml::encoding::Kind::Number,
        _ => hokusai::ml::encoding::Kind::Category((0..49).map(|level| format!("{level:02}")).collect()),
    };
    let features = (0..NUMBERS + CATEGORIES)
        .map(|column| hokusai::ml::encoding::Feature { column: format!("f{column}"), kind: kind(column) })
        .collect();
    let encoding = hokusai::ml::encoding::Encoding { features, ..Default::default() };
    let bytes = Model { task: task.clone(), encoding, predictor }.to_bytes();
    group.bench_function("read and check an artefact", |b| b.iter(|| black_box(Model::from_bytes(&bytes).is_ok())));
}

criterion_group!(benches, parts, whole);
criterion_main!(benches);
