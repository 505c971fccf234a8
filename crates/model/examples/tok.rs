use assay_model::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let toks: Vec<Tokenizer> = a[2..]
        .iter()
        .map(|p| {
            let t = std::time::Instant::now();
            let g = gguf::Gguf::open(p.as_ref()).unwrap();
            let s = TokenizerSpec::from_gguf(&g).unwrap();
            let b = s.to_blob();
            println!("gguf {:?} blob {}", t.elapsed(), b.len());
            let t = std::time::Instant::now();
            let r = Tokenizer::from_blob(&b).unwrap();
            println!(
                "from_blob {:?} eos {:?} bos {:?}",
                t.elapsed(),
                s.eos,
                s.bos
            );
            r
        })
        .collect();
    let text = std::fs::read_to_string(&a[1]).unwrap();
    let mut bad = 0;
    let mut n = 0;
    for line in text.lines().skip(1) {
        let v: serde_json::Value = serde_json::from_str(line).unwrap();
        let t = v[0].as_str().unwrap();
        for (m, tk) in toks.iter().enumerate() {
            for special in [false, true] {
                let want: Vec<u32> = serde_json::from_value(
                    v[if special && v.get(3).is_some() {
                        3 + m
                    } else {
                        1 + m
                    }]
                    .clone(),
                )
                .unwrap();
                let got = tk
                    .encode(
                        t,
                        EncodeOptions {
                            add_bos: false,
                            parse_special: special,
                        },
                    )
                    .unwrap();
                n += 1;
                if got != want {
                    bad += 1;
                    if bad < 30 {
                        println!("{m} {special} {t:?}\n got {got:?}\nwant {want:?}");
                    }
                }
            }
        }
    }
    println!("{bad} of {n}");
}
