//! Which nodes a local market has, and what each asks. Pure: it starts nothing.
//!
//! The same request for nodes always gives the same plan, so that a restart finds its nodes again.

use assay_protocol::{MicroUsdPerMillionTokens, Price};

/// What a node does with the requests it is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Conduct {
    Honest,
    /// Runs the model without some of its layers and claims the whole model.
    SkipsLayers,
    /// Ends its answers early and claims that the model ended them.
    Truncates,
}

impl Conduct {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Conduct::Honest => "honest",
            Conduct::SkipsLayers => "cheats: skips layers",
            Conduct::Truncates => "cheats: cuts answers short",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodePlan {
    /// Also the name of its folder and key.
    pub(crate) name: String,
    pub(crate) price: Price,
    pub(crate) conduct: Conduct,
}

/// What the cheapest honest node asks for a million tokens: input, cached input, output.
const BASE: [u64; 3] = [20_000, 10_000, 60_000];

/// Honest nodes ask 100%, 150%, 200% … of the base; a cheat undercuts them all, or nobody would come.
pub(crate) fn nodes(honest: u32, with_cheaters: bool) -> Vec<NodePlan> {
    let mut plans: Vec<NodePlan> = (0..honest)
        .map(|index| NodePlan {
            name: format!("node-{}", index + 1),
            price: price(100 + 50 * u64::from(index)),
            conduct: Conduct::Honest,
        })
        .collect();
    if with_cheaters {
        let cheat = |name: &str, percent, conduct| NodePlan {
            name: name.to_owned(),
            price: price(percent),
            conduct,
        };
        plans.push(cheat("cheat-1", 50, Conduct::SkipsLayers));
        plans.push(cheat("cheat-2", 40, Conduct::Truncates));
    }
    plans
}

fn price(percent: u64) -> Price {
    let [input, cached_input, output] =
        BASE.map(|base| MicroUsdPerMillionTokens(base * percent / 100));
    Price {
        input,
        cached_input,
        output,
    }
}

#[cfg(test)]
mod tests {
    use super::{Conduct, nodes};

    #[test]
    fn every_node_has_a_name_and_a_price_of_its_own() {
        let plans = nodes(5, true);
        assert_eq!(plans.len(), 7);
        for (index, plan) in plans.iter().enumerate() {
            for other in &plans[..index] {
                assert_ne!(plan.name, other.name);
                assert_ne!(plan.price, other.price);
            }
        }
    }

    #[test]
    fn cheats_undercut_every_honest_node() {
        let plans = nodes(3, true);
        let dearest_cheat = plans
            .iter()
            .filter(|p| p.conduct != Conduct::Honest)
            .map(|p| p.price.output)
            .max();
        let cheapest_honest = plans
            .iter()
            .filter(|p| p.conduct == Conduct::Honest)
            .map(|p| p.price.output)
            .min();
        assert!(dearest_cheat < cheapest_honest);
    }
}
