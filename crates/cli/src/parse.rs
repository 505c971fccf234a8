//! What people type, into exact numbers: shares and prices without a float between.

use assay_audit::PartsPerMillion;
use assay_protocol::{MicroUsd, MicroUsdPerMillionTokens, Price};

/// `5%`, `0.5%` or `5`, from nothing to all.
pub(crate) fn share(text: &str) -> Result<PartsPerMillion, String> {
    let wrong = || format!("'{text}' is no share: write for example 5% or 0.5%");
    let percent = decimal(text.trim().trim_end_matches('%').trim(), 4).ok_or_else(wrong)?;
    match u32::try_from(percent) {
        Ok(ppm) if ppm <= PartsPerMillion::ONE.0 => Ok(PartsPerMillion(ppm)),
        _ => Err(format!("'{text}' is more than 100%")),
    }
}

/// `10` or `0.5`: dollars, to the micro-dollar.
pub(crate) fn dollars(text: &str) -> Result<MicroUsd, String> {
    let amount = decimal(text.trim().trim_start_matches('$'), 6);
    amount
        .map(MicroUsd)
        .ok_or_else(|| format!("'{text}' is no amount: write dollars, as in 25 or 0.50"))
}

/// `0.15/0.60`: dollars per million tokens of input and output.
pub(crate) fn price_pair(text: &str) -> Result<Price, String> {
    let wrong = || {
        format!(
            "'{text}' is no price: write input/output in dollars per million tokens, as in 0.15/0.60"
        )
    };
    let (input, output) = text.split_once('/').ok_or_else(wrong)?;
    let dollars =
        |text: &str| decimal(text.trim().trim_start_matches('$'), 6).map(MicroUsdPerMillionTokens);
    let input = dollars(input).ok_or_else(wrong)?;
    let output = dollars(output).ok_or_else(wrong)?;
    Ok(Price {
        input,
        cached_input: input,
        output,
    })
}

/// `3` or `0.5`: dollars per million tokens.
pub(crate) fn price(text: &str) -> Result<MicroUsdPerMillionTokens, String> {
    let price = decimal(text.trim().trim_start_matches('$'), 6);
    price
        .map(MicroUsdPerMillionTokens)
        .ok_or_else(|| format!("'{text}' is no price: write dollars per million tokens, as in 3"))
}

/// `0.05`: the price of gas in gwei, to the wei.
pub(crate) fn gwei(text: &str) -> Result<u128, String> {
    let price = decimal(text.trim(), 9).map(u128::from);
    price.ok_or_else(|| format!("'{text}' is no price of gas: write gwei, as in 0.05"))
}

/// A decimal number in units of 10^-`places`; nothing if it is finer than that.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > places {
        return None;
    }
    format!("{whole}{part:0<places$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact() {
        for (text, ppm) in [
            ("5%", 50_000),
            ("100", 1_000_000),
            ("0.0001%", 1),
            ("0", 0),
            (" 12.5 %", 125_000),
        ] {
            assert_eq!(share(text), Ok(PartsPerMillion(ppm)), "{text}");
        }
        for text in [
            "101%",
            "-1",
            "",
            "a",
            "0.00001%",
            "1e2",
            "99999999999999999999",
        ] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prices_are_exact() {
        let price = price_pair("0.15/0.60").unwrap();
        assert_eq!(
            (price.input.0, price.cached_input.0, price.output.0),
            (150_000, 150_000, 600_000)
        );
        for text in ["0.15", "/", "1/-1", "0.0000001/1"] {
            assert!(price_pair(text).is_err(), "{text}");
        }
    }
}
