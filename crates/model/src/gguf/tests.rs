//! A small valid file, and what becomes of it when somebody tampers with it.

use super::*;

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn sample() -> Vec<u8> {
    sample_with_rows(2)
}

fn sample_with_rows(rows: u64) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(1u64.to_le_bytes());
    file.extend(4u64.to_le_bytes());
    file.extend(string("general.architecture"));
    file.extend(8u32.to_le_bytes());
    file.extend(string("llama"));
    file.extend(string("eps"));
    file.extend(6u32.to_le_bytes());
    file.extend(1.5f32.to_le_bytes());
    file.extend(string("words"));
    file.extend(9u32.to_le_bytes());
    file.extend(8u32.to_le_bytes());
    file.extend(2u64.to_le_bytes());
    file.extend(string("ein"));
    file.extend(string("zwei"));
    file.extend(string("types"));
    file.extend(9u32.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    file.extend(2u64.to_le_bytes());
    file.extend((-1i32).to_le_bytes());
    file.extend(7i32.to_le_bytes());
    file.extend(string("weight"));
    file.extend(2u32.to_le_bytes());
    file.extend(2u64.to_le_bytes());
    file.extend(rows.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.resize(file.len().next_multiple_of(32), 0);
    for value in [1.0f32, 2.0, 3.0, 4.0] {
        file.extend(value.to_le_bytes());
    }
    file
}

fn parse(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
    Gguf::parse(Arc::new(bytes))
}

#[test]
fn a_file_is_read() {
    let gguf = parse(sample()).unwrap();
    assert_eq!(gguf.string("general.architecture").unwrap(), "llama");
    assert_eq!(gguf.float("eps").unwrap(), 1.5);
    assert_eq!(gguf.ints("types").unwrap(), [-1, 7]);
    let words: Vec<_> = gguf.strings("words").unwrap().collect();
    assert_eq!(words, ["ein", "zwei"]);
    let tensor = gguf.tensor("weight").unwrap();
    assert_eq!((tensor.columns(), tensor.rows()), (2, 2));
    assert_eq!(gguf.values(tensor).unwrap(), [1.0, 2.0, 3.0, 4.0]);
    assert!(matches!(
        gguf.uint("nothing"),
        Err(GgufError::MissingMetadata(_))
    ));
    assert!(matches!(
        gguf.uint("eps"),
        Err(GgufError::WrongMetadata { .. })
    ));
}

#[test]
fn every_truncation_is_refused() {
    let file = sample();
    for len in 0..file.len() {
        assert!(parse(file[..len].to_vec()).is_err(), "{len} bytes accepted");
    }
}

/// Touches all that a reader may touch.
fn read_everything(gguf: &Gguf) {
    for key in gguf.metadata.keys() {
        let _ = (gguf.string(key), gguf.uint(key), gguf.float(key));
        let _ = (gguf.ints(key), gguf.floats(key), gguf.bool(key));
        let _ = gguf.strings(key).map(|strings| strings.count());
    }
    for tensor in gguf.tensors.values() {
        let _ = gguf.values(tensor);
    }
}

#[test]
fn no_flipped_byte_makes_the_reader_panic() {
    let file = sample();
    for at in 0..file.len() {
        for value in [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            file[at] ^ 1,
            file[at].wrapping_add(1),
        ] {
            let mut tampered = file.clone();
            tampered[at] = value;
            if let Ok(gguf) = parse(tampered) {
                read_everything(&gguf);
            }
        }
    }
}

/// A multiplicative generator: the same tampering on every run.
#[test]
fn no_random_tampering_makes_the_reader_panic() {
    let file = sample();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    };
    for _ in 0..20_000 {
        let mut tampered = file.clone();
        for _ in 0..1 + next() % 6 {
            let at = next() % tampered.len();
            tampered[at] = next() as u8;
        }
        if next() % 4 == 0 {
            let at = next() % tampered.len();
            let end = (at + 8).min(tampered.len());
            tampered[at..end].fill(0xff);
        }
        tampered.truncate(1 + next() % file.len());
        if let Ok(gguf) = parse(tampered) {
            read_everything(&gguf);
        }
    }
}

#[test]
fn an_announced_length_sizes_no_allocation() {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend(1u64.to_le_bytes());
    file.extend(string("k"));
    file.extend(9u32.to_le_bytes());
    file.extend(8u32.to_le_bytes());
    file.extend(u64::MAX.to_le_bytes());
    assert!(matches!(parse(file), Err(GgufError::TooLarge { .. })));
}

#[test]
fn a_tensor_past_the_end_is_refused() {
    for rows in [0, 3, 1000, u64::MAX / 4, u64::MAX] {
        assert!(matches!(
            parse(sample_with_rows(rows)),
            Err(GgufError::BadTensor { .. })
        ));
    }
}
