//! `decimal_str`: decimals.

use bigdecimal::BigDecimal;
use es_core::{PersistenceError, Transcoding};

/// The maximum of digits of a decimal. The time to read or write one grows with their square; this
/// many take milliseconds.
const MAX_DIGITS: usize = 100_000;

/// A number of digits that always fits into an `i64`.
const SHORT: usize = 18;

/// The longest text of this number of digits.
const MAX_LENGTH: usize = MAX_DIGITS + "-0.E-1999999999999999997".len();

/// The greatest exponent of a first digit in Python's `decimal`.
const MAX_EXPONENT: i128 = 999_999_999_999_999_999;

/// The least exponent of a last digit in Python's `decimal`.
const MIN_EXPONENT: i128 = -1_999_999_999_999_999_997;

/// Writes a [`BigDecimal`] as Python's `str(Decimal)` does, under the name `decimal_str`: `1.2345`,
/// `-1.50`, `1E+30`.
///
/// Trailing zeros and exponents are kept: `1.50` stays `1.50`, and `1E+3` does not become `1000`.
/// Python's negative zero, which `BigDecimal` does not have, is read as the zero that it equals. NaN
/// and the infinities are refused, as are more than 100,000 digits and exponents that Python's type
/// does not hold.
///
/// The cost of reading is proportional to the length of the text, but arithmetic with the value may cost
/// more: adding 1 to `1E+999999999999` needs that many digits. Limit the exponents of untrusted decimals
/// before computing with them.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecimalAsStr;

impl Transcoding for DecimalAsStr {
    type Value = BigDecimal;
    type Encoded<'a> = String;
    type Decoded = Box<str>;

    fn name(&self) -> &str {
        "decimal_str"
    }

    fn encode(&self, value: &BigDecimal) -> Result<String, PersistenceError> {
        let (coefficient, scale) = value.as_bigint_and_scale();
        let digits = coefficient.magnitude().to_string();
        let exponent = -i128::from(scale);
        check_range(digits.len(), exponent)?;
        let sign = if coefficient.sign() == bigdecimal::num_bigint::Sign::Minus { "-" } else { "" };
        Ok(spell(sign, &digits, exponent))
    }

    fn decode(&self, text: Box<str>) -> Result<BigDecimal, PersistenceError> {
        if let Some(value) = parse_short(&text) {
            return Ok(value);
        }
        if text.len() > MAX_LENGTH {
            return Err(too_many_digits());
        }
        let value: BigDecimal = text.parse().map_err(|error| {
            PersistenceError::data("the text is not a decimal; NaN and the infinities are none")
                .with_source(error)
        })?;
        let digits = usize::try_from(value.digits()).unwrap_or(usize::MAX);
        check_range(digits, -i128::from(value.fractional_digit_count()))?;
        Ok(value)
    }
}

/// Checks the range of a decimal, for reading and for writing: a decimal that is read can be written, and
/// vice versa.
fn check_range(digits: usize, exponent: i128) -> Result<(), PersistenceError> {
    if digits > MAX_DIGITS {
        return Err(too_many_digits());
    }
    if adjusted(digits, exponent) > MAX_EXPONENT || exponent < MIN_EXPONENT {
        return Err(PersistenceError::data(format!("the decimal's exponent {exponent} is out of range")));
    }
    Ok(())
}

/// The exponent of the first digit, where `exponent` is that of the last.
fn adjusted(digits: usize, exponent: i128) -> i128 {
    // Zero has one digit.
    exponent + digits.max(1) as i128 - 1
}

/// The decimal, when it has few digits and no exponent, as nearly all have: decoding one takes 340
/// instructions, and 1,260 by `BigDecimal::from_str` (callgrind, `1234.56`).
fn parse_short(text: &str) -> Option<BigDecimal> {
    let (sign, magnitude) = match text.strip_prefix('-') {
        Some(magnitude) => (-1, magnitude),
        None => (1, text),
    };
    let (whole, fraction) = match magnitude.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (magnitude, ""),
    };
    if whole.is_empty() || whole.len() + fraction.len() > SHORT {
        return None;
    }
    let number = whole.bytes().chain(fraction.bytes()).try_fold(0_i64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + i64::from(digit))
    })?;
    Some(BigDecimal::new((sign * number).into(), i64::try_from(fraction.len()).ok()?))
}

/// The `to-scientific-string` of the General Decimal Arithmetic Specification.
pub(crate) fn spell(sign: &str, digits: &str, exponent: i128) -> String {
    let adjusted = adjusted(digits.len(), exponent);
    if exponent > 0 || adjusted < -6 {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        return format!("{sign}{first}{point}{rest}E{adjusted:+}");
    }
    match usize::try_from(adjusted + 1) {
        Ok(whole) if whole == digits.len() => [sign, digits].concat(),
        Ok(whole) if whole > 0 => {
            let (whole, fraction) = digits.split_at(whole);
            [sign, whole, ".", fraction].concat()
        }
        // Fewer digits than places: at most five zeros are inserted. A padding width cannot be used,
        // which panics beyond 65,535.
        _ => {
            let zeros = usize::try_from(-1 - adjusted).unwrap_or(0);
            [sign, "0.", &"0".repeat(zeros), digits].concat()
        }
    }
}

fn too_many_digits() -> PersistenceError {
    PersistenceError::data(format!("the decimal has more than {MAX_DIGITS} digits"))
}
