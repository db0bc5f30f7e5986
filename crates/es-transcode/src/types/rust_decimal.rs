//! The decimals of `rust_decimal`: 96 bits, and up to 28 digits after the point.

use bigdecimal::BigDecimal;
use es_core::{PersistenceError, Transcoding};
use rust_decimal::Decimal;

use crate::{DecimalAsStr, as_text::TextForm, decimal::spell};

impl TextForm for Decimal {
    const NAME: &str = "decimal_str";

    fn to_text(&self) -> Result<String, PersistenceError> {
        let mantissa = self.mantissa();
        let sign = if mantissa < 0 { "-" } else { "" };
        Ok(spell(sign, &mantissa.unsigned_abs().to_string(), -i128::from(self.scale())))
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        let value = DecimalAsStr.decode(text.into())?;
        convert(&value).ok_or_else(|| {
            PersistenceError::data("the decimal has more digits than a rust_decimal::Decimal holds")
        })
    }
}

/// Converts a decimal exactly. Trailing zeros after the point that do not fit are dropped.
fn convert(value: &BigDecimal) -> Option<Decimal> {
    let (coefficient, scale) = value.as_bigint_and_scale();
    let digits = coefficient.to_string();
    let significant = digits.trim_end_matches('0');
    if matches!(significant, "" | "-") {
        let scale = scale.clamp(0, Decimal::MAX_SCALE.into());
        return Decimal::try_from_i128_with_scale(0, u32::try_from(scale).ok()?).ok();
    }
    let trailing = digits.len() - significant.len();
    (0..=trailing).find_map(|dropped| {
        let scale = scale.checked_sub(i64::try_from(dropped).ok()?)?;
        with_scale(digits.get(..digits.len() - dropped)?, scale)
    })
}

/// Returns the decimal with these digits, of which `scale` are after the point.
fn with_scale(digits: &str, scale: i64) -> Option<Decimal> {
    let mantissa: i128 = digits.parse().ok()?;
    match u32::try_from(scale) {
        Ok(scale) => Decimal::try_from_i128_with_scale(mantissa, scale).ok(),
        Err(_) => {
            let zeros = u32::try_from(scale.checked_neg()?).ok()?;
            Decimal::try_from_i128_with_scale(mantissa.checked_mul(10_i128.checked_pow(zeros)?)?, 0).ok()
        }
    }
}
