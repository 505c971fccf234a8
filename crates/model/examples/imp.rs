use assay_model::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let g = gguf::Gguf::open(a[1].as_ref()).unwrap();
    let t = std::time::Instant::now();
    let id = import(&g, a[2].as_ref(), &mut |p| {
        if p.done == 0 || p.done == p.total {
            eprintln!("{:?} {:?}", t.elapsed(), p)
        }
    })
    .unwrap();
    println!("{id} {:?}", t.elapsed());
    for _ in 0..2 {
        let t = std::time::Instant::now();
        let m = LoadedModel::open(a[2].as_ref(), "x").unwrap();
        println!("open {:?}", t.elapsed());
        if a.len() > 3 {
            let t = std::time::Instant::now();
            m.model.verify_roots().unwrap();
            println!("roots {:?}", t.elapsed());
        }
        for (i, l) in m.model.manifest().layers.iter().enumerate() {
            print!("{i}:{},{},{} ", l.fractions.q, l.fractions.k, l.fractions.v);
        }
        println!();
    }
}
