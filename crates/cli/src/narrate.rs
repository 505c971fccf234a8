//! A dispute's moves and places as lines on a terminal, the same in the demo, in `assay dispute` and in `assay watch`.
//!
//! Words only; what happened is told by the chain and the players.

use crate::output;
use assay_play::{Concluded, Played, Told};
use assay_protocol::Address;

/// `gateway   asks for …   98765 gas`.
pub(crate) fn line(who: &str, played: &Played) -> String {
    let gas = played
        .gas
        .map_or(String::new(), |gas| format!(" ({gas} gas)"));
    format!("{who:<9} {}{gas}", played.action)
}

/// What happens on the way of an accusation.
pub(crate) fn told(told: &Told, provider: &str) -> String {
    match told {
        Told::Opened {
            game, bond, gas, ..
        } => format!(
            "dispute {} is open, with a bond of {} ({gas} gas)",
            output::short_hex(game),
            output::usd(*bond)
        ),
        Told::Moved { played, .. } => {
            let who = if played.ours { "you" } else { provider };
            let mut text = line(who, played);
            for place in played.parted.iter().flat_map(|p| {
                let lines: Vec<String> = p.picture().lines().map(str::to_owned).collect();
                lines
            }) {
                text.push_str(&format!("\n            {place}"));
            }
            text
        }
    }
}

/// How it ended.
pub(crate) fn concluded(concluded: &Concluded, provider: &str, me: &Address) -> String {
    match concluded {
        Concluded::Convicted { conviction, .. } => {
            let bounty = match conviction.winner == *me {
                true => format!("{} to you", output::usd(conviction.to_winner)),
                false => format!(
                    "{} to another challenger, who was first",
                    output::usd(conviction.to_winner)
                ),
            };
            format!(
                "{provider} is convicted and loses {}: {bounty}, {} to the payer, {} burned",
                output::usd(conviction.stake),
                output::usd(conviction.to_payer),
                output::usd(conviction.burned)
            )
        }
        Concluded::Lost { bond, .. } => format!(
            "lost: your clock ran out, and your bond of {} went to {provider}",
            output::usd(*bond)
        ),
    }
}
