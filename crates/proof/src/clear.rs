//! What a proof says in the clear, a few numbers a vector and token: sums of squares, peaks, softmax
//! maxima and sums, the last activations. The verifier derives roots, exponents, shifts and reciprocals
//! from them itself; the argument binds each to the trace. Canonical and of bounded size.

use assay_protocol::manifest::Architecture;

/// The largest magnitude of a vector, by token: the exponent follows from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peak {
    pub at: Vec<u32>,
    pub value: Vec<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NormClear {
    /// Epsilon and the sum of squares, by vector and token.
    pub ss: Vec<u64>,
    /// Where a matrix follows.
    pub peak: Option<Peak>,
}

/// One layer's. Heads' vectors are by head and token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerClear {
    pub attention_norm: NormClear,
    /// Gemma's, of q and k.
    pub head_norms: Option<[NormClear; 2]>,
    /// The position of the largest score that is seen, and that score.
    pub max_at: Vec<u32>,
    pub max: Vec<i64>,
    /// Sums of exponentials.
    pub sum: Vec<u64>,
    pub mix: Peak,
    pub attention_post: Option<NormClear>,
    pub ffn_norm: NormClear,
    pub product: Peak,
    pub ffn_post: Option<NormClear>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clear {
    pub layers: Vec<LayerClear>,
    pub final_norm: NormClear,
    pub choice: ChoiceClear,
}

/// How a proof shows that the answer's tokens are the model's choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChoiceClear {
    /// The final norm's 12-bit activations at the positions that choose a token, for who holds the head's
    /// weights: row i of position n at `i·positions + n`.
    Shown(Vec<i16>),
    /// Proven, for a sampler that takes the largest logit.
    Greedy(GreedyClear),
}

impl Default for ChoiceClear {
    fn default() -> Self {
        ChoiceClear::Shown(Vec::new())
    }
}

/// By position: the token chosen after it, its logit, and how much more that could be at the same bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GreedyClear {
    pub chosen: Vec<u32>,
    pub logits: Vec<i64>,
    pub slacks: Vec<u64>,
}

/// What the sizes follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClearShape {
    pub architecture: Architecture,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub width: usize,
    pub tokens: usize,
    /// Positions that choose a token.
    pub choices: usize,
    /// Whether the choices are proven, not shown.
    pub greedy: bool,
}

/// Bytes that are not what a proof of this shape has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClearError {
    #[error("the values in the clear end too early")]
    Short,
    #[error("a value in the clear is not encoded the one way that it may be")]
    NotCanonical,
}

/// Walks all numbers in their one order; reading and writing are two visitors of it.
trait Visitor {
    type Error;
    fn number(&mut self, v: &mut u64) -> Result<(), Self::Error>;

    /// A number that its type does not hold.
    fn too_large(&self) -> Result<(), Self::Error>;

    fn unsigned(&mut self, v: &mut Vec<u64>, n: usize) -> Result<(), Self::Error> {
        v.resize(n, 0);
        v.iter_mut().try_for_each(|v| self.number(v))
    }

    fn places(&mut self, v: &mut Vec<u32>, n: usize) -> Result<(), Self::Error> {
        v.resize(n, 0);
        for v in v {
            let mut wide = u64::from(*v);
            self.number(&mut wide)?;
            match u32::try_from(wide) {
                Ok(place) => *v = place,
                Err(_) => self.too_large()?,
            }
        }
        Ok(())
    }

    fn signed(&mut self, v: &mut i64) -> Result<(), Self::Error> {
        let mut zigzag = (*v << 1 ^ *v >> 63) as u64;
        self.number(&mut zigzag)?;
        *v = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        Ok(())
    }

    fn peak(&mut self, peak: &mut Peak, n: usize) -> Result<(), Self::Error> {
        self.places(&mut peak.at, n)?;
        peak.value.resize(n, 0);
        peak.value.iter_mut().try_for_each(|v| self.signed(v))
    }

    fn norm(&mut self, norm: &mut NormClear, n: usize) -> Result<(), Self::Error> {
        self.unsigned(&mut norm.ss, n)?;
        match &mut norm.peak {
            Some(peak) => self.peak(peak, n),
            None => Ok(()),
        }
    }

    fn clear(&mut self, clear: &mut Clear, shape: &ClearShape) -> Result<(), Self::Error> {
        let t = shape.tokens;
        for layer in &mut clear.layers {
            self.norm(&mut layer.attention_norm, t)?;
            if let Some([q, k]) = &mut layer.head_norms {
                self.norm(q, shape.heads * t)?;
                self.norm(k, shape.kv_heads * t)?;
            }
            self.places(&mut layer.max_at, shape.heads * t)?;
            layer.max.resize(shape.heads * t, 0);
            layer.max.iter_mut().try_for_each(|v| self.signed(v))?;
            self.unsigned(&mut layer.sum, shape.heads * t)?;
            self.peak(&mut layer.mix, t)?;
            if let Some(post) = &mut layer.attention_post {
                self.norm(post, t)?;
            }
            self.norm(&mut layer.ffn_norm, t)?;
            self.peak(&mut layer.product, t)?;
            if let Some(post) = &mut layer.ffn_post {
                self.norm(post, t)?;
            }
        }
        self.norm(&mut clear.final_norm, t)?;
        let shown = match &mut clear.choice {
            ChoiceClear::Greedy(greedy) => {
                self.places(&mut greedy.chosen, t)?;
                greedy.logits.resize(t, 0);
                greedy.logits.iter_mut().try_for_each(|v| self.signed(v))?;
                return self.unsigned(&mut greedy.slacks, t);
            }
            ChoiceClear::Shown(shown) => shown,
        };
        shown.resize(shape.width * shape.choices, 0);
        for x in shown {
            let mut wide = i64::from(*x);
            self.signed(&mut wide)?;
            match i16::try_from(wide) {
                Ok(activation) => *x = activation,
                Err(_) => self.too_large()?,
            }
        }
        Ok(())
    }
}

struct Write(Vec<u8>);

impl Visitor for Write {
    type Error = std::convert::Infallible;

    /// Seven bits a byte, the lowest first.
    fn number(&mut self, v: &mut u64) -> Result<(), Self::Error> {
        let mut rest = *v;
        while rest >= 128 {
            self.0.push(rest as u8 | 128);
            rest >>= 7;
        }
        self.0.push(rest as u8);
        Ok(())
    }

    fn too_large(&self) -> Result<(), Self::Error> {
        unreachable!("what is written was one of its type")
    }
}

struct Read<'a>(&'a [u8]);

impl Visitor for Read<'_> {
    type Error = ClearError;

    fn number(&mut self, v: &mut u64) -> Result<(), ClearError> {
        let (mut sum, mut shift) = (0u64, 0);
        loop {
            let (byte, rest) = self.0.split_first().ok_or(ClearError::Short)?;
            self.0 = rest;
            let bits = u64::from(byte & 127);
            if shift > 63 || bits > u64::MAX >> shift {
                return Err(ClearError::NotCanonical);
            }
            sum |= bits << shift;
            if byte & 128 == 0 {
                // A last byte of nothing could be left out.
                if *byte == 0 && shift > 0 {
                    return Err(ClearError::NotCanonical);
                }
                *v = sum;
                return Ok(());
            }
            shift += 7;
        }
    }

    fn too_large(&self) -> Result<(), ClearError> {
        Err(ClearError::NotCanonical)
    }
}

impl Clear {
    /// With the parts that this architecture has, all empty.
    fn empty(shape: &ClearShape) -> Clear {
        let gemma = shape.architecture == Architecture::Gemma3;
        let plain = || gemma.then(NormClear::default);
        let peaked = || NormClear {
            peak: Some(Peak::default()),
            ..NormClear::default()
        };
        let layer = |_| LayerClear {
            attention_norm: peaked(),
            ffn_norm: peaked(),
            head_norms: plain().map(|norm| [norm.clone(), norm]),
            attention_post: plain(),
            ffn_post: plain(),
            ..LayerClear::default()
        };
        Clear {
            layers: (0..shape.layers).map(layer).collect(),
            final_norm: peaked(),
            choice: match shape.greedy {
                true => ChoiceClear::Greedy(GreedyClear::default()),
                false => ChoiceClear::default(),
            },
        }
    }

    pub fn to_bytes(&self, shape: &ClearShape) -> Vec<u8> {
        let mut writer = Write(Vec::new());
        let Ok(()) = writer.clear(&mut self.clone(), shape);
        writer.0
    }

    /// Reads what [`Clear::to_bytes`] wrote from the front of `bytes`. Vectors grow only by what the
    /// shape says, which the caller has bounded.
    pub fn read(bytes: &mut &[u8], shape: &ClearShape) -> Result<Clear, ClearError> {
        let mut clear = Clear::empty(shape);
        let mut reader = Read(bytes);
        reader.clear(&mut clear, shape)?;
        *bytes = reader.0;
        Ok(clear)
    }
}
