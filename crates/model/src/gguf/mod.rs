//! Reads a GGUF file of unknown origin: every count, length and offset is checked against a limit
//! and against the file's end before it is used; a hostile file gets an error, never a panic or a
//! large allocation. Nothing here interprets the model. Dequantizers are in `quant`.

mod cursor;
pub mod quant;

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use cursor::Cursor;
pub use quant::TensorType;

const MAGIC: &[u8; 4] = b"GGUF";
const METADATA_MAX: u64 = 4096;
const TENSORS_MAX: u64 = 16_384;
const KEY_BYTES_MAX: u64 = 1024;
const STRING_BYTES_MAX: u64 = 1 << 20;
const ARRAY_ITEMS_MAX: u64 = 1 << 22;
const DIMENSIONS_MAX: u32 = 4;
const ELEMENTS_MAX: u64 = 1 << 36;
const ALIGNMENT_MAX: u64 = 1 << 16;

/// Why a file is no GGUF that we read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("cannot read the model file: {0}")]
    Io(#[from] std::io::Error),
    #[error("not a GGUF file (it does not start with `GGUF`); pass a .gguf model")]
    NotGguf,
    #[error("GGUF version {0} is not supported, only 2 and 3 are; convert the file anew")]
    Version(u32),
    #[error("file is cut short: {wanted} bytes wanted at offset {offset}; download it again")]
    Truncated { offset: u64, wanted: u64 },
    #[error("{what} is {got}, at most {max} allowed")]
    TooLarge {
        what: &'static str,
        got: u64,
        max: u64,
    },
    #[error("{what} at offset {offset} is not UTF-8")]
    NotUtf8 { what: &'static str, offset: u64 },
    #[error("{what} has the unknown type {got}")]
    UnknownType { what: String, got: u32 },
    #[error("arrays of arrays are not supported (metadata key {0})")]
    NestedArray(String),
    #[error("{0} occurs twice")]
    Duplicate(String),
    #[error("tensor {name}: {problem}")]
    BadTensor { name: String, problem: &'static str },
    #[error("alignment {0} is no power of two")]
    Alignment(u64),
    #[error("the file has no metadata {0}; it cannot be imported")]
    MissingMetadata(String),
    #[error("metadata {key} is not {expected}")]
    WrongMetadata { key: String, expected: &'static str },
    #[error("the file has no tensor {0}; it cannot be imported")]
    MissingTensor(String),
}

/// One metadata value. Long things stay in the file and are read on demand.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f32),
    Bool(bool),
    String(Range<usize>),
    Strings(Vec<Range<usize>>),
    Numbers { kind: Kind, range: Range<usize> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

/// Where a tensor's data lies and how it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// The innermost first: `[columns, rows]` for a matrix.
    pub dimensions: Vec<usize>,
    pub kind: TensorType,
    range: Range<usize>,
}

impl TensorInfo {
    /// Length of a row, the unit of quantization.
    pub fn columns(&self) -> usize {
        self.dimensions[0]
    }

    pub fn rows(&self) -> usize {
        self.dimensions[1..].iter().product()
    }
}

/// Bytes that a [`Gguf`] reads from: a memory map, or a vector in tests.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A parsed file; cheap to clone.
#[derive(Clone)]
pub struct Gguf {
    bytes: Bytes,
    metadata: Arc<HashMap<String, Value>>,
    tensors: Arc<HashMap<String, TensorInfo>>,
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("metadata", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish()
    }
}

impl Gguf {
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private to this process. Should another program shrink
        // the file meanwhile, this one ends by a signal; it reads nothing that it may not.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Self::parse(Arc::new(map))
    }

    pub fn parse(bytes: Bytes) -> Result<Self, GgufError> {
        let whole: &[u8] = (*bytes).as_ref();
        let mut cursor = Cursor::new(whole);
        if cursor.take(4).ok() != Some(MAGIC) {
            return Err(GgufError::NotGguf);
        }
        let version = cursor.u32()?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensor_count = cursor.count("number of tensors", TENSORS_MAX)?;
        let metadata_count = cursor.count("number of metadata keys", METADATA_MAX)?;

        let mut metadata = HashMap::new();
        for _ in 0..metadata_count {
            let key = cursor.text("metadata key", KEY_BYTES_MAX)?.to_owned();
            let value = read_value(&mut cursor, &key)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(GgufError::Duplicate(key));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            Some(&Value::Unsigned(alignment)) => alignment,
            _ => 32,
        };
        if !alignment.is_power_of_two() || alignment > ALIGNMENT_MAX {
            return Err(GgufError::Alignment(alignment));
        }

        let mut headers = Vec::new();
        for _ in 0..tensor_count {
            headers.push(read_tensor_header(&mut cursor)?);
        }
        let data_start = (cursor.offset() as u64).next_multiple_of(alignment);
        let mut tensors = HashMap::new();
        for header in headers {
            let tensor = header.place(data_start, alignment, whole.len() as u64)?;
            let name = tensor.name.clone();
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(GgufError::Duplicate(name));
            }
        }
        Ok(Gguf {
            metadata: Arc::new(metadata),
            tensors: Arc::new(tensors),
            bytes,
        })
    }

    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        self.tensors
            .get(name)
            .ok_or_else(|| GgufError::MissingTensor(name.to_owned()))
    }

    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor's packed bytes.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.whole()[tensor.range.clone()]
    }

    /// The packed bytes of one row.
    pub fn row(&self, tensor: &TensorInfo, row: usize) -> &[u8] {
        let bytes = tensor.kind.row_bytes(tensor.columns());
        &self.data(tensor)[row * bytes..(row + 1) * bytes]
    }

    pub fn string(&self, key: &str) -> Result<&str, GgufError> {
        match self.value(key)? {
            Value::String(range) => Ok(self.text(range)),
            _ => Err(wrong(key, "a string")),
        }
    }

    pub fn uint(&self, key: &str) -> Result<u64, GgufError> {
        match *self.value(key)? {
            Value::Unsigned(value) => Ok(value),
            Value::Signed(value) if value >= 0 => Ok(value.unsigned_abs()),
            _ => Err(wrong(key, "a whole number")),
        }
    }

    pub fn float(&self, key: &str) -> Result<f32, GgufError> {
        match *self.value(key)? {
            Value::Float(value) if value.is_finite() => Ok(value),
            _ => Err(wrong(key, "a finite float")),
        }
    }

    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        match *self.value(key)? {
            Value::Bool(value) => Ok(value),
            _ => Err(wrong(key, "true or false")),
        }
    }

    pub fn strings(&self, key: &str) -> Result<impl ExactSizeIterator<Item = &str>, GgufError> {
        match self.value(key)? {
            Value::Strings(ranges) => Ok(ranges.iter().map(|range| self.text(range))),
            _ => Err(wrong(key, "a list of strings")),
        }
    }

    pub fn floats(&self, key: &str) -> Result<Vec<f32>, GgufError> {
        match self.value(key)? {
            Value::Numbers {
                kind: Kind::F32,
                range,
            } => Ok(words(&self.whole()[range.clone()])
                .map(f32::from_le_bytes)
                .collect()),
            _ => Err(wrong(key, "a list of 32-bit floats")),
        }
    }

    pub fn ints(&self, key: &str) -> Result<Vec<i64>, GgufError> {
        match self.value(key)? {
            Value::Numbers { kind, range } => {
                let bytes = &self.whole()[range.clone()];
                match kind {
                    Kind::I32 => Ok(words(bytes).map(|w| i32::from_le_bytes(w).into()).collect()),
                    Kind::U32 => Ok(words(bytes).map(|w| u32::from_le_bytes(w).into()).collect()),
                    _ => Err(wrong(key, "a list of 32-bit integers")),
                }
            }
            _ => Err(wrong(key, "a list of 32-bit integers")),
        }
    }

    /// A value where the key may be absent; a value of another type is still an error.
    pub fn optional<T>(value: Result<T, GgufError>) -> Result<Option<T>, GgufError> {
        match value {
            Ok(value) => Ok(Some(value)),
            Err(GgufError::MissingMetadata(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn whole(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    fn value(&self, key: &str) -> Result<&Value, GgufError> {
        self.metadata
            .get(key)
            .ok_or_else(|| GgufError::MissingMetadata(key.to_owned()))
    }

    fn text(&self, range: &Range<usize>) -> &str {
        // Checked when the file was parsed; a file changed under the map reads as nothing.
        std::str::from_utf8(&self.whole()[range.clone()]).unwrap_or_default()
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.as_chunks::<4>().0.iter().copied()
}

fn wrong(key: &str, expected: &'static str) -> GgufError {
    GgufError::WrongMetadata {
        key: key.to_owned(),
        expected,
    }
}

fn kind(code: u32, key: &str) -> Result<Kind, GgufError> {
    Ok(match code {
        0 => Kind::U8,
        1 => Kind::I8,
        2 => Kind::U16,
        3 => Kind::I16,
        4 => Kind::U32,
        5 => Kind::I32,
        6 => Kind::F32,
        7 => Kind::Bool,
        8 => Kind::String,
        9 => Kind::Array,
        10 => Kind::U64,
        11 => Kind::I64,
        12 => Kind::F64,
        got => {
            return Err(GgufError::UnknownType {
                what: format!("metadata key {key}"),
                got,
            });
        }
    })
}

fn read_value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, GgufError> {
    Ok(match kind(cursor.u32()?, key)? {
        Kind::U8 => Value::Unsigned(cursor.take(1)?[0].into()),
        Kind::I8 => Value::Signed(i8::from_le_bytes(cursor.array()?).into()),
        Kind::U16 => Value::Unsigned(u16::from_le_bytes(cursor.array()?).into()),
        Kind::I16 => Value::Signed(i16::from_le_bytes(cursor.array()?).into()),
        Kind::U32 => Value::Unsigned(cursor.u32()?.into()),
        Kind::I32 => Value::Signed(i32::from_le_bytes(cursor.array()?).into()),
        Kind::U64 => Value::Unsigned(cursor.u64()?),
        Kind::I64 => Value::Signed(i64::from_le_bytes(cursor.array()?)),
        Kind::F32 => Value::Float(f32::from_le_bytes(cursor.array()?)),
        Kind::F64 => Value::Float(f64::from_le_bytes(cursor.array()?) as f32),
        Kind::Bool => Value::Bool(cursor.take(1)?[0] != 0),
        Kind::String => Value::String(cursor.text_range("string", STRING_BYTES_MAX)?),
        Kind::Array => {
            let item = kind(cursor.u32()?, key)?;
            let count = cursor.count("length of an array", ARRAY_ITEMS_MAX)?;
            let width = match item {
                Kind::Array => return Err(GgufError::NestedArray(key.to_owned())),
                Kind::String => {
                    let mut strings = Vec::new();
                    for _ in 0..count {
                        strings.push(cursor.text_range("string", STRING_BYTES_MAX)?);
                    }
                    return Ok(Value::Strings(strings));
                }
                Kind::U8 | Kind::I8 | Kind::Bool => 1,
                Kind::U16 | Kind::I16 => 2,
                Kind::U32 | Kind::I32 | Kind::F32 => 4,
                Kind::U64 | Kind::I64 | Kind::F64 => 8,
            };
            let start = cursor.offset();
            cursor.take(count * width)?;
            Value::Numbers {
                kind: item,
                range: start..cursor.offset(),
            }
        }
    })
}

struct TensorHeader {
    name: String,
    dimensions: Vec<u64>,
    kind: TensorType,
    offset: u64,
}

fn read_tensor_header(cursor: &mut Cursor<'_>) -> Result<TensorHeader, GgufError> {
    let name = cursor.text("tensor name", KEY_BYTES_MAX)?.to_owned();
    let count = cursor.u32()?;
    if count > DIMENSIONS_MAX {
        return Err(GgufError::TooLarge {
            what: "number of dimensions",
            got: count.into(),
            max: DIMENSIONS_MAX.into(),
        });
    }
    let mut dimensions = Vec::new();
    for _ in 0..count {
        dimensions.push(cursor.u64()?);
    }
    let code = cursor.u32()?;
    let kind = TensorType::from_code(code).ok_or_else(|| GgufError::UnknownType {
        what: format!("tensor {name}"),
        got: code,
    })?;
    let offset = cursor.u64()?;
    Ok(TensorHeader {
        name,
        dimensions,
        kind,
        offset,
    })
}

impl TensorHeader {
    fn place(self, data_start: u64, alignment: u64, file: u64) -> Result<TensorInfo, GgufError> {
        let bad = |problem| GgufError::BadTensor {
            name: self.name.clone(),
            problem,
        };
        if self.dimensions.is_empty() || self.dimensions.contains(&0) {
            return Err(bad("has an empty dimension"));
        }
        let elements = self
            .dimensions
            .iter()
            .try_fold(1u64, |product, &d| product.checked_mul(d))
            .filter(|&elements| elements <= ELEMENTS_MAX)
            .ok_or_else(|| bad("has too many elements"))?;
        if !self.dimensions[0].is_multiple_of(self.kind.block_len() as u64) {
            return Err(bad("has rows that are no whole number of blocks"));
        }
        if !self.offset.is_multiple_of(alignment) {
            return Err(bad("is not aligned"));
        }
        let bytes = elements / self.kind.block_len() as u64 * self.kind.block_bytes() as u64;
        let range = data_start
            .checked_add(self.offset)
            .and_then(|start| Some(start..start.checked_add(bytes)?))
            .filter(|range| range.end <= file)
            .ok_or_else(|| bad("reaches past the file's end; download it again"))?;
        let size = |value: u64| usize::try_from(value).map_err(|_| bad("has too many elements"));
        Ok(TensorInfo {
            dimensions: self
                .dimensions
                .iter()
                .map(|&d| size(d))
                .collect::<Result<_, _>>()?,
            kind: self.kind,
            range: size(range.start)?..size(range.end)?,
            name: self.name,
        })
    }
}

#[cfg(test)]
mod tests;
