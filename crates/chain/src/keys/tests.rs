//! Keystores against the test vectors of their definition, hostile ones, and how their files are kept.

use super::*;
use serde_json::{Value, json};

const SECRET: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
const ADDRESS: &str = "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b";

/// The two test vectors of the Web3 Secret Storage definition.
fn vector(kdf: &str) -> Value {
    let scrypt = json!({
        "cipher": "aes-128-ctr",
        "cipherparams": { "iv": "83dbcc02d8ccb40e466191a123791e0e" },
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32, "n": 262144, "p": 8, "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    });
    let pbkdf2 = json!({
        "cipher": "aes-128-ctr",
        "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144, "dklen": 32, "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    });
    let crypto = if kdf == "scrypt" { scrypt } else { pbkdf2 };
    json!({ "crypto": crypto, "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6", "version": 3 })
}

fn person(text: &str) -> Password {
    Password::new(text.to_owned())
}

fn machine() -> Password {
    Password::of_random("0123456789abcdef".to_owned())
}

#[test]
fn the_keystores_of_the_definition_open() {
    for kdf in ["scrypt", "pbkdf2"] {
        let key = Key::open(&vector(kdf).to_string(), &person("testpassword")).unwrap();
        assert_eq!(hex::encode(key.secret.to_bytes()), SECRET, "{kdf}");
        assert_eq!(key.address().to_string(), ADDRESS, "{kdf}");
        let wrong = Key::open(&vector(kdf).to_string(), &person("testpasswort")).unwrap_err();
        assert_eq!(wrong, KeystoreError::WrongPassword, "{kdf}");
    }
    // As early geth wrote it.
    let mut capital = vector("pbkdf2");
    let crypto = capital.as_object_mut().unwrap().remove("crypto").unwrap();
    capital["Crypto"] = crypto;
    assert!(Key::open(&capital.to_string(), &person("testpassword")).is_ok());
}

/// Made by `cast wallet import`, which names no address.
#[test]
fn a_keystore_that_cast_wrote_opens() {
    let by_cast = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"dfef605b82995a87810e43217a4122de"},"ciphertext":"5413d9173474e0ae301ddcfd95937bebf176b6a474c67c06173bb2adc8b5b069","kdf":"scrypt","kdfparams":{"dklen":32,"n":8192,"p":1,"r":8,"salt":"55f440615f7b9d579e84d97386f5554f0b9cf02c00909c95dbc2288abedc16a5"},"mac":"149a246c63b1a5c78bac3b98df161f30d74fa084141a32b4e96f4e3c2f698550"},"id":"ee60dae8-bbfe-4a96-83e7-1c84a9a897f1","version":3}"#;
    let key = Key::open(by_cast, &person("hello world")).unwrap();
    let expected = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
    assert_eq!(key.address().to_string(), expected);
    assert_eq!(keystore::named_address(by_cast), Ok(None));
}

#[test]
fn what_is_sealed_is_the_same_bytes_for_the_same_randomness() {
    let secret: [u8; 32] = hex::decode(SECRET).unwrap().try_into().unwrap();
    let key = Key::from_bytes(&secret).unwrap();
    let fresh = keystore::Fresh {
        salt: [1; 32],
        iv: [2; 16],
        id: [3; 16],
    };
    let light = machine();
    let json = keystore::seal(&secret, key.address(), &light, Cost::Light, &fresh);
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["id"], "03030303-0303-4303-8303-030303030303");
    assert_eq!(value["address"], "008aeeda4d805471df9b2a5b0f38a0c3bcba786b");
    assert_eq!(value["crypto"]["kdfparams"]["n"], 4096);
    assert_eq!(
        value["crypto"]["mac"],
        "5f2d3f067cf91f0b4b76648e3d4dfcbc0fd82c035ee774916062b91b3341542e"
    );
    assert!(!json.contains(SECRET));
    assert_eq!(Key::open(&json, &light).unwrap().address(), key.address());
}

#[test]
fn a_key_of_a_person_is_as_dear_to_guess_as_it_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/a.json");
    let made = Key::create(&path, &person("correct horse")).unwrap();
    let value: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(value["crypto"]["kdfparams"]["n"], 1 << 17);
    let loaded = Key::load(&path, &person("correct horse")).unwrap();
    assert_eq!(loaded.address(), made.address());
    let refused = Key::load(&path, &person("correct house")).unwrap_err();
    assert!(refused.is_wrong_password());
    assert!(refused.to_string().contains("wrong password"), "{refused}");
}

#[test]
fn a_hostile_keystore_is_refused_before_it_costs_anything() {
    let costs: [(&str, &[(&str, u64)]); 10] = [
        ("scrypt", &[("n", 1 << 40)]),
        ("scrypt", &[("n", 1 << 63)]),
        ("scrypt", &[("r", u64::MAX)]),
        ("scrypt", &[("p", u64::MAX)]),
        ("scrypt", &[("n", 2), ("r", 1 << 33), ("p", 1 << 33)]),
        ("scrypt", &[("n", 1 << 32), ("r", 1 << 32)]),
        ("scrypt", &[("n", 1 << 20), ("r", 8)]),
        ("scrypt", &[("p", 1 << 10)]),
        ("pbkdf2", &[("c", u64::MAX)]),
        ("pbkdf2", &[("c", 1 << 24)]),
    ];
    for (kdf, changes) in costs {
        let mut hostile = vector(kdf);
        for (name, value) in changes {
            hostile["crypto"]["kdfparams"][name] = json!(value);
        }
        let error = Key::open(&hostile.to_string(), &person("testpassword")).unwrap_err();
        let refused = matches!(error, KeystoreError::TooCostly(_));
        assert!(refused, "{kdf} {changes:?}: {error}");
    }
}

#[test]
fn a_damaged_keystore_is_an_error_that_shows_nothing_of_it() {
    let changes: [(&str, Value); 21] = [
        ("/version", json!(1)),
        ("/version", json!("deadbeef")),
        ("/crypto", json!(null)),
        ("/crypto/cipher", json!("aes-128-cbc")),
        ("/crypto/cipher", json!("deadbeef".repeat(4000))),
        ("/crypto/cipherparams/iv", json!("00")),
        ("/crypto/ciphertext", json!("")),
        ("/crypto/ciphertext", json!("zz")),
        ("/crypto/ciphertext", json!(SECRET.repeat(100))),
        ("/crypto/mac", json!("2103")),
        ("/crypto/kdf", json!("argon2")),
        ("/crypto/kdfparams", json!([])),
        ("/crypto/kdfparams", json!("deadbeef")),
        ("/crypto/kdfparams/n", json!(-1)),
        ("/crypto/kdfparams/n", json!(3)),
        ("/crypto/kdfparams/n", json!(0)),
        ("/crypto/kdfparams/n", json!(1)),
        ("/crypto/kdfparams/r", json!(0)),
        ("/crypto/kdfparams/p", json!(0)),
        ("/crypto/kdfparams/dklen", json!(16)),
        ("/crypto/kdfparams/salt", json!("00".repeat(1000))),
    ];
    for (pointer, value) in changes {
        let mut damaged = vector("scrypt");
        *damaged.pointer_mut(pointer).unwrap() = value.clone();
        let error = Key::open(&damaged.to_string(), &person("testpassword")).unwrap_err();
        let text = error.to_string();
        let fits = !matches!(error, KeystoreError::WrongPassword) && text.len() < 120;
        assert!(fits, "{pointer} {value}: {text}");
    }
    for text in ["{", "{}", "{\"version\": 3}"] {
        assert!(Key::open(text, &person("testpassword")).is_err(), "{text}");
    }
}

#[test]
fn a_keystore_that_names_another_address_is_refused() {
    let mut other = vector("pbkdf2");
    other["address"] = json!("00000000000000000000000000000000000000aa");
    let error = Key::open(&other.to_string(), &person("testpassword")).unwrap_err();
    assert!(
        matches!(error, KeystoreError::WrongAddress { .. }),
        "{error}"
    );
}

#[test]
fn a_key_file_is_never_overwritten_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("offer.json");
    Key::create(&path, &machine()).unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = Key::create(&path, &machine()).unwrap_err();
    assert!(matches!(refused, KeyError::Exists { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_new_password_opens_the_same_key_and_the_old_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("offer.json");
    let new = Password::random().unwrap();
    let made = Key::create(&path, &machine()).unwrap();
    let stranger = Key::random().unwrap();
    assert!(stranger.replace(&path, &new).is_err());
    made.replace(&path, &new).unwrap();
    assert_eq!(Key::load(&path, &new).unwrap().address(), made.address());
    assert!(
        Key::load(&path, &machine())
            .unwrap_err()
            .is_wrong_password()
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn keys_stay_in_a_file_that_only_their_owner_reads() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/offer.json");
    Key::create(&path, &machine()).unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    // A link to it is no way around.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        let refused = Key::load(path, &machine()).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
        assert!(KeyFile::at(path).is_err());
    }
    let refused = Key::load(folder.path(), &machine())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("no regular file"), "{refused}");
}

#[test]
fn raw_keys_of_earlier_versions_still_load_and_bad_ones_are_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owner.key");
    let write = |text: &[u8]| {
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    };
    write(format!("0x{SECRET}\n").as_bytes());
    let key = Key::load(&path, &machine()).unwrap();
    assert_eq!(key.address().to_string(), ADDRESS);
    assert_eq!(KeyFile::at(&path).unwrap(), KeyFile::Plain(key.address()));
    assert!(!format!("{key:?}").contains(&SECRET[..8]));
    for bad in [&b"not a key"[..], b"", b"\xff\xfe", &[b'7'; 100_000]] {
        write(bad);
        let refused = Key::load(&path, &machine()).unwrap_err().to_string();
        assert!(refused.contains("holds no key"), "{refused}");
        assert!(!refused.contains("not a key"));
    }
    assert!(Key::from_bytes(&[0; 32]).is_err());
    assert!(Key::from_bytes(&[0xff; 32]).is_err());
}

#[test]
fn a_password_is_never_shown() {
    let password = person("correct horse");
    assert!(!format!("{password:?} {:?}", Some(&password)).contains("horse"));
    let random = [(); 2].map(|()| Password::random().unwrap());
    assert_ne!(random[0].reveal(), random[1].reveal());
    assert_eq!(random[0].reveal().len(), 64);
}
