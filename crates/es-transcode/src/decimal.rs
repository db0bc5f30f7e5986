//! `decimal_str`: decimals.

use bigdecimal::BigDecimal;
use es_core::{PersistenceError, Transcoding};

/// How many digits a decimal may have. The time to read or write one grows with their square; this
/// many take milliseconds.
const MAX_DIGITS: usize = 100_000;

/// How many digits surely fit into an `i64`.
const SHORT: usize = 18;

/// How large the exponent of the first digit may be, up and down: what Python's `decimal` holds.
const MAX_EXPONENT: u128 = 999_999_999_999_999_999;

/// Writes a [`BigDecimal`] as Python's `str(Decimal)` does, under the name `decimal_str`: `1.2345`,
/// `-1.50`, `1E+30`.
///
/// Trailing zeros and exponents are kept: `1.50` stays `1.50`, and `1E+3` does not become `1000`.
/// Python's negative zero, which `BigDecimal` does not have, is read as the zero that it equals. NaN
/// and the infinities are refused, as are more than 100,000 digits and exponents that Python's type
/// does not hold.
///
/// Reading costs no more than the text is long, but arithmetic with what was read may: adding 1 to
/// `1E+999999999999` asks for that many digits. Bound the exponents of decimals that others chose
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
        if digits.len() > MAX_DIGITS {
            return Err(too_many_digits());
        }
        let sign = if coefficient.sign() == bigdecimal::num_bigint::Sign::Minus { "-" } else { "" };
        spell(sign, &digits, -i128::from(scale))
    }

    fn decode(&self, text: Box<str>) -> Result<BigDecimal, PersistenceError> {
        if let Some(value) = parse_short(&text) {
            return Ok(value);
        }
        if text.bytes().filter(u8::is_ascii_digit).count() > MAX_DIGITS {
            return Err(too_many_digits());
        }
        text.parse().map_err(|error| {
            PersistenceError::data("the text is not a decimal; NaN and the infinities are none")
                .with_source(error)
        })
    }
}

/// The decimal, when it has few digits and no exponent, as nearly all have: decoding one takes 340 instructions, and
/// 1,260 by `BigDecimal::from_str` (callgrind, `1234.56`).
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
fn spell(sign: &str, digits: &str, exponent: i128) -> Result<String, PersistenceError> {
    let count = digits.len() as i128;
    let adjusted = exponent + count - 1;
    if adjusted.unsigned_abs() > MAX_EXPONENT {
        return Err(PersistenceError::data(format!("the decimal's exponent {adjusted} is out of range")));
    }
    if exponent > 0 || adjusted < -6 {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        return Ok(format!("{sign}{first}{point}{rest}E{adjusted:+}"));
    }
    match usize::try_from(count + exponent) {
        Ok(whole) if whole == digits.len() => Ok([sign, digits].concat()),
        Ok(whole) if whole > 0 => {
            let (whole, fraction) = digits.split_at(whole);
            Ok([sign, whole, ".", fraction].concat())
        }
        // Fewer digits than places: at most five zeros stand between.
        _ => {
            let places = usize::try_from(-exponent).unwrap_or(0);
            Ok(format!("{sign}0.{digits:0>places$}"))
        }
    }
}

fn too_many_digits() -> PersistenceError {
    PersistenceError::data(format!("the decimal has more than {MAX_DIGITS} digits"))
}
