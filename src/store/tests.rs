use std::time::Duration;

use bytes::Bytes;

use super::{Digest, Store, StoreError, StoreOptions};

const NO_GRACE: Duration = Duration::ZERO;

fn options(s3: &[(&str, &str)]) -> StoreOptions {
    let s3 = s3.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    StoreOptions { s3, check_limit: Duration::from_secs(20) }
}

fn in_folder(folder: &tempfile::TempDir) -> Store {
    Store::at(folder.path().to_str().unwrap(), &options(&[])).unwrap()
}

#[tokio::test]
async fn a_blob_is_read_back_by_the_digest_of_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = in_folder(&folder).blobs();
    let digest = blobs.put(Bytes::from_static(b"abc")).await.unwrap();
    // FIPS 180-4, appendix B.1.
    assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(folder.path().join(format!("blobs/sha256/ba/{digest}")).is_file());
    assert_eq!(blobs.get(digest, 3).await.unwrap(), "abc");
    assert_eq!(blobs.put(Bytes::from_static(b"abc")).await.unwrap(), digest, "putting it again changes nothing");
    assert_eq!(blobs.list(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_blob_above_the_readers_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = in_folder(&folder).blobs();
    let digest = blobs.put(Bytes::from_static(b"abc")).await.unwrap();
    assert!(matches!(blobs.get(digest, 2).await, Err(StoreError::TooLarge { size: 3, limit: 2, .. })));
    let file = folder.path().join("copy");
    assert!(matches!(blobs.get_to_file(digest, 2, &file).await, Err(StoreError::TooLarge { .. })));
    assert!(!file.exists());
}

#[tokio::test]
async fn damaged_and_missing_blobs_are_named_and_never_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(&folder);
    let blobs = store.blobs();
    let digest = blobs.put(Bytes::from_static(b"abc")).await.unwrap();
    std::fs::write(folder.path().join(blobs.path(digest)), b"abd").unwrap();
    let file = folder.path().join("copy");
    let error = blobs.get(digest, 10).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { expected, .. } if *expected == digest), "{error}");
    assert!(matches!(blobs.get_to_file(digest, 10, &file).await, Err(StoreError::Damaged { .. })));
    assert!(!file.exists());
    assert!(matches!(blobs.get(Digest([7; 32]), 10).await, Err(StoreError::Missing { .. })));

    std::fs::write(folder.path().join(blobs.path(digest)), b"ab").unwrap();
    blobs.put(Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(blobs.get(digest, 10).await.unwrap(), "abc", "a blob that was cut short is healed by putting it again");
}

#[tokio::test]
async fn a_file_of_several_parts_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = in_folder(&folder).blobs_under("models");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let content: Vec<u8> = (0..9_000_000_u32).map(|i| (i % 251).to_le_bytes()[0]).collect();
    std::fs::write(&from, &content).unwrap();
    let (digest, size) = blobs.put_file(&from).await.unwrap();
    assert_eq!((digest, size), (Digest::of(&content), 9_000_000));
    assert_eq!(blobs.get_to_file(digest, size, &to).await.unwrap(), size);
    assert_eq!(std::fs::read(&to).unwrap(), content);
}

#[tokio::test]
async fn collection_spares_what_is_named_and_what_is_young() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = in_folder(&folder).blobs();
    let named = blobs.put(Bytes::from_static(b"named")).await.unwrap();
    let orphan = blobs.put(Bytes::from_static(b"orphan")).await.unwrap();
    let unfinished = folder.path().join(format!("{}#123", blobs.path(orphan)));
    std::fs::write(&unfinished, b"orp").unwrap();
    let keep = |digest| digest == named;
    let young = blobs.collect(keep, Duration::from_secs(3600), 10).await.unwrap();
    assert_eq!((young.kept, young.removed), (2, 0));
    assert!(unfinished.exists());
    let done = blobs.collect(keep, NO_GRACE, 10).await.unwrap();
    assert_eq!((done.kept, done.removed, done.bytes), (1, 1, 6));
    assert!(!unfinished.exists(), "what a writer that died has left goes too");
    assert!(blobs.stored(named).await.unwrap().is_some());
    assert!(blobs.stored(orphan).await.unwrap().is_none());
}

#[tokio::test]
async fn of_several_creators_of_a_name_exactly_one_wins_and_nobody_sees_a_part() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(&folder);
    let writers = (0..8).map(|i| {
        let store = store.clone();
        tokio::spawn(async move { store.create("a/name", Bytes::from(vec![i; 1 << 16])).await.unwrap() })
    });
    let won = futures::future::join_all(writers).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
    assert_eq!(won, 1);
    let content = store.get("a/name", 1 << 20).await.unwrap().unwrap();
    assert!(content.len() == 1 << 16 && content.iter().all(|byte| *byte == content[0]));
    assert_eq!(store.list("a", 10).await.unwrap().len(), 1, "nothing unfinished is left");
    store.put("a/name", Bytes::from_static(b"new")).await.unwrap();
    assert_eq!(store.get("a/name", 3).await.unwrap().unwrap(), "new");
    store.delete("a/name").await.unwrap();
    store.delete("a/name").await.unwrap();
    assert_eq!(store.get("a/name", 3).await.unwrap(), None);
}

#[test]
fn locations_that_cannot_be_used_are_refused_with_the_way_out() {
    for (location, why) in [
        ("", "empty"),
        ("gs://bucket/x", "gs:// is unknown"),
        ("s3://", "bucket"),
        ("s3://key:secret@bucket/x", "environment"),
        ("s3://bucket/x?versionId=1", "only a bucket"),
        ("file://elsewhere/x", "folder of this machine"),
    ] {
        let error = Store::at(location, &options(&[])).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("help:"), "{location}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_location_is_a_folder_or_a_prefix_of_a_bucket() {
    let folder = Store::at("file:///var/hokusai/a%20store", &options(&[])).unwrap();
    assert_eq!(folder.folder().unwrap(), std::path::Path::new("/var/hokusai/a store"));
    assert_eq!(folder.url().as_str(), "file:///var/hokusai/a%20store/");
    let bucket = Store::at("s3://bucket/some/prefix", &options(&[])).unwrap();
    assert_eq!((bucket.folder(), bucket.parts().1.as_ref()), (None, "some/prefix"));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_and_not_waited_for() {
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let settings = options(&[
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
    ]);
    let error = Store::open("s3://bucket/x", &settings).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreachable { endpoint: at, .. } if *at == endpoint), "{error}");
    assert!(!error.to_string().contains("hunter2"));

    // One that accepts and stays silent.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut settings =
        options(&[("AWS_ENDPOINT_URL", &endpoint), ("AWS_ALLOW_HTTP", "true"), ("AWS_SKIP_SIGNATURE", "true")]);
    settings.check_limit = Duration::from_millis(200);
    let error = Store::open("s3://bucket/x", &settings).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_file_in_the_stores_place_is_found_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Store::open(file.to_str().unwrap(), &options(&[])).await.unwrap_err().to_string();
    assert!(error.contains("not a folder"), "{error}");
    let store = Store::open(folder.path().join("not/yet").to_str().unwrap(), &options(&[])).await.unwrap();
    store.check_writes().await.unwrap();
    assert_eq!(store.list("", 10).await.unwrap(), [], "the probe is gone");
}

/// Answers every request with 200, as a server does that knows no conditions.
async fn agree_to_everything(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = Vec::new();
        while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        let answer = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_server_that_ignores_conditional_writes_is_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(agree_to_everything(listener));
    let settings = [("AWS_ENDPOINT_URL", &*endpoint), ("AWS_ALLOW_HTTP", "true"), ("AWS_SKIP_SIGNATURE", "true")];
    let error = Store::at("s3://bucket/x", &options(&settings)).unwrap().check_writes().await.unwrap_err();
    assert!(matches!(error, StoreError::NotConditional { .. }), "{error}");
    assert!(error.to_string().contains("help:"));
}
