//! Names of the sections of a model file, as numbers on disk and words in messages.

use std::fmt;

/// A section of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    Manifest,
    /// The tokenizer's own bytes; the engine never looks inside.
    Tokenizer,
    /// The chat template's own bytes; the engine never looks inside.
    ChatTemplate,
    Exp,
    Act,
    Rope(u8),
    Embedding,
    Head,
    FinalNorm,
    Layer(u16, LayerPart),
}

/// A matrix or a norm's gains within a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LayerPart {
    AttentionNorm = 0,
    Q = 1,
    K = 2,
    V = 3,
    O = 4,
    FfnNorm = 5,
    Gate = 6,
    Up = 7,
    Down = 8,
    QNorm = 9,
    KNorm = 10,
    AttentionPost = 11,
    FfnPost = 12,
}

const LAYER_PARTS: [LayerPart; 13] = [
    LayerPart::AttentionNorm,
    LayerPart::Q,
    LayerPart::K,
    LayerPart::V,
    LayerPart::O,
    LayerPart::FfnNorm,
    LayerPart::Gate,
    LayerPart::Up,
    LayerPart::Down,
    LayerPart::QNorm,
    LayerPart::KNorm,
    LayerPart::AttentionPost,
    LayerPart::FfnPost,
];
/// Tags of layers carry this bit, the layer's number above the part's.
const LAYER_BIT: u32 = 1 << 31;
const ROPE_BASE: u32 = 0x100;

impl Section {
    pub(super) fn tag(self) -> u32 {
        match self {
            Section::Manifest => 1,
            Section::Tokenizer => 2,
            Section::ChatTemplate => 3,
            Section::Exp => 4,
            Section::Act => 5,
            Section::Embedding => 6,
            Section::Head => 7,
            Section::FinalNorm => 8,
            Section::Rope(index) => ROPE_BASE | u32::from(index),
            Section::Layer(layer, part) => LAYER_BIT | u32::from(layer) << 8 | part as u32,
        }
    }

    pub(super) fn from_tag(tag: u32) -> Option<Section> {
        if tag & LAYER_BIT != 0 {
            let layer = u16::try_from((tag ^ LAYER_BIT) >> 8).ok()?;
            return Some(Section::Layer(
                layer,
                *LAYER_PARTS.get((tag & 0xff) as usize)?,
            ));
        }
        Some(match tag {
            1 => Section::Manifest,
            2 => Section::Tokenizer,
            3 => Section::ChatTemplate,
            4 => Section::Exp,
            5 => Section::Act,
            6 => Section::Embedding,
            7 => Section::Head,
            8 => Section::FinalNorm,
            ROPE_BASE..=0x1ff => Section::Rope((tag & 0xff) as u8),
            _ => return None,
        })
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Section::Manifest => f.write_str("manifest"),
            Section::Tokenizer => f.write_str("tokenizer"),
            Section::ChatTemplate => f.write_str("chat template"),
            Section::Exp => f.write_str("EXP table"),
            Section::Act => f.write_str("ACT table"),
            Section::Rope(index) => write!(f, "RoPE table {index}"),
            Section::Embedding => f.write_str("embedding"),
            Section::Head => f.write_str("head"),
            Section::FinalNorm => f.write_str("final norm"),
            Section::Layer(layer, part) => write!(f, "layer {layer} {part:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_lead_back_to_their_section() {
        let mut all = vec![
            Section::Manifest,
            Section::Tokenizer,
            Section::ChatTemplate,
            Section::Exp,
            Section::Act,
            Section::Embedding,
            Section::Head,
            Section::FinalNorm,
            Section::Rope(0),
            Section::Rope(255),
        ];
        for layer in [0, 29, u16::MAX] {
            all.extend(LAYER_PARTS.map(|part| Section::Layer(layer, part)));
        }
        for section in all {
            assert_eq!(Section::from_tag(section.tag()), Some(section), "{section}");
        }
        for tag in [0, 9, 0xff, 0x200, LAYER_BIT | 13, u32::MAX] {
            assert_eq!(Section::from_tag(tag), None, "{tag:#x}");
        }
    }
}
