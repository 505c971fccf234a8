//! The figures as a person reads them: a line about the machine, then a table a model. Programs read `--json`.

use super::figures::{Machine, ModelFigures, Row, Speed, Spread};
use super::roofline::Bound;
use crate::output::{self, Table};

const NOTHING: &str = "–";

pub(crate) fn machine(machine: &Machine) -> String {
    let line = |line: &super::roofline::Roofline| {
        format!(
            "roofline, {}: reads {:.1} GB/s, {:.0} G multiply-adds/s ({})\n",
            threads(line.threads),
            line.bytes_per_s / 1e9,
            line.multiply_adds_per_s / 1e9,
            line.instruction
        )
    };
    machine.rooflines.iter().map(line).collect()
}

fn threads(count: usize) -> String {
    match count {
        1 => "1 thread".to_owned(),
        count => format!("{count} threads"),
    }
}

pub(crate) fn model(figures: &ModelFigures) -> String {
    let mut out = format!(
        "{}, {} on disk, {} of cache a position",
        figures.name,
        output::bytes(figures.file_bytes),
        output::bytes(figures.cost.cache_bytes_per_position),
    );
    if let Some(open) = &figures.open {
        let ms = |micros: &[u64]| {
            let spread = Spread::of(micros.iter().map(|us| *us as f64 / 1e3));
            number(spread.median)
        };
        out.push_str(&format!(
            "; opens in {} ms, says its first token after {} ms ({} prompt tokens, {})",
            ms(&open.open_us),
            ms(&open.first_token_us),
            open.prompt_tokens,
            threads(open.threads)
        ));
    }
    out.push('\n');
    let Some(first) = figures.rows.first() else {
        return out;
    };
    let mut table = Table::new(&head(first));
    for row in &figures.rows {
        table.row(speeds(row));
        if let Some(shares) = shares(row) {
            table.row(shares);
        }
    }
    out.push_str(&table.render("  "));
    out.push_str("  tokens/s of all sequences together: median (least–most)");
    if figures.rows.iter().any(|row| shares(row).is_some()) {
        out.push_str("; below, the share of what memory or arithmetic would allow");
    }
    out.push('\n');
    out
}

fn head(row: &Row) -> Vec<String> {
    let mut head = vec!["threads".to_owned()];
    if let Some(run) = row.prefill.as_ref().and_then(|speed| speed.runs.first()) {
        head.push(format!("prefill {}", run.tokens));
    }
    for decode in &row.decode {
        let tokens = decode.speed.runs.first().map_or(0, |run| run.tokens) / decode.batch;
        head.push(match decode.batch {
            1 => format!("decode {tokens}"),
            batch => format!("decode {tokens} ×{batch}"),
        });
    }
    if let Some(run) = row.audit.as_ref().and_then(|audit| audit.runs.first()) {
        head.push(format!("audit of {}", run.tokens));
    }
    head.push("most memory".to_owned());
    head
}

fn all_speeds(row: &Row) -> impl Iterator<Item = &Speed> {
    let decode = row.decode.iter().map(|decode| &decode.speed);
    row.prefill.iter().chain(decode)
}

fn speeds(row: &Row) -> Vec<String> {
    let mut cells = vec![row.threads.to_string()];
    cells.extend(all_speeds(row).map(|speed| spread(&speed.tokens_per_s, "")));
    cells.extend(row.audit.iter().map(|audit| spread(&audit.percent, "%")));
    cells.push(
        row.peak_memory_bytes
            .map_or(NOTHING.to_owned(), output::bytes),
    );
    cells
}

/// The line below, where a roofline was measured.
fn shares(row: &Row) -> Option<Vec<String>> {
    let mut cells = vec![String::new()];
    for speed in all_speeds(row) {
        let share = speed.roofline.as_ref()?;
        let bound = match share.bound {
            Bound::Memory => "memory",
            Bound::Arithmetic => "arithmetic",
        };
        cells.push(format!("{}% of {bound}", number(share.percent.median)));
    }
    if row.audit.is_some() {
        cells.push("of generating".to_owned());
    }
    cells.push(String::new());
    Some(cells)
}

fn spread(spread: &Spread, unit: &str) -> String {
    let Spread { median, min, max } = *spread;
    format!("{}{unit} ({}–{})", number(median), number(min), number(max))
}

/// Three places that count.
fn number(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{Audit, AuditRun, Decode, Run};
    use crate::bench::roofline::Share;
    use std::time::Duration;

    #[test]
    fn numbers_keep_three_places() {
        for (value, text) in [(1.234, "1.23"), (87.65, "87.7"), (380.4, "380")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn every_figure_has_its_column_and_its_share_below() {
        let speed = |tokens, bound| {
            let runs = vec![Run::new(tokens, Duration::from_secs(1))];
            Speed {
                tokens_per_s: Run::tokens_per_s(&runs),
                roofline: Some(Share {
                    bound,
                    percent: Spread::of([50.0]),
                }),
                runs,
            }
        };
        let decode = |batch, tokens| Decode {
            batch,
            speed: speed(tokens, Bound::Memory),
        };
        let audit = AuditRun {
            tokens: 256,
            generate_us: 1_000,
            audit_us: 120,
        };
        let row = Row {
            threads: 2,
            prefill: Some(speed(512, Bound::Arithmetic)),
            decode: vec![decode(1, 128), decode(8, 1_024)],
            audit: Some(Audit::new(vec![audit])),
            peak_memory_bytes: None,
        };
        assert_eq!(
            head(&row),
            [
                "threads",
                "prefill 512",
                "decode 128",
                "decode 128 ×8",
                "audit of 256",
                "most memory"
            ]
        );
        assert_eq!(
            speeds(&row),
            [
                "2",
                "512 (512–512)",
                "128 (128–128)",
                "1024 (1024–1024)",
                "12.0% (12.0–12.0)",
                "–"
            ]
        );
        let shares = shares(&row).unwrap();
        assert_eq!(shares[1..3], ["50.0% of arithmetic", "50.0% of memory"]);
        assert_eq!(shares.len(), head(&row).len());
    }
}
