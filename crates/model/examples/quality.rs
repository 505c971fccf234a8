//! Prints the quality report: `quality MODEL.gguf MODEL.assay`. Imports the model where there is none.

use assay_model::{LoadedModel, gguf::Gguf, import, quality};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, gguf, model] = &args[..] else {
        return Err("usage: quality MODEL.gguf MODEL.assay".into());
    };
    let gguf = Gguf::open(gguf.as_ref())?;
    if !std::fs::exists(model)? {
        let start = std::time::Instant::now();
        let id = import(&gguf, model.as_ref(), &mut |_| {})?;
        println!("imported {id} in {:.1?}", start.elapsed());
    }
    let loaded = LoadedModel::open(model.as_ref(), "model")?;
    let report = quality::measure(&gguf, &loaded, &mut |p| {
        eprint!("\r{}/{} tokens ", p.done, p.total);
    })?;
    println!("\n{report}");
    Ok(())
}
