//! The relation that a proof is about, as data that prover and verifier both build from the model's
//! constants and the values in the clear: columns of the trace, look-ups, constraints that are linear in
//! the columns, and products. [`program`] walks the model; [`revealed`](crate::revealed) checks every
//! cell of a trace against it.

pub mod head;
pub mod program;
pub mod table;

use assay_protocol::trace::MatrixRef;
use p3_field::PrimeCharacteristicRing;

use crate::field::F;
use table::Tag;

/// Rows of the trace: `first`, `first + stride`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub first: usize,
    pub rows: usize,
    pub stride: usize,
}

impl Column {
    /// Rows `from..from + rows` of this column.
    pub fn slice(self, from: usize, rows: usize) -> Column {
        assert!(from + rows <= self.rows, "a slice lies within its column");
        Column {
            first: self.first + from * self.stride,
            rows,
            ..self
        }
    }

    /// Every second row, from the first or the second.
    pub fn every_second(self, from: usize) -> Column {
        Column {
            first: self.first + from * self.stride,
            rows: self.rows / 2,
            stride: 2 * self.stride,
        }
    }

    pub fn row(self, i: usize) -> usize {
        self.first + i * self.stride
    }
}

/// A value that is not committed itself: `Σ coefficient·column + constant`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub terms: Vec<(Column, i64)>,
    pub constant: i64,
}

impl From<Column> for Sum {
    fn from(column: Column) -> Sum {
        Sum {
            terms: vec![(column, 1)],
            constant: 0,
        }
    }
}

impl Sum {
    pub fn rows(&self) -> usize {
        self.terms[0].0.rows
    }

    pub fn map(&self, pick: impl Fn(Column) -> Column) -> Sum {
        Sum {
            terms: self.terms.iter().map(|(c, k)| (pick(*c), *k)).collect(),
            constant: self.constant,
        }
    }

    pub fn slice(&self, from: usize, rows: usize) -> Sum {
        self.map(|column| column.slice(from, rows))
    }
}

/// A public vector by position, by its place in [`Relation::by_token`]; [`ONES`] is all one.
pub type ByToken = usize;
pub const ONES: ByToken = 0;

/// A public vector by row.
pub type ByRow = std::sync::Arc<[i64]>;

/// Which entries of a RoPE table: row i is frequency i.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Angle {
    pub table: usize,
    pub sine: bool,
    pub negative: bool,
}

/// One summand of a constraint at row i and position t.
#[derive(Debug, Clone)]
pub enum Term {
    /// `scale·rows(i)·tokens(t)·column(i, t)`.
    Cells {
        column: Column,
        scale: F,
        rows: Option<ByRow>,
        tokens: ByToken,
    },
    /// `scale·rows(i)·tokens(t)`.
    Public {
        scale: F,
        rows: Option<ByRow>,
        tokens: ByToken,
    },
    /// `scale·angle(i, t)·column(i, t)`.
    Turned {
        column: Column,
        scale: F,
        angle: Angle,
    },
    /// The same of a constant.
    TurnedConstant { value: F, angle: Angle },
    /// `tokens(t)·product(i, t)`.
    Product { product: usize, tokens: ByToken },
    /// `−Σ column(j, t)` over all rows of the column; the constraint has one row.
    Total { column: Column },
    /// `w(token of t, i)·E(token of t)`.
    Embedded,
    /// `tokens(t)` at the rows before `at(t)`.
    Before { at: Vec<u32>, tokens: ByToken },
    /// Less the final activations that are shown, at the positions that choose a token.
    Shown,
}

/// `Σ terms = 0` for all rows i < rows and positions t.
#[derive(Debug, Clone)]
pub struct Constraint {
    pub name: &'static str,
    pub rows: usize,
    pub terms: Vec<Term>,
}

/// Two factors, summed over something that the constraint around it does not see.
#[derive(Debug, Clone)]
pub enum Product {
    /// `Σ_k A(i)·w(i, k)·input(k, t)`.
    Matrix { matrix: MatrixRef, input: Column },
    /// `left(i, t)·right(i, t)`.
    Cells { left: Sum, right: Sum },
    /// `Σ_d query(d, t)·key(d, i)`: row i is the position j that is looked at.
    Scores { query: Column, key: Column },
    /// `Σ_j share(j, t)·value(i, j)`.
    Mix { share: Column, value: Column },
}

/// A sum of products over all rows that is known for each position.
#[derive(Debug, Clone)]
pub enum Known {
    /// `Σ_i input(i, t)² = sums(t)`.
    Squares { input: Sum, sums: Vec<u64> },
    /// `Σ coefficient·tokens(t)·column(at(t), t) = values(t)`.
    Gather {
        terms: Vec<(Column, i64, ByToken)>,
        at: Vec<u32>,
        values: Vec<i64>,
    },
}

/// The tag of a look-up's tuple.
#[derive(Debug, Clone)]
pub enum Tags {
    Same(Tag),
    /// By position: each a [`Tag::Bits`].
    Bits(Vec<u8>),
    /// Rows are the positions j looked at: one tag where j is seen from t, the other where not.
    Causal {
        seen: Tag,
        unseen: Tag,
        window: usize,
    },
}

/// Leaves of the look-up argument, one a row and position.
#[derive(Debug, Clone)]
pub enum Leaf {
    /// The tuple is in the table.
    Key { tags: Tags, values: Vec<Column> },
    /// `Σ coefficient·tokens(t)·column + tokens(t)` is not 0. The last entry is the constant's vector.
    NotZero {
        terms: Vec<(Column, i64, ByToken)>,
        constant: ByToken,
    },
}

impl Tags {
    /// The tag at row i and position t.
    pub fn at(&self, i: usize, t: usize) -> Tag {
        match self {
            Tags::Same(tag) => *tag,
            Tags::Bits(widths) => Tag::Bits(widths[t].into()),
            Tags::Causal {
                seen,
                unseen,
                window,
            } => match sees(t, i, *window) {
                true => *seen,
                false => *unseen,
            },
        }
    }
}

impl Leaf {
    pub fn rows(&self) -> usize {
        match self {
            Leaf::Key { values, .. } => values[0].rows,
            Leaf::NotZero { terms, .. } => terms[0].0.rows,
        }
    }
}

/// Whether a query at t sees the position j.
pub fn sees(t: usize, j: usize, window: usize) -> bool {
    j <= t && (window == 0 || t < j + window)
}

/// All that must hold of a trace.
pub struct Relation {
    /// Positions, a power of two.
    pub tokens: usize,
    /// Rows of the trace, multiplicities included.
    pub rows: usize,
    pub names: Vec<(&'static str, Column)>,
    pub by_token: Vec<Vec<F>>,
    /// Look-ups, by layer: each list is one tree.
    pub groups: Vec<Vec<Leaf>>,
    pub constraints: Vec<Constraint>,
    pub products: Vec<Product>,
    pub known: Vec<Known>,
    pub table: table::Table,
    /// How often each row of the table is looked up: `table.len()` cells.
    pub multiplicities: Column,
}

/// Widths of a remainder's limbs by position: `width` bits, [`table::LIMB`] a limb from the lowest.
fn limb_widths(widths: &[u8], limb: usize) -> Vec<u8> {
    let from = limb as u32 * table::LIMB;
    let width = |w: &u8| u32::from(*w).saturating_sub(from).min(table::LIMB) as u8;
    widths.iter().map(width).collect()
}

/// A value within its limit, and what was cut off to hold it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub value: Column,
    pub excess: Column,
}

impl Held {
    /// The value before it was held.
    pub fn whole(self) -> Sum {
        Sum {
            terms: vec![(self.value, 1), (self.excess, 1)],
            constant: 0,
        }
    }
}

/// What a rounding shift needs by position: `rsh(v, s)·down + remainder = v·up + half`.
#[derive(Debug, Clone)]
pub struct Shift {
    pub by: Vec<i32>,
    /// 2^max(s, 0).
    pub down: ByToken,
    /// 2^max(−s, 0).
    pub up: ByToken,
    /// 2^(s−1), or 0 where nothing is rounded.
    pub half: ByToken,
}

impl Relation {
    fn new(tokens: usize, table: table::Table) -> Relation {
        Relation {
            tokens,
            rows: 0,
            names: Vec::new(),
            by_token: vec![vec![F::ONE; tokens]],
            groups: Vec::new(),
            constraints: Vec::new(),
            products: Vec::new(),
            known: Vec::new(),
            table,
            multiplicities: Column {
                first: 0,
                rows: 0,
                stride: 1,
            },
        }
    }

    /// The most rows of a constraint; at least as many as positions, which also number rows.
    pub fn longest(&self) -> usize {
        let rows = self.constraints.iter().map(|constraint| constraint.rows);
        rows.fold(self.tokens, usize::max)
    }

    /// The name of the column that a row belongs to.
    pub fn name(&self, column: Column) -> &'static str {
        let from = self
            .names
            .partition_point(|(_, of)| of.first <= column.first);
        self.names[from - 1].0
    }

    fn column(&mut self, name: &'static str, rows: usize) -> Column {
        let column = Column {
            first: self.rows,
            rows,
            stride: 1,
        };
        self.rows += rows;
        self.names.push((name, column));
        column
    }

    fn vector(&mut self, values: Vec<F>) -> ByToken {
        debug_assert_eq!(values.len(), self.tokens);
        self.by_token.push(values);
        self.by_token.len() - 1
    }

    fn leaf(&mut self, leaf: Leaf) {
        self.groups.last_mut().expect("a group is open").push(leaf);
    }

    fn look_up(&mut self, tag: Tag, values: &[Column]) {
        self.leaf(Leaf::Key {
            tags: Tags::Same(tag),
            values: values.to_vec(),
        });
    }

    /// A column of values within ±limit.
    fn small(&mut self, name: &'static str, rows: usize, limit: u32) -> Column {
        let column = self.column(name, rows);
        self.look_up(Tag::Within(limit), &[column]);
        column
    }

    /// A value held within ±limit, and what was cut off: the table has one pair for each sum.
    fn held(&mut self, names: [&'static str; 2], rows: usize, limit: u32) -> Held {
        let value = self.column(names[0], rows);
        let excess = self.column(names[1], rows);
        self.look_up(Tag::Held(limit), &[value, excess]);
        Held { value, excess }
    }

    /// Values in two limbs: `lo + 2^16·hi − offset`, hi in [0, high).
    fn wide(&mut self, names: [&'static str; 2], rows: usize, offset: i64, high: Tag) -> Sum {
        let lo = self.column(names[0], rows);
        let hi = self.column(names[1], rows);
        self.look_up(Tag::Bits(16), &[lo]);
        self.look_up(high, &[hi]);
        Sum {
            terms: vec![(lo, 1), (hi, 1 << 16)],
            constant: -offset,
        }
    }

    /// The remainder of a rounding shift: below 2^s, in limbs.
    fn remainder(&mut self, rows: usize, shift: &Shift) -> Vec<(Column, i64)> {
        let widths: Vec<u8> = shift.by.iter().map(|s| (*s).max(0) as u8).collect();
        let widest = u32::from(widths.iter().copied().max().unwrap_or(0));
        let limbs = widest.div_ceil(table::LIMB) as usize;
        let limb = |limb| {
            let column = self.column(REMAINDERS[limb], rows);
            let tags = Tags::Bits(limb_widths(&widths, limb));
            self.leaf(Leaf::Key {
                tags,
                values: vec![column],
            });
            (column, 1 << (table::LIMB as usize * limb))
        };
        (0..limbs).map(limb).collect()
    }

    fn shift(&mut self, by: Vec<i32>) -> Shift {
        let power = |s: i32| F::from_u64(1 << s.max(0));
        let half = |s: i32| match s {
            1.. => F::from_u64(1 << (s - 1)),
            _ => F::ZERO,
        };
        let up = match by.iter().all(|s| *s >= 0) {
            true => ONES,
            false => self.vector(by.iter().map(|s| power(-*s)).collect()),
        };
        Shift {
            down: self.vector(by.iter().map(|s| power(*s)).collect()),
            up,
            half: self.vector(by.iter().map(|s| half(*s)).collect()),
            by,
        }
    }

    /// `out = rsh(input, s)` for terms of the input that already carry their factor 2^max(−s, 0).
    fn rounded(
        &mut self,
        name: &'static str,
        mut input: Vec<Term>,
        out: &Sum,
        remainder: &[(Column, i64)],
        shift: &Shift,
    ) {
        input.push(public(F::ONE, shift.half));
        input.extend(cells(out, -F::ONE, None, shift.down));
        input.extend(remainder.iter().map(|(column, k)| cell(*column, -*k, ONES)));
        self.constraint(name, out.rows(), input);
    }

    fn constraint(&mut self, name: &'static str, rows: usize, terms: Vec<Term>) {
        self.constraints.push(Constraint { name, rows, terms });
    }
}

const REMAINDERS: [&str; 4] = ["remainder.0", "remainder.1", "remainder.2", "remainder.3"];

fn public(scale: F, tokens: ByToken) -> Term {
    Term::Public {
        scale,
        rows: None,
        tokens,
    }
}

fn cell(column: Column, scale: i64, tokens: ByToken) -> Term {
    Term::Cells {
        column,
        scale: crate::field::signed(scale),
        rows: None,
        tokens,
    }
}

/// `scale·rows·tokens·sum`.
fn cells(sum: &Sum, scale: F, rows: Option<&ByRow>, tokens: ByToken) -> Vec<Term> {
    let mut terms: Vec<Term> = sum
        .terms
        .iter()
        .map(|(column, k)| Term::Cells {
            column: *column,
            scale: scale * crate::field::signed(*k),
            rows: rows.cloned(),
            tokens,
        })
        .collect();
    if sum.constant != 0 {
        terms.push(Term::Public {
            scale: scale * crate::field::signed(sum.constant),
            rows: rows.cloned(),
            tokens,
        });
    }
    terms
}
