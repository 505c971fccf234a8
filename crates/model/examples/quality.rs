//! Prints the quality report: `quality MODEL.gguf MODEL.assay`.

use assay_model::{LoadedModel, gguf::Gguf, quality};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, gguf, model] = &args[..] else {
        return Err("usage: quality MODEL.gguf MODEL.assay".into());
    };
    let gguf = Gguf::open(gguf.as_ref())?;
    let loaded = LoadedModel::open(model.as_ref(), "model")?;
    let report = quality::measure(&gguf, &loaded, &mut |p| {
        eprint!("\r{}/{} tokens ", p.done, p.total);
    })?;
    println!("\n{report}");
    Ok(())
}
