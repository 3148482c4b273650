//! Cuts the demo's data into what the carriers would send: `flights_split FLIGHTS.parquet OUT_DIR`.
//!
//! Each carrier gets a folder with its months as Parquet; three of them use other formats, as contributors do (CSV, Arrow IPC, JSON lines).
//! Every twentieth flight that arrived is kept from everybody, as `benchmark.parquet`; every fiftieth of the others is the platform's
//! own small sample, `platform.parquet`.
//! One carrier, Frontier (F9), also sends `F9/2013-troubled.csv`: rows of another carrier, broken rows, and rows with agents' e-mail
//! addresses and phone numbers. Those are synthetic, and say so in the column `agent_note`; the flights are real.
//! The same input gives the same bytes.

use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchReader};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimeUnit, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

/// Who troubles the others, and whose rows it sends as its own.
const TROUBLED: (&str, &str) = ("F9", "WN");
/// One flight in so many measures models, and one of the others in so many is the platform's own.
const BENCHMARK: usize = 20;
const SAMPLE: usize = 50;
/// How many rows of each kind of trouble.
const COPIES: usize = 200;
const SYNTHETIC: usize = 120;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, out] = arguments.as_slice() else { bail!("usage: flights_split FLIGHTS.parquet OUT_DIR") };
    let flights = read(Path::new(input))?;
    let out = Path::new(out);
    fs::create_dir_all(out).with_context(|| format!("{}: cannot be created", out.display()))?;
    let (benchmark, flights) = apart(&flights, |row, late| row % BENCHMARK == 0 && late.is_valid(row))?;
    let (sample, flights) = apart(&flights, |row, _| row % SAMPLE == 0)?;
    write(&benchmark, "", &out.join("benchmark"))?;
    write(&sample, "", &out.join("platform"))?;
    for carrier in values(&flights, "carrier")? {
        let own = select(&flights, "carrier", |row, column| column.as_string::<i32>().value(row) == carrier)?;
        let folder = out.join(&carrier);
        fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be created", folder.display()))?;
        write_months(&own, &carrier, &folder)?;
    }
    fs::write(out.join(TROUBLED.0).join("2013-troubled.csv"), troubled(&flights)?)?;
    Ok(())
}

fn read(path: &Path) -> Result<RecordBatch> {
    let file = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(65_536).build()?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    by_offset(&concat_batches(&schema, &batches)?)
}

/// The same rows with "+00:00" for "UTC": names of time zones need a database of them to be printed.
fn by_offset(batch: &RecordBatch) -> Result<RecordBatch> {
    let zone = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let column = match field.data_type() {
            DataType::Timestamp(..) => {
                Arc::new(column.as_primitive::<TimestampMillisecondType>().clone().with_timezone("+00:00"))
            }
            _ => Arc::clone(column),
        };
        let kind =
            if matches!(field.data_type(), DataType::Timestamp(..)) { zone.clone() } else { field.data_type().clone() };
        (Field::new(field.name(), kind, field.is_nullable()), column)
    });
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array> {
    Ok(batch.column_by_name(name).with_context(|| format!("no column {name}"))?.as_ref())
}

fn values(batch: &RecordBatch, name: &str) -> Result<BTreeSet<String>> {
    Ok(column(batch, name)?.as_string::<i32>().iter().flatten().map(str::to_owned).collect())
}

fn select(batch: &RecordBatch, name: &str, keep: impl Fn(usize, &dyn Array) -> bool) -> Result<RecordBatch> {
    let column = column(batch, name)?;
    let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(keep(row, column))).collect();
    Ok(filter_record_batch(batch, &mask)?)
}

/// The rows that are taken, and the others.
fn apart(batch: &RecordBatch, take: impl Fn(usize, &dyn Array) -> bool) -> Result<(RecordBatch, RecordBatch)> {
    Ok((select(batch, "late", &take)?, select(batch, "late", |row, column| !take(row, column))?))
}

fn write_months(own: &RecordBatch, carrier: &str, folder: &Path) -> Result<()> {
    for month in 1..=12 {
        let rows = select(own, "month", |row, column| column.as_primitive::<Int32Type>().value(row) == month)?;
        if rows.num_rows() > 0 {
            write(&rows, carrier, &folder.join(format!("2013-{month:02}")))?;
        }
    }
    Ok(())
}

fn write(rows: &RecordBatch, carrier: &str, stem: &Path) -> Result<()> {
    let create = |extension: &str| File::create(stem.with_extension(extension));
    match carrier {
        "AS" => Ok(arrow::csv::Writer::new(create("csv")?).write(rows)?),
        "HA" => {
            let mut writer = arrow::ipc::writer::FileWriter::try_new(create("arrow")?, &rows.schema())?;
            writer.write(rows)?;
            Ok(writer.finish()?)
        }
        "OO" => {
            let mut writer = arrow::json::LineDelimitedWriter::new(create("jsonl")?);
            writer.write(rows)?;
            Ok(writer.finish()?)
        }
        _ => {
            let zstd = Compression::ZSTD(ZstdLevel::try_new(3)?);
            let properties = WriterProperties::builder().set_compression(zstd).build();
            let mut writer = ArrowWriter::try_new(create("parquet")?, rows.schema(), Some(properties))?;
            writer.write(rows)?;
            writer.close()?;
            Ok(())
        }
    }
}

/// A CSV file with every kind of trouble, each kind a fixed number of times.
fn troubled(flights: &RecordBatch) -> Result<String> {
    let of =
        |carrier: &'static str| select(flights, "carrier", move |row, c| c.as_string::<i32>().value(row) == carrier);
    let (own, others) = (of(TROUBLED.0)?, of(TROUBLED.1)?);
    let mut csv: String = own.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(",");
    csv.push_str(",agent_email,agent_phone,agent_note\n");
    for row in 0..COPIES {
        line(&mut csv, &cells(&others, row)?, "", "", "");
    }
    broken(&mut csv, &own)?;
    for n in 0..SYNTHETIC {
        let mut cells = cells(&own, n)?;
        // A flight number that no carrier uses keeps these rows apart from the real ones.
        cells[index(&own, "flight")?] = (9_000 + n).to_string();
        let email = format!("agent{:03}.synthetic@example.com", n % 40);
        let phone = format!("+1 212-555-{:04}", 100 + n % 40);
        line(&mut csv, &cells, &email, &phone, &format!("synthetic contact: write to {email} or call {phone}"));
    }
    Ok(csv)
}

/// Rows that break one rule each.
fn broken(csv: &mut String, own: &RecordBatch) -> Result<()> {
    let breaks = [
        ("distance", "-5"),
        ("distance", "far"),
        ("hour", "31"),
        ("origin", "XXX"),
        ("dest", "nowhere"),
        ("event_time", "next Tuesday"),
        ("event_time", "2999-01-01T00:00:00Z"),
        ("carrier", ""),
        ("sched_dep_time", "1275"),
        ("late", ""),
    ];
    for (n, (name, value)) in breaks.into_iter().cycle().take(5 * breaks.len()).enumerate() {
        let mut cells = cells(own, n)?;
        cells[index(own, name)?] = value.to_owned();
        cells[index(own, "flight")?] = (8_600 + n).to_string();
        line(csv, &cells, "", "", "");
    }
    Ok(())
}

fn index(batch: &RecordBatch, name: &str) -> Result<usize> {
    Ok(batch.schema().index_of(name)?)
}

fn cells(batch: &RecordBatch, row: usize) -> Result<Vec<String>> {
    let format = FormatOptions::default().with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%SZ"));
    let cell = |column: &dyn Array| Ok(ArrayFormatter::try_new(column, &format)?.value(row).to_string());
    batch.columns().iter().map(|column| cell(column.as_ref())).collect()
}

fn line(csv: &mut String, cells: &[String], email: &str, phone: &str, note: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(csv, "{},{email},{phone},{note}", cells.join(","));
}
