//! A stage of one's own on the stream runtime: JSON in, the e-mail replaced by an HMAC, JSON out, exactly once.
//!
//!     own_stage BROKERS IN OUT RECORDS COMMIT_MS NAME
//!
//! NAME is the stage's: progress is kept under it, so the same name goes on where it stopped and another begins anew.
//! It does what the Kafka Streams program in `benches/peers` does, and prints CPU per record as that does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use hokusai::codec::wire::Wire;
use hokusai::stream::stage::{Batch, Context, Destination, Outputs, Stage, StageError};
use hokusai::stream::{Cluster, Runtime, RuntimeConfig, Settings};
use hokusai::topology::Topology;
use hokusai::topology::apply::{ApplyOptions, apply};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

fn topology(name: &str, input: &str, output: &str) -> String {
    format!(
        "
version: 1
defaults: {{partitions: 2, max_message_bytes: 1048588}}
topics:
  - {{name: {input}, about: JSON events, from: outsiders, timestamps: append, schema: audit, cleanup: kept}}
  - {{name: {output}, about: Events without e-mail addresses, key: event, schema: audit, cleanup: kept}}
  - {{name: dead-letters, about: Unreadable events, key: position, from: runtime, schema: dead_letter, partitions: 1, cleanup: kept}}
  - {{name: hokusai.progress, about: Progress, key: stage_partition, from: runtime, schema: progress, partitions: 1, cleanup: compacted}}
stages:
  - {{name: {name}, about: Replaces e-mail addresses, implemented: true, state_key: none, inputs: [{input}], outputs: [{output}]}}
"
    )
}

#[derive(Serialize, Deserialize)]
struct Event<'a> {
    contribution_id: &'a str,
    email: std::borrow::Cow<'a, str>,
    model_id: &'a str,
    features: [f64; 16],
    label: u8,
    ts: i64,
    note: &'a str,
}

struct Mask {
    name: &'static str,
    key: Hmac<Sha256>,
    output: &'static str,
    done: Arc<AtomicU64>,
}

impl Mask {
    /// The event as it goes out; the error names what is wrong with it, without a byte of it.
    fn mask(&self, json: &[u8]) -> Result<Vec<u8>, String> {
        let mut event: Event<'_> =
            serde_json::from_slice(json).map_err(|e| format!("{:?} at column {}", e.classify(), e.column()))?;
        if event.label > 1 {
            return Err("the label is neither 0 nor 1".to_owned());
        }
        let mut mac = self.key.clone();
        mac.update(event.email.as_bytes());
        event.email = data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()).into();
        let mut out = Vec::with_capacity(json.len() + 64);
        serde_json::to_writer(&mut out, &event).map_err(|e| e.to_string())?;
        Ok(out)
    }
}

impl Stage for Mask {
    type State = ();

    fn name(&self) -> &'static str {
        self.name
    }

    fn state(&self) {}

    fn process(
        &mut self,
        _: &Context<'_>,
        (): &mut (),
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        for message in batch.iter() {
            match self.mask(message.value.unwrap_or_default()) {
                Ok(masked) => out.send_bytes(self.output, Destination::ByKey, message.key.unwrap_or_default(), masked),
                Err(detail) => out.dead_letter(batch, &message, "PARSE_JSON", detail),
            }
        }
        self.done.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// User and system CPU seconds of this process (proc(5): fields 14 and 15, in ticks of 10 ms).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, input, output, records, commit_ms, name] = arguments.as_slice() else {
        anyhow::bail!("usage: own_stage BROKERS IN OUT RECORDS COMMIT_MS NAME");
    };
    let (records, commit_interval) = (records.parse::<u64>()?, Duration::from_millis(commit_ms.parse()?));
    let topology = Arc::new(Topology::parse("own_stage.yaml", &topology(name, input, output))?);
    let cluster = Cluster::new(brokers, "");
    let options = ApplyOptions { prefix: String::new(), replication: -1, dry_run: false };
    apply(&topology, &cluster.client_config(), &options).await?;

    let mut runtime = Runtime::new(RuntimeConfig {
        cluster,
        topology,
        wire: Arc::new(Wire::default()),
        digest: Arc::new(|bytes| format!("{} bytes", bytes.len())),
        aside: Arc::new(|letter, _key, _value| vec![letter]),
        kept: std::collections::BTreeMap::new(),
        settings: Settings { commit_interval, ..Settings::default() },
    });
    // The names are known when the program starts, and live as long as it does.
    let [name, output] = [name, output].map(|text| -> &'static str { Box::leak(text.clone().into_boxed_str()) });
    let key = Hmac::<Sha256>::new_from_slice(&[b'k'; 32])?;
    let done = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&done);
    runtime.stage(move || Mask { name, key: key.clone(), output, done: Arc::clone(&counter) })?;

    let shutdown = CancellationToken::new();
    let running = tokio::spawn(runtime.run(shutdown.clone()));
    let seen = |wanted: u64| {
        let done = Arc::clone(&done);
        async move {
            while done.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    seen(1).await;
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    seen(records).await;
    let wall = begun.elapsed().as_secs_f64();
    // Shutting down commits the last transaction: its cost belongs to the records.
    shutdown.cancel();
    running.await??;
    let cpu = cpu_seconds() - cpu;
    let (per_record, rate) = (cpu * 1e6 / records as f64, records as f64 / wall);
    println!(
        "hokusai exactly-once commit={commit_ms}ms N={records} wall {wall:.1}s ({rate:.0}/s) cpu from first record {cpu:.2}s = {per_record:.2} us/msg"
    );
    Ok(())
}
