//! What people read: tables, money, durations and sizes in plain words. Programs read `--json` instead.
//!
//! Nothing here decides anything; amounts arrive as integers and are only written out.

use assay_protocol::{Address, B256, DurationMs, MicroUsd, Timestamp};

/// Columns padded to their widest cell, under a dim head.
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[impl AsRef<str>]) -> Self {
        Self {
            head: head.iter().map(|cell| cell.as_ref().to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn render(&self, indent: &str) -> String {
        let mut widths: Vec<usize> = self.head.iter().map(|cell| cell.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: Vec<&str>| {
            let mut out = indent.to_owned();
            for (index, cell) in cells.iter().enumerate() {
                out.push_str(cell);
                if index + 1 < cells.len() {
                    out.push_str(
                        &" ".repeat(widths[index].saturating_sub(cell.chars().count()) + 2),
                    );
                }
            }
            out.trim_end().to_owned()
        };
        let mut out = vec![line(self.head.iter().map(String::as_str).collect())];
        out.extend(
            self.rows
                .iter()
                .map(|row| line(row.iter().map(String::as_str).collect())),
        );
        out.join("\n") + "\n"
    }
}

/// `$1.50`, `$0.000123`: at least two places, no trailing zeros beyond them.
pub(crate) fn usd(amount: MicroUsd) -> String {
    let (whole, micro) = (amount.0 / 1_000_000, amount.0 % 1_000_000);
    let places = format!("{micro:06}");
    let trimmed = places.trim_end_matches('0');
    let shown = if trimmed.len() < 2 {
        &places[..2]
    } else {
        trimmed
    };
    format!("${whole}.{shown}")
}

/// Coins that pay for gas, from wei: `0.0123 coins`, down to the nearest of nine places.
pub(crate) fn coins(wei: u128) -> String {
    const COIN: u128 = 1_000_000_000_000_000_000;
    const PLACE: u128 = 1_000_000_000;
    let places = format!("{:09}", wei % COIN / PLACE);
    let trimmed = places.trim_end_matches('0');
    match (wei / COIN, trimmed) {
        (0, "") if wei > 0 => "less than 0.000000001 coins".to_owned(),
        (whole, "") => format!("{whole} coins"),
        (whole, trimmed) => format!("{whole}.{trimmed} coins"),
    }
}

/// `0x1234…abcd`.
pub(crate) fn short(hash: &B256) -> String {
    shorten(&hash.to_string())
}

/// The beginning of a hash, long enough to type as an id.
pub(crate) fn short_hex(hash: &B256) -> String {
    hash.to_string().chars().take(12).collect()
}

pub(crate) fn short_address(address: &Address) -> String {
    shorten(&address.to_string())
}

fn shorten(text: &str) -> String {
    match (text.get(..8), text.get(text.len().saturating_sub(4)..)) {
        (Some(head), Some(tail)) if text.len() > 14 => format!("{head}…{tail}"),
        _ => text.to_owned(),
    }
}

pub(crate) fn duration(time: DurationMs) -> String {
    match time.0 {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms @ 1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        ms => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{}.{} kB", count / 1_000, count % 1_000 / 100),
        1_000_000..1_000_000_000 => {
            format!("{}.{} MB", count / 1_000_000, count % 1_000_000 / 100_000)
        }
        _ => format!(
            "{}.{} GB",
            count / 1_000_000_000,
            count % 1_000_000_000 / 100_000_000
        ),
    }
}

/// `2026-11-23 04:05:06` in UTC, by the days-from-civil rule read backwards.
pub(crate) fn date(time: Timestamp) -> String {
    let (days, seconds) = (time.0 / 86_400, time.0 % 86_400);
    // Days are counted from 0000-03-01, so that a leap day ends its year.
    let shifted = days.saturating_add(719_468);
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Whole milliseconds; more than a u64 of them is no time that passes.
pub(crate) fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// JSON for a program.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_to_the_last_micro() {
        let cases = [
            (0, "$0.00"),
            (1, "$0.000001"),
            (1_500_000, "$1.50"),
            (123, "$0.000123"),
            (2_120_000, "$2.12"),
        ];
        for (micro, text) in cases {
            assert_eq!(usd(MicroUsd(micro)), text);
        }
    }

    #[test]
    fn coins_are_told_to_nine_places() {
        let cases = [
            (0, "0 coins"),
            (1, "less than 0.000000001 coins"),
            (1_500_000_000_000_000_000, "1.5 coins"),
            (2_000_000_000, "0.000000002 coins"),
        ];
        for (wei, text) in cases {
            assert_eq!(coins(wei), text);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_795_406_706, "2026-11-23 04:05:06"),
        ];
        for (seconds, text) in cases {
            assert_eq!(date(Timestamp(seconds)), text);
        }
    }

    #[test]
    fn durations_and_sizes_round_down() {
        assert_eq!(duration(DurationMs(999)), "999 ms");
        assert_eq!(duration(DurationMs(1_999)), "1.9 s");
        assert_eq!(duration(DurationMs(61_000)), "1 min 1 s");
        assert_eq!(bytes(98_362_432), "98.3 MB");
    }

    #[test]
    fn columns_line_up_whatever_the_script() {
        let mut table = Table::new(&["node", "price"]);
        table.row(["é".to_owned(), "1".to_owned()]);
        assert_eq!(table.render("  "), "  node  price\n  é     1\n");
    }
}
