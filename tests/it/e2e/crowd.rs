//! A thousand hostile connections to each port of `hokusai up`: whoever comes in good faith is served meanwhile.

use std::io::Write;
use std::net::TcpStream;

use crate::support::broker::Kind;
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{Receipts, account, contribute, contribution, reasons, rows, shop};
use crate::support::hokusai::get;
use crate::support::raw::bad_words;
use crate::support::unique;

const CROWD: usize = 1_000;
const MIB: u64 = 1 << 20;

/// What a bad HTTP client sends before it falls silent. None of them reads an answer.
fn http_words(n: usize) -> Vec<u8> {
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    match n % 8 {
        // Half-open, and slow: a head that never ends.
        0 => vec![],
        1 => b"G".to_vec(),
        2 => b"GET /health HTTP/1.1\r\nHost: x\r\nX: ".to_vec(),
        // Asks for much and takes none of it.
        3 => request("/metrics").repeat(500),
        // A head of 2 MiB, and a body that is never sent.
        4 => [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 2 << 20]].concat(),
        5 => b"POST /health HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n".to_vec(),
        // Garbage behind a good request, and TLS.
        6 => [request("/ready"), vec![0xFF; 10_000]].concat(),
        _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    }
}

fn bad_client(address: &str, words: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    stream.set_nonblocking(true).expect("a socket");
    // As much as goes into the buffers at once; some are closed while they write. The rest is never sent.
    let _ = stream.write(words);
    stream
}

#[test]
fn others_are_served_beside_a_thousand_hostile_connections_to_each_port() {
    let Some(cluster) = Cluster::start(Kind::Embedded, &Settings::default()) else { return };
    let (model, _) = shop(&cluster);
    let mut receipts = Receipts::follow(&cluster);
    let http = cluster.process.http().trim_start_matches("http://").to_owned();
    let before = cluster.process.resident_bytes();
    let (mut crowd, mut most) = (Vec::new(), 0);
    // More than the broker has places for: some have to give way, and not the good ones.
    for n in 0..CROWD + 200 {
        crowd.push(bad_client(&http, &http_words(n)));
        crowd.push(bad_client(&cluster.broker.bootstrap, &bad_words(n)));
        if n % 200 == 199 {
            for (path, holds) in [("/health", "\"ok\":true"), ("/metrics", "hokusai_commits_total")] {
                let (status, text) = get(&format!("{}{path}", cluster.process.http())).expect("an answer");
                assert!(status == 200 && text.contains(holds), "{path} with {n} others: {status}\n{text}");
            }
            let (id, first) = (unique("beside"), i64::try_from(n).expect("small"));
            contribute(&cluster, &[contribution(&id, "alice", &model, &rows(first..first + 10))]);
            assert_eq!(account(&receipts.of(&id)), ("admitted".into(), 10, 10, reasons([])), "with {n} others");
            most = cluster.process.resident_bytes().max(most);
        }
    }
    let grown = most.saturating_sub(before);
    assert!(grown < 384 * MIB, "{} MiB for {} connections", grown / MIB, crowd.len());
    drop(crowd);
    let log = cluster.process.log();
    for line in ["too many HTTP connections", "connection closed"] {
        let lines = log.lines().filter(|l| l.contains(line)).count();
        assert!((1..CROWD / 4).contains(&lines), "{lines} times {line:?}: told, and not once per connection");
    }
    assert!(!log.contains("panicked"), "{log}");
}
