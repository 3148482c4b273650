use super::*;

fn fixed() -> KeyRing {
    let hex = |digit: char| digit.to_string().repeat(64);
    let text = format!(
        r#"{{"version":1,"tenant":"acme","tokens":[{{"id":"k1","secret":"{}"}},{{"id":"k2","secret":"{}"}}],"dedup":"{}","tree":"{}"}}"#,
        hex('1'),
        hex('2'),
        hex('3'),
        hex('4')
    );
    KeyRing::from_json(&text).unwrap()
}

#[test]
fn a_ring_survives_its_file() {
    let ring = KeyRing::generate("acme").unwrap();
    let again = KeyRing::from_json(&ring.to_json()).unwrap();
    assert_eq!(*ring.to_json(), *again.to_json());
    assert_eq!(ring.token_key().mac().digest(&[b"a"]), again.token_key().mac().digest(&[b"a"]));
    assert_eq!(ring.model("m").chunk_digest(b"a"), again.model("m").chunk_digest(b"a"));
    assert_eq!(ring.tree_key().digest(&[b"a"]), again.tree_key().digest(&[b"a"]));
}

#[test]
fn derivations_are_frozen() {
    // Recomputed with Python's hmac module from the table in the module documentation.
    let ring = fixed();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    assert_eq!(
        hex(&ring.token_key().mac().digest(&[b"email\0a@b.c"])),
        "b722d968452f9c64183cdcb613dbfb1b0e038024d018d0960cbc9c74aed947c1"
    );
    assert_eq!(
        hex(&ring.model("adult").chunk_digest(b"x")),
        "b29b3fd5075ce057b777048bd4e56981159b6b58ff56a2ed8d648149ef6c4444"
    );
    assert_eq!(
        hex(&ring.tree_key().digest(&[b"x"])),
        "b4a8644fbf757ac5d93b57d9919c4026400a81a62ce21bf2b2be6c76f2c8945c"
    );
}

#[test]
fn a_contributor_has_one_pseudonym_and_two_while_keys_rotate() {
    // Recomputed with Python's hmac module from the table in the module documentation.
    let (new, old) = (
        "hmac-sha256:k2:cc34fa024141a3e6b310dbcb999f3b8023bfcd0a5b42abbd3ceeab0ff137fdce",
        "hmac-sha256:k1:f43112207839a5bf99b016e0b4897fe13c9a8e7dd22ea841909951482a95f6c4",
    );
    let mut ring = fixed();
    assert_eq!(ring.pseudonyms("alice", 5), [new]);
    ring.open_dual_write(10);
    assert_eq!(ring.pseudonyms("alice", 9), [new, old]);
    assert_eq!(ring.pseudonyms("alice", 10), [new], "the window is over");
    assert_ne!(ring.pseudonyms("Alice", 5), [new]);
}

#[test]
fn keys_of_tenants_models_epochs_and_purposes_all_differ() {
    let ring = fixed();
    let model = ring.model("a");
    let digests = [
        ring.token_keys().next().unwrap().mac().digest(&[b"x"]),
        ring.token_key().mac().digest(&[b"x"]),
        model.chunk_digest(b"x"),
        model.refused_row_digest(b"x"),
        model.rows().digest(&[b"x"]),
        ring.model("b").rows().digest(&[b"x"]),
        ring.tree_key().digest(&[b"x"]),
    ];
    assert_eq!(digests.iter().collect::<std::collections::HashSet<_>>().len(), digests.len());
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?} {:?}", fixed(), fixed().token_key());
    assert!(text.contains("acme") && !text.contains("1111") && !text.contains("2222"), "{text}");
}

#[test]
fn a_newer_or_damaged_file_is_refused_without_showing_it() {
    let text = fixed().to_json();
    let newer = text.replace("\"version\": 2", "\"version\": 3").replace("\"tree\"", "\"forest\"");
    assert!(matches!(KeyRing::from_json(&newer), Err(KeyError::Newer { found: 3 })));
    for (from, to) in [
        ("\"tree\"", "\"three\""),
        ("\"acme\"", "\"Acme\""),
        ("3333", "333z"),
        ("\"k2\"", "\"k1\""),
        ("\"k2\"", "\"k:2\""),
    ] {
        let error = KeyRing::from_json(&text.replace(from, to)).unwrap_err().to_string();
        assert!(!error.contains("3333") && !error.contains("1111"), "{error}");
    }
}

#[test]
fn rotation_keeps_earlier_keys_until_they_are_destroyed() {
    let mut ring = fixed();
    let before = ring.token_key().mac().digest(&[b"x"]);
    assert_eq!(ring.rotate().unwrap(), "k3");
    assert_ne!(ring.token_key().mac().digest(&[b"x"]), before);
    assert!(matches!(ring.destroy("k3"), Err(KeyError::Current(_))));
    ring.destroy("k1").unwrap();
    assert!(matches!(ring.destroy("k1"), Err(KeyError::Unknown(_))));
    assert_eq!(ring.token_keys().map(TokenKey::id).collect::<Vec<_>>(), ["k2", "k3"]);
    assert!(!ring.to_json().contains(&"1".repeat(64)));
}

#[test]
fn ids_frame_the_contributor_and_the_content() {
    let model = fixed().model("adult");
    assert_ne!(model.contribution_id("ab", b"c"), model.contribution_id("a", b"bc"));
    assert_eq!(model.contribution_id("ab", b"c").len(), 52);
}

#[test]
fn a_file_of_the_first_version_gets_the_key_pairs_that_it_lacks_and_keeps_the_rest() {
    let ring = fixed();
    assert!(ring.is_completed());
    assert_eq!((ring.intake_key().public().id(), ring.operator_key().public().id()), ("i1", "o1"));
    let again = KeyRing::from_json(&ring.to_json()).unwrap();
    assert!(!again.is_completed());
    assert_eq!(again.intake_key().public(), ring.intake_key().public());
    assert_eq!(again.operator_key().public(), ring.operator_key().public());
    assert_eq!(again.token_key().mac().digest(&[b"x"]), ring.token_key().mac().digest(&[b"x"]));
    let without = ring.to_json().replace("\"intake\"", "\"intakes\"");
    assert!(matches!(KeyRing::from_json(&without), Err(KeyError::Malformed { .. })));
}

#[test]
fn both_token_keys_write_until_the_window_ends_or_the_earlier_one_is_destroyed() {
    let mut ring = fixed();
    assert!(ring.dual_write().is_none());
    ring.rotate().unwrap();
    ring.open_dual_write(1_000);
    let mut again = KeyRing::from_json(&ring.to_json()).unwrap();
    assert_eq!(again.dual_write().map(|(key, until)| (key.id(), until)), Some(("k2", 1_000)));
    again.destroy("k1").unwrap();
    assert!(again.dual_write().is_some());
    again.destroy("k2").unwrap();
    assert!(again.dual_write().is_none());
    ring.destroy("k2").unwrap();
    assert!(ring.dual_write().is_none(), "k1 was never in the window");
}

#[test]
fn new_pairs_take_the_next_number_and_earlier_ones_stay() {
    let mut ring = fixed();
    let sealed = ring.intake_key().public().seal(b"x", b"text").unwrap();
    assert_eq!(ring.rotate_intake().unwrap().id(), "i2");
    assert_eq!(ring.rotate_operator().unwrap().id(), "o2");
    let again = KeyRing::from_json(&ring.to_json()).unwrap();
    assert_eq!(again.intake_keys()[0].open(b"x", &sealed).unwrap(), b"text");
    assert!(again.intake_key().open(b"x", &sealed).is_err());
}
