//! Answers one question, or continues one text, with a model file: `answer MODEL TEXT`. A model with
//! a chat template chats, any other continues the text. Greedy, 80 tokens at most.

use std::io::Write;

use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest};
use assay_model::{ChatMessage, EncodeOptions, LoadedModel, StopWatcher};
use assay_protocol::SamplerParams;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, text] = &args[..] else {
        return Err("usage: answer MODEL.assay TEXT".into());
    };
    let loaded = LoadedModel::open(path.as_ref(), "model")?;
    let options = EncodeOptions {
        add_bos: true,
        parse_special: false,
    };
    let prompt = match &loaded.template {
        Some(_) => loaded.chat_prompt(&[ChatMessage::new("user", text)])?,
        None => loaded.tokenizer.encode(text, options)?,
    };
    let sampler = SamplerParams::greedy(80);
    let mut watcher = StopWatcher::new(loaded.tokenizer.clone(), &sampler);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = BatchLimits {
        sequences_max: 1,
        ..BatchLimits::default()
    };
    let mut batcher = Batcher::new(&loaded.model, threads, limits);
    batcher.submit(GenerationRequest::new(prompt, sampler))?;
    while !batcher.is_idle() {
        for event in batcher.step() {
            if let EventKind::Token(id) = event.kind {
                watcher.push(id);
                print!("{}", watcher.take_text());
                std::io::stdout().flush()?;
            }
        }
    }
    println!("\n[{:?}, {} tokens]", watcher.reason(), watcher.tokens());
    Ok(())
}
