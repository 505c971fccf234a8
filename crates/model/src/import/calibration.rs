//! The static fractions of q, k and v: the integer engine itself runs over a fixed text, and the
//! largest values that it sees decide. No float takes part. The text stands in `calibration.txt`,
//! written for this purpose; changing a letter of it changes the id of every model.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use assay_engine::layout::{Section, manifest_range};
use assay_engine::{Model, calibrate};
use assay_protocol::manifest::Manifest;
use assay_protocol::{ModelId, TokenId};

use super::ImportError;
use crate::progress::{Progress, Stage};
use crate::template::{ChatMessage, ChatTemplate};
use crate::tokenizer::{EncodeOptions, Tokenizer};

const TEXT: &str = include_str!("calibration.txt");
/// Stands between the passages of the text.
const BREAK: &str = "%%\n";
/// Every second piece of so many tokens also stands alone: what follows a beginning takes the
/// largest values.
const PIECE: usize = 12;

/// Measures, writes the fractions into the file's manifest, and returns the model's id.
pub(super) fn calibrate(
    partial: &Path,
    mut manifest: Manifest,
    progress: &mut dyn FnMut(Progress),
) -> Result<ModelId, ImportError> {
    let (place, fractions) = {
        let file = File::open(partial)?;
        // SAFETY: the file is this import's own, and is not written while the map lives.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        let place = manifest_range(&map).map_err(assay_engine::LoadError::from)?;
        let model = Model::open(Arc::new(map))?;
        let sequences = sequences(&model)?;
        let total = sequences.iter().map(|tokens| tokens.len() as u64).sum();
        let stage = Stage::Calibrate;
        progress(Progress {
            stage,
            done: 0,
            total,
        });
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let fractions = calibrate::fractions(&model, threads, &sequences)
            .map_err(|error| ImportError::Calibration(error.to_string()))?;
        progress(Progress {
            stage,
            done: total,
            total,
        });
        (place, fractions)
    };
    for (layer, fractions) in manifest.layers.iter_mut().zip(fractions) {
        layer.fractions = fractions;
    }
    let bytes = manifest.encode();
    if bytes.len() != place.len() {
        return Err(ImportError::Calibration(
            "the manifest changed its length".to_owned(),
        ));
    }
    let mut file = OpenOptions::new().write(true).open(partial)?;
    file.seek(SeekFrom::Start(place.start as u64))?;
    file.write_all(&bytes)?;
    Ok(manifest.id())
}

/// The text's passages, whole and in pieces, and as a chat where the model has a template, so that
/// control tokens are seen too.
fn sequences(model: &Model) -> Result<Vec<Vec<TokenId>>, ImportError> {
    let broken = |error: String| ImportError::Calibration(error);
    let blob = model.blob(Section::Tokenizer).unwrap_or_default();
    let tokenizer = Tokenizer::from_blob(blob).map_err(|error| broken(error.to_string()))?;
    let options = EncodeOptions {
        add_bos: true,
        parse_special: false,
    };
    let begin = tokenizer.encode("", options);
    let begin = begin.map_err(|error| broken(error.to_string()))?;
    let mut sequences = Vec::new();
    for passage in TEXT.split(BREAK) {
        let tokens = tokenizer.encode(passage, options);
        let tokens = tokens.map_err(|error| broken(error.to_string()))?;
        for piece in tokens[begin.len()..].chunks(PIECE).step_by(2) {
            sequences.push([&begin[..], piece].concat());
        }
        sequences.push(tokens);
    }
    if let Some(source) = model.blob(Section::ChatTemplate) {
        let source = String::from_utf8_lossy(source);
        let template = ChatTemplate::of(&source, &tokenizer)?;
        let roles = ["user", "assistant"].into_iter().cycle();
        let turns: Vec<ChatMessage> = roles
            .zip(TEXT.split(BREAK).take(3))
            .map(|(role, passage)| ChatMessage::new(role, passage))
            .collect();
        sequences.push(template.encode(&tokenizer, &turns, true)?);
    }
    let context = model.manifest().dims.context_max as usize;
    for tokens in &mut sequences {
        tokens.truncate(context);
    }
    Ok(sequences)
}
