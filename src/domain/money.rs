//! Money: integer minor units of one currency. Never a float, neither when read nor when shown.

use std::fmt;

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};

/// The shop's currency, ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency(iso_currency::Currency);

/// Why a text is not an amount of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a plain decimal number.
    #[error("must be a plain decimal number such as 19.99")]
    NotADecimal,
    /// More decimals than the currency has.
    #[error("has more decimals than {currency} has ({decimals})")]
    TooManyDecimals {
        /// The currency's ISO 4217 code.
        currency: &'static str,
        /// How many decimals the currency has.
        decimals: u8,
    },
    /// Below zero where that has no meaning.
    #[error("must not be negative")]
    Negative,
    /// Beyond what 64 bits of minor units hold.
    #[error("is too large")]
    TooLarge,
}

impl Currency {
    /// The currency of an ISO 4217 code in capitals, `None` when there is none of that code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        iso_currency::Currency::from_code(code).map(Self)
    }

    /// The ISO 4217 code, three capitals.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// How many decimals an amount has: 2 for USD, 0 for JPY.
    #[must_use]
    pub fn decimals(self) -> u8 {
        u8::try_from(self.0.exponent().unwrap_or(0)).unwrap_or(0)
    }

    /// Reads an amount in major units, such as `19.99`, exactly.
    ///
    /// # Errors
    /// [`MoneyError`] says what the text is instead.
    pub fn parse(self, text: &str) -> Result<Money, MoneyError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(fraction) {
            return Err(MoneyError::NotADecimal);
        }
        let decimals = usize::from(self.decimals());
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > decimals {
            return Err(MoneyError::TooManyDecimals { currency: self.code(), decimals: self.decimals() });
        }
        let minor = format!("{whole}{fraction:0<decimals$}").parse::<i64>().map_err(|_| MoneyError::TooLarge)?;
        if negative && minor != 0 {
            return Err(MoneyError::Negative);
        }
        Ok(Money(minor))
    }

    /// The amount in major units with all the decimals of the currency: `19.99`, `20.00`.
    #[must_use]
    pub fn show(self, amount: Money) -> String {
        let decimals = usize::from(self.decimals());
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(amount.0.unsigned_abs());
        // As many as the decimals, and one before them.
        let missing = (decimals + 1).saturating_sub(digits.len());
        let (negative, point) = (amount.0 < 0, decimals > 0);
        let mut text = String::with_capacity(usize::from(negative) + missing + digits.len() + usize::from(point));
        if negative {
            text.push('-');
        }
        text.extend(std::iter::repeat_n('0', missing));
        text.push_str(digits);
        if point {
            text.insert(text.len() - decimals, '.');
        }
        text
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount in minor units (cents) of the shop's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(pub i64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum, `None` when 64 bits do not hold it.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// This amount so many times, `None` when 64 bits do not hold it.
    #[must_use]
    pub fn times(self, quantity: i64) -> Option<Self> {
        self.0.checked_mul(quantity).map(Self)
    }
}

/// A tax rate, applied to a subtotal: `0.19` is nineteen per cent. From 0 up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaxRate(Decimal);

impl TaxRate {
    /// No tax.
    pub const NONE: Self = Self(Decimal::ZERO);

    /// Reads a rate such as `0.19`, `None` when it is no decimal from 0 to 1.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rate = Decimal::from_str_exact(text).ok()?;
        (Decimal::ZERO..=Decimal::ONE).contains(&rate).then_some(Self(rate))
    }

    /// The tax on `subtotal`, rounded half to even to a minor unit.
    #[must_use]
    pub fn on(self, subtotal: Money) -> Option<Money> {
        Decimal::from(subtotal.0)
            .checked_mul(self.0)?
            .round_dp_with_strategy(0, RoundingStrategy::MidpointNearestEven)
            .to_i64()
            .map(Money)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::from_code(code).expect("a currency")
    }

    #[test]
    fn reads_what_the_currency_has() {
        let (usd, jpy, bhd) = (currency("USD"), currency("JPY"), currency("BHD"));
        assert_eq!(usd.parse("19.99"), Ok(Money(1999)));
        assert_eq!(usd.parse("19.9"), Ok(Money(1990)));
        assert_eq!(usd.parse("19.990"), Ok(Money(1999)), "a trailing zero says nothing more");
        assert_eq!(usd.parse("0"), Ok(Money(0)));
        assert_eq!(usd.parse("-0.00"), Ok(Money(0)));
        assert_eq!(jpy.parse("500"), Ok(Money(500)));
        assert_eq!(jpy.parse("500.00"), Ok(Money(500)));
        assert_eq!(bhd.parse("1.234"), Ok(Money(1234)));
    }

    #[test]
    fn shows_all_the_decimals_of_the_currency() {
        let (usd, jpy, bhd) = (currency("USD"), currency("JPY"), currency("BHD"));
        for (minor, shown) in [
            (0, "0.00"),
            (5, "0.05"),
            (-5, "-0.05"),
            (10, "0.10"),
            (1990, "19.90"),
            (-123_456, "-1234.56"),
            (i64::MIN, "-92233720368547758.08"),
        ] {
            assert_eq!(usd.show(Money(minor)), shown);
        }
        assert_eq!((jpy.show(Money(0)), jpy.show(Money(-7))), ("0".to_owned(), "-7".to_owned()));
        assert_eq!((bhd.show(Money(5)), bhd.show(Money(12_345))), ("0.005".to_owned(), "12.345".to_owned()));
    }

    #[test]
    fn refuses_what_it_has_not() {
        let (usd, jpy) = (currency("USD"), currency("JPY"));
        assert!(matches!(usd.parse("19.999"), Err(MoneyError::TooManyDecimals { decimals: 2, .. })));
        assert!(matches!(jpy.parse("1.5"), Err(MoneyError::TooManyDecimals { decimals: 0, .. })));
        assert_eq!(usd.parse("-0.01"), Err(MoneyError::Negative));
        assert_eq!(usd.parse("92233720368547758.08"), Err(MoneyError::TooLarge));
        for text in ["", ".", "1.", ".5", "1e2", "+1", "1,00", " 1", "NaN", "0x10", "--1"] {
            assert_eq!(usd.parse(text), Err(MoneyError::NotADecimal), "{text:?}");
        }
    }

    #[test]
    fn tax_is_rounded_half_to_even() {
        let rate = TaxRate::parse("0.05").expect("a rate");
        assert_eq!(rate.on(Money(10)), Some(Money(0)), "0.5 goes to the even 0");
        assert_eq!(rate.on(Money(30)), Some(Money(2)), "1.5 goes to the even 2");
        assert_eq!(rate.on(Money(50)), Some(Money(2)), "2.5 goes to the even 2");
        assert_eq!(TaxRate::NONE.on(Money(i64::MAX)), Some(Money(0)));
        assert_eq!(TaxRate::parse("1").and_then(|all| all.on(Money(i64::MAX))), Some(Money(i64::MAX)));
        for text in ["1.01", "-0.1", "ten", ""] {
            assert_eq!(TaxRate::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back_the_same(minor in 0..=i64::MAX, code in prop::sample::select(vec!["USD", "JPY", "BHD", "EUR"])) {
            let currency = currency(code);
            prop_assert_eq!(currency.parse(&currency.show(Money(minor))), Ok(Money(minor)));
        }

        #[test]
        fn tax_is_within_half_a_unit_of_exact(minor in 0..1_000_000_000_000_i64, per_mille in 0..=1000_i64) {
            let rate = TaxRate(Decimal::new(per_mille, 3));
            let tax = rate.on(Money(minor)).expect("fits").0;
            let error_in_thousandths = (i128::from(tax) * 1000 - i128::from(minor) * i128::from(per_mille)).abs();
            prop_assert!(error_in_thousandths <= 500);
        }
    }
}
