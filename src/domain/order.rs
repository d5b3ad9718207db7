//! Orders: their states, what may follow what, and their totals.

use super::ids::ProductId;
use super::money::{Money, TaxRate};
use super::names;

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderStatus {
    /// Placed, not paid.
    Pending,
    /// Paid.
    Confirmed,
    /// On its way.
    Shipped,
    /// Arrived.
    Delivered,
    /// Called off; its units are back in stock.
    Cancelled,
}

names!(OrderStatus { Pending = "PENDING", Confirmed = "CONFIRMED", Shipped = "SHIPPED", Delivered = "DELIVERED", Cancelled = "CANCELLED" });

impl OrderStatus {
    /// Whether an order may go from this state to `next`.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::Confirmed | Self::Cancelled),
            Self::Confirmed => matches!(next, Self::Shipped | Self::Cancelled),
            Self::Shipped => matches!(next, Self::Delivered),
            Self::Delivered | Self::Cancelled => false,
        }
    }
}
/// One line of an order, with the name and the price it was sold at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLine {
    /// What was sold.
    pub product: ProductId,
    /// Its name at that time.
    pub name: String,
    /// Its stock keeping unit.
    pub sku: String,
    /// The price of one.
    pub price: Money,
    /// How many.
    pub quantity: i64,
    /// Price times quantity.
    pub total: Money,
}

/// What an order comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// The sum of the lines.
    pub subtotal: Money,
    /// The tax on the subtotal.
    pub tax: Money,
    /// Both.
    pub grand_total: Money,
}

/// An amount does not fit 64 bits of minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the total would be too large")]
pub struct TotalOverflow;

/// The sum of the lines' totals.
///
/// # Errors
/// [`TotalOverflow`] when 64 bits do not hold it.
pub fn subtotal(line_totals: impl IntoIterator<Item = Money>) -> Result<Money, TotalOverflow> {
    line_totals.into_iter().try_fold(Money::ZERO, |sum, total| sum.plus(total).ok_or(TotalOverflow))
}

impl Totals {
    /// Adds the lines up and puts the tax on the subtotal.
    ///
    /// # Errors
    /// [`TotalOverflow`] when 64 bits do not hold it.
    pub fn of(line_totals: impl IntoIterator<Item = Money>, rate: TaxRate) -> Result<Self, TotalOverflow> {
        let subtotal = subtotal(line_totals)?;
        let tax = rate.on(subtotal).ok_or(TotalOverflow)?;
        let grand_total = subtotal.plus(tax).ok_or(TotalOverflow)?;
        Ok(Self { subtotal, tax, grand_total })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_written_transitions_exist() {
        use OrderStatus::{Cancelled, Confirmed, Delivered, Pending, Shipped};
        let legal = [
            (Pending, Confirmed),
            (Confirmed, Shipped),
            (Shipped, Delivered),
            (Pending, Cancelled),
            (Confirmed, Cancelled),
        ];
        for (from, _) in OrderStatus::NAMES {
            for (to, _) in OrderStatus::NAMES {
                assert_eq!(from.may_become(to), legal.contains(&(from, to)), "{from} to {to}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_walk_ends_in_delivered_or_cancelled(choices in prop::collection::vec(any::<usize>(), 8)) {
            let mut status = OrderStatus::Pending;
            for choice in choices {
                let next: Vec<_> = OrderStatus::NAMES.iter().map(|(next, _)| *next).filter(|next| status.may_become(*next)).collect();
                if next.is_empty() {
                    break;
                }
                status = next[choice % next.len()];
            }
            prop_assert!(matches!(status, OrderStatus::Delivered | OrderStatus::Cancelled));
        }

        #[test]
        fn the_total_is_the_sum_of_the_lines(lines in prop::collection::vec(0..1_000_000_i64, 0..50)) {
            let totals = Totals::of(lines.iter().map(|line| Money(*line)), TaxRate::NONE).expect("fits");
            prop_assert_eq!(totals.grand_total, Money(lines.iter().sum()));
        }
    }

    #[test]
    fn a_total_that_does_not_fit_is_refused() {
        assert_eq!(Totals::of([Money(i64::MAX), Money(1)], TaxRate::NONE), Err(TotalOverflow));
    }
}
