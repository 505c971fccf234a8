//! When claiming pays: what is due by value or age, held against what the gas costs. Decides only; who calls brings the
//! price of gas and the time.

use assay_protocol::{MicroUsd, Timestamp};

use crate::payee::Account;

/// What a claim takes about, to choose the rows with: by transaction, and by channel in it. Before anything is sent the
/// chain is asked what this very batch takes.
const TRANSACTION_GAS: u64 = 60_000;
const ROW_GAS: u64 = 30_000;
/// Wei in a coin.
const COIN: u128 = 1_000_000_000_000_000_000;

/// When it is worth a transaction to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimPolicy {
    /// Look at claiming as soon as this much is open in all.
    pub value: MicroUsd,
    /// Look at claiming as soon as something is open for longer than this.
    pub age_s: u64,
    /// The part of what is claimed that gas may cost, in millionths.
    pub gas_share_ppm: u32,
    /// What is open for longer than this may be eaten by its gas, though not more.
    pub age_most_s: u64,
    /// Channels in one transaction.
    pub batch_max: usize,
}

impl ClaimPolicy {
    /// Five cents at a time or what is five minutes old, two percent of it for gas, three days of patience.
    pub const USUAL: Self = Self {
        value: MicroUsd(50_000),
        age_s: 300,
        gas_share_ppm: 20_000,
        age_most_s: 3 * 24 * 3_600,
        batch_max: 100,
    };

    /// Whatever brings more than it costs, now.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self {
            value: MicroUsd::ZERO,
            age_s: 0,
            age_most_s: 0,
            batch_max: usize::MAX,
            ..self
        }
    }

    /// The most that may be spent on moving `value`, which has waited since then.
    pub fn budget(&self, value: MicroUsd, since: Option<Timestamp>, now: Timestamp) -> MicroUsd {
        let waited = since.map_or(0, |since| now.0.saturating_sub(since.0));
        if waited >= self.age_most_s {
            return value;
        }
        let share = u128::from(self.gas_share_ppm.min(1_000_000));
        // At most `value`, so it fits.
        MicroUsd((u128::from(value.0) * share / 1_000_000) as u64)
    }
}

/// What gas costs now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GasPrice {
    /// Wei for a unit.
    pub wei: u128,
    /// Micro-USD for a coin of 10^18 wei; zero where coins are worth nothing.
    pub coin: MicroUsd,
}

impl GasPrice {
    /// The cost of so much gas, rounded up; the most that can be counted where it is beyond that.
    pub fn cost(&self, gas: u64) -> MicroUsd {
        let coin = u128::from(self.coin.0);
        let wei = u128::from(gas).saturating_mul(self.wei);
        // The rest is below 10^18 and the coin below 2^64: their product has 124 bits at most.
        let rest = (wei % COIN * coin).div_ceil(COIN);
        let cost = (wei / COIN).saturating_mul(coin).saturating_add(rest);
        MicroUsd(u64::try_from(cost).unwrap_or(u64::MAX))
    }
}

/// An account with something to claim.
struct Open<'a> {
    account: &'a Account,
    /// What may be spent on claiming it.
    budget: MicroUsd,
}

/// The accounts to claim from now; none if waiting is cheaper. Those whose payers are leaving come first, then those
/// that may pay most for gas. A row that does not pay for itself never rides along.
pub fn due<'a>(
    accounts: impl IntoIterator<Item = &'a Account>,
    policy: &ClaimPolicy,
    price: &GasPrice,
    now: Timestamp,
) -> Vec<&'a Account> {
    let row = price.cost(ROW_GAS);
    let mut open: Vec<Open<'a>> = accounts
        .into_iter()
        .filter(|account| account.claimable() > MicroUsd::ZERO)
        .map(|account| Open {
            account,
            budget: budget(account, policy, now),
        })
        .filter(|open| open.budget >= row)
        .collect();
    let value = sum(open.iter().map(|open| open.account.claimable()));
    let aged = |open: &Open<'_>| {
        open.account
            .unclaimed_since
            .is_some_and(|since| now.0.saturating_sub(since.0) >= policy.age_s)
    };
    let leaving = |open: &Open<'_>| open.account.is_leaving();
    if value < policy.value && !open.iter().any(aged) && !open.iter().any(leaving) {
        return Vec::new();
    }
    let rank = |open: &Open<'_>| (open.budget, open.account.channel_id);
    open.sort_by_key(|open| std::cmp::Reverse((leaving(open), rank(open))));
    if !covers(&open, policy, price) {
        // Those who leave took the places of what would have paid for the transaction.
        open.sort_by_key(|open| std::cmp::Reverse(rank(open)));
        if !covers(&open, policy, price) {
            return Vec::new();
        }
    }
    open.truncate(policy.batch_max);
    let mut rows: Vec<&Account> = open.into_iter().map(|open| open.account).collect();
    rows.sort_by_key(|account| !account.is_leaving());
    rows
}

/// Whether the first rows, as many as fit, pay for their transaction.
fn covers(open: &[Open<'_>], policy: &ClaimPolicy, price: &GasPrice) -> bool {
    let open = &open[..open.len().min(policy.batch_max)];
    let rows = u64::try_from(open.len()).unwrap_or(u64::MAX);
    let gas = TRANSACTION_GAS.saturating_add(ROW_GAS.saturating_mul(rows));
    !open.is_empty() && sum(open.iter().map(|open| open.budget)) >= price.cost(gas)
}

/// Whether claiming from these accounts may cost this much.
pub fn pays<'a>(
    accounts: impl IntoIterator<Item = &'a Account>,
    policy: &ClaimPolicy,
    cost: MicroUsd,
    now: Timestamp,
) -> bool {
    let budgets = accounts
        .into_iter()
        .map(|account| budget(account, policy, now));
    sum(budgets) >= cost
}

/// What is left unclaimed when a payer's delay is over is the payer's: then any claim that pays is good.
fn budget(account: &Account, policy: &ClaimPolicy, now: Timestamp) -> MicroUsd {
    if account.is_leaving() {
        return account.claimable();
    }
    policy.budget(account.claimable(), account.unclaimed_since, now)
}

fn sum(amounts: impl Iterator<Item = MicroUsd>) -> MicroUsd {
    MicroUsd(amounts.fold(0, |sum, amount| sum.saturating_add(amount.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gas_is_priced_upwards_and_never_wraps() {
        let price = |wei, coin| GasPrice {
            wei,
            coin: MicroUsd(coin),
        };
        let check = |price: GasPrice, gas, cost| assert_eq!(price.cost(gas), MicroUsd(cost));
        // 100,000 gas at 10 gwei and $2,500 a coin: a thousandth of a coin.
        check(price(10_000_000_000, 2_500_000_000), 100_000, 2_500_000);
        check(price(1, 2_500_000_000), 1, 1);
        check(price(0, 2_500_000_000), 1_000_000, 0);
        check(price(1_000_000_000, 0), 1_000_000, 0);
        check(price(u128::MAX, u64::MAX), u64::MAX, u64::MAX);
        check(price(COIN, u64::MAX), 1, u64::MAX);
    }

    #[test]
    fn a_budget_is_a_share_until_patience_ends() {
        let policy = ClaimPolicy::USUAL;
        let at =
            |waited| policy.budget(MicroUsd(1_000), Some(Timestamp(50)), Timestamp(50 + waited));
        assert_eq!(at(0), MicroUsd(20));
        assert_eq!(at(policy.age_most_s - 1), MicroUsd(20));
        assert_eq!(at(policy.age_most_s), MicroUsd(1_000));
        assert_eq!(
            policy.at_once().budget(MicroUsd(7), None, Timestamp(0)),
            MicroUsd(7)
        );
        let all = ClaimPolicy {
            gas_share_ppm: u32::MAX,
            ..policy
        };
        assert_eq!(
            all.budget(MicroUsd(u64::MAX), None, Timestamp(0)),
            MicroUsd(u64::MAX)
        );
    }
}
