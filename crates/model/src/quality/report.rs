//! What a comparison with float logits finds, summed over a text, and the table that a person reads.

use assay_engine::ClampCounts;

/// A mean and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub error: f64,
}

/// How far a model is from the float model on a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    pub perplexity: f64,
    /// Its perplexity over the float model's, less 1; 0.01 is one percent worse.
    pub perplexity_change: Estimate,
    /// KL divergence of its distribution from the float model's, in nats.
    pub kl: Estimate,
    /// Share of positions where both find the same token most likely.
    pub top1: Estimate,
}

/// What was found on one text, or on all.
#[derive(Debug, Clone, PartialEq)]
pub struct TextQuality {
    pub text: &'static str,
    /// Predictions that were compared.
    pub predictions: usize,
    pub perplexity_float: f64,
    pub integer: Distance,
    /// The same GGUF computed as llama.cpp computes it on a CPU: 8-bit activations in blocks, keys
    /// and values in 16-bit floats.
    pub llama_cpp: Distance,
}

#[derive(Debug, Clone, PartialEq)]
pub struct QualityReport {
    pub all: TextQuality,
    pub texts: Vec<TextQuality>,
    /// Results of the integer model that stood at their limits; a good model has none.
    pub clamps: ClampCounts,
}

/// One prediction of a model beside the float model's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Comparison {
    nll_float: f64,
    nll: f64,
    kl: f64,
    same_top: bool,
}

impl Comparison {
    /// Float logits and integer logits at Q.16 of one position, and the token that came.
    pub(super) fn of_integers(floats: &[f32], integers: &[i32], next: usize) -> Self {
        const Q16: f64 = 65_536.0;
        let distance = |a: i32, b: i32| (f64::from(a) - f64::from(b)) / Q16;
        Self::of(floats, integers, next, distance)
    }

    pub(super) fn of_floats(floats: &[f32], others: &[f32], next: usize) -> Self {
        Self::of(floats, others, next, |a, b| f64::from(a) - f64::from(b))
    }

    fn of<T: Copy + PartialOrd>(
        floats: &[f32],
        others: &[T],
        next: usize,
        distance: impl Fn(T, T) -> f64,
    ) -> Self {
        let (mut top_f, mut top_o) = (0, 0);
        for id in 1..floats.len() {
            if floats[id] > floats[top_f] {
                top_f = id;
            }
            if others[id] > others[top_o] {
                top_o = id;
            }
        }
        let (max_f, max_o) = (floats[top_f], others[top_o]);
        let (mut z_f, mut z_o, mut cross) = (0.0f64, 0.0f64, 0.0f64);
        for (float, other) in floats.iter().zip(others) {
            let f = float - max_f;
            let o = distance(*other, max_o) as f32;
            let p = f64::from(f.exp());
            z_f += p;
            z_o += f64::from(o.exp());
            cross += p * f64::from(f - o);
        }
        let (log_f, log_o) = (z_f.ln(), z_o.ln());
        Comparison {
            nll_float: log_f - f64::from(floats[next] - max_f),
            nll: log_o - distance(others[next], max_o),
            kl: cross / z_f - log_f + log_o,
            same_top: top_f == top_o,
        }
    }
}

impl TextQuality {
    /// From the comparisons of the integer model and those of llama.cpp's way.
    pub(super) fn of(text: &'static str, pairs: &[[Comparison; 2]]) -> Self {
        let nll_float = Estimate::of(pairs.iter().map(|[integer, _]| integer.nll_float));
        TextQuality {
            text,
            predictions: pairs.len(),
            perplexity_float: nll_float.mean.exp(),
            integer: Distance::of(pairs.iter().map(|[integer, _]| integer)),
            llama_cpp: Distance::of(pairs.iter().map(|[_, llama_cpp]| llama_cpp)),
        }
    }
}

impl Distance {
    fn of<'a>(comparisons: impl ExactSizeIterator<Item = &'a Comparison> + Clone) -> Self {
        let mean = |value: fn(&Comparison) -> f64| Estimate::of(comparisons.clone().map(value));
        let change = mean(|c| c.nll - c.nll_float);
        Distance {
            perplexity: mean(|c| c.nll).mean.exp(),
            perplexity_change: Estimate {
                mean: change.mean.exp_m1(),
                error: change.error,
            },
            kl: mean(|c| c.kl),
            top1: mean(|c| f64::from(u8::from(c.same_top))),
        }
    }
}

impl Estimate {
    fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let n = values.len().max(1) as f64;
        let mean = values.clone().sum::<f64>() / n;
        let variance = values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0).max(1.0);
        Estimate {
            mean,
            error: (variance / n).sqrt(),
        }
    }
}

/// The table as a person reads it: two lines a text.
impl std::fmt::Display for QualityReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:<14}{:>12}{:>11}  {:<11}{:>9}{:>17}{:>20}{:>15}",
            "text", "predictions", "ppl float", "against it", "ppl", "change", "KL", "top-1"
        )?;
        for row in self.texts.iter().chain([&self.all]) {
            let float = format!("{:.3}", row.perplexity_float);
            let (predictions, none) = (row.predictions.to_string(), String::new());
            for (name, predictions, float, way, distance) in [
                (row.text, &predictions, &float, "integers", row.integer),
                ("", &none, &none, "llama.cpp", row.llama_cpp),
            ] {
                let percent = |e: Estimate| (e.mean * 100.0, e.error * 100.0);
                let (change, change_error) = percent(distance.perplexity_change);
                let (top1, top1_error) = percent(distance.top1);
                writeln!(
                    f,
                    "{name:<14}{predictions:>12}{float:>11}  {way:<11}{:>9.3}{:>17}{:>20}{:>15}",
                    distance.perplexity,
                    format!("{change:+.2}% ± {change_error:.2}"),
                    format!("{:.5} ± {:.5}", distance.kl.mean, distance.kl.error),
                    format!("{top1:.1}% ± {top1_error:.1}"),
                )?;
            }
        }
        let c = &self.clamps;
        write!(
            f,
            "clamped results: {} (q/k/v {}, after RoPE {}, v {}, gate/up {}, branches {}, residual {}, logits {})",
            c.total(),
            c.qkv,
            c.qk,
            c.v,
            c.mlp,
            c.branch,
            c.residual,
            c.logits
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_distributions_have_no_divergence() {
        let integers: Vec<i32> = (0..100).map(|i| (i * 37 % 101) << 12).collect();
        let floats: Vec<f32> = integers
            .iter()
            .map(|&i| i as f32 / 65_536.0 + 3.0)
            .collect();
        let others: Vec<f32> = floats.iter().map(|v| v - 5.0).collect();
        for same in [
            Comparison::of_integers(&floats, &integers, 7),
            Comparison::of_floats(&floats, &others, 7),
        ] {
            assert!(same.kl.abs() < 1e-6);
            assert!((same.nll_float - same.nll).abs() < 1e-6);
            assert!(same.same_top);
        }
    }

    #[test]
    fn a_divergence_is_what_the_formula_says() {
        // p = (1/2, 1/2), q = (3/4, 1/4): KL = ½·ln(2/3) + ½·ln 2.
        let q = [(3.0f64.ln() * 65_536.0).round() as i32, 0];
        let found = Comparison::of_integers(&[0.0, 0.0], &q, 1);
        let expected = 0.5 * (2.0f64 / 3.0).ln() + 0.5 * 2.0f64.ln();
        assert!((found.kl - expected).abs() < 1e-4);
        assert!((found.nll - 4.0f64.ln()).abs() < 1e-4);
        assert!((found.nll_float - 2.0f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn an_estimate_has_its_error() {
        let found = Estimate::of([1.0, 2.0, 3.0, 4.0].into_iter());
        assert_eq!(found.mean, 2.5);
        assert!((found.error - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
    }
}
