//! Numbers as they are written, compared digit by digit: no size is too large, and nothing is rounded.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Digits of an exponent. Nobody has a number with more, and so its value fits into 64 bits.
const MAX_EXPONENT_DIGITS: usize = 17;

/// The value of a decimal number: of `1.50`, `15e-1` and `1.5` the same.
#[derive(Debug, Clone)]
pub struct Number<'t> {
    /// -1, 0 or 1.
    sign: i8,
    /// The power of ten of its first digit that is not 0.
    magnitude: i64,
    /// From there to the last digit that is not 0; a point may be within.
    digits: Cow<'t, str>,
}

impl<'t> Number<'t> {
    /// Reads a number: of JSON, or with `+` before it, or without a digit on one side of the point. None for anything
    /// else, and for an exponent that is longer than any number's.
    pub fn parse(text: &'t str) -> Option<Number<'t>> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let is_digit = |c: char| ('1'..='9').contains(&c);
        let (Some(first), Some(last)) = (mantissa.find(is_digit), mantissa.rfind(is_digit)) else {
            return Some(Number { sign: 0, magnitude: 0, digits: Cow::Borrowed("") });
        };
        // Digits before the point count from 0 up, those behind it from -1 down.
        let (first_at, point) = (first as i64, whole.len() as i64);
        let place = if first_at < point { point - 1 - first_at } else { point - first_at };
        Some(Number {
            sign: if negative { -1 } else { 1 },
            magnitude: place + exponent,
            digits: Cow::Borrowed(&mantissa[first..=last]),
        })
    }

    /// The same without the text that it was read from.
    pub fn into_owned(self) -> Number<'static> {
        Number { digits: Cow::Owned(self.digits.replace('.', "")), ..self }
    }
}

impl PartialEq for Number<'_> {
    fn eq(&self, other: &Number<'_>) -> bool {
        self.compare(other) == Ordering::Equal
    }
}

impl From<i64> for Number<'static> {
    fn from(number: i64) -> Number<'static> {
        Number::parse(&number.to_string())
            .map_or(Number { sign: 0, magnitude: 0, digits: Cow::Borrowed("") }, Number::into_owned)
    }
}

/// The value of what stands behind the `e`.
fn exponent(text: &str) -> Option<i64> {
    let digits = text.trim_start_matches(['+', '-']);
    if text.len() - digits.len() > 1 || digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    if digits.len() > MAX_EXPONENT_DIGITS {
        return None;
    }
    let value: i64 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some(if text.starts_with('-') { -value } else { value })
}

impl Number<'_> {
    /// How it is to another one.
    pub fn compare(&self, other: &Number<'_>) -> Ordering {
        let by_sign = self.sign.cmp(&other.sign);
        if by_sign != Ordering::Equal || self.sign == 0 {
            return by_sign;
        }
        let digits =
            |number: &Number<'_>| -> Vec<u8> { number.digits.bytes().filter(|byte| *byte != b'.').collect() };
        let size = self.magnitude.cmp(&other.magnitude).then_with(|| {
            if self.digits.contains('.') || other.digits.contains('.') {
                digits(self).cmp(&digits(other))
            } else {
                self.digits.cmp(&other.digits)
            }
        });
        if self.sign < 0 { size.reverse() } else { size }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compare(a: &str, b: &str) -> Ordering {
        Number::parse(a).expect(a).compare(&Number::parse(b).expect(b))
    }

    #[test]
    fn numbers_have_an_order() {
        let ladder = [
            "-1e400",
            "-18446744073709551616",
            "-18446744073709551615",
            "-1.5",
            "-1",
            "-0.1",
            "-1e-400",
            "0",
            "1e-400",
            "0.001",
            "0.0010001",
            "0.1",
            "1",
            "1.0000000000000000000001",
            "9.99",
            "10",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551615",
            "18446744073709551615.1",
            "18446744073709551616",
            "1e400",
        ];
        for (i, a) in ladder.iter().enumerate() {
            for (j, b) in ladder.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        for (a, b) in [
            ("1", "1.0"),
            ("1", "10e-1"),
            ("0", "-0.0e5"),
            ("1.50", "+15E-1"),
            (".5", "0.5"),
            ("5.", "5"),
            ("100", "1e2"),
            ("1e00000000000000000000002", "100"),
            ("0e99999999999999999", "0"),
        ] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
            let own = |text| Number::parse(text).expect(text).into_owned();
            assert_eq!(own(a), own(b), "{a} {b}");
        }
        assert_eq!(
            Number::from(i64::MIN).compare(&Number::parse("-9223372036854775808").expect("is one")),
            Ordering::Equal
        );
        assert_eq!(Number::from(0), Number::parse("0").expect("is one"));
    }

    #[test]
    fn what_is_no_number() {
        for text in [
            "",
            "-",
            ".",
            "e5",
            "1e",
            "1e+",
            "1e--1",
            "1.2.3",
            "1x",
            "0x1",
            "NaN",
            "inf",
            " 1",
            "1 ",
            "--1",
            "١",
            "1e111111111111111111",
        ] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_as_machines_have_them(a in any::<i64>(), b in any::<i64>(), zeros in 0_usize..4) {
            let (x, y) = (format!("{a}.{}", "0".repeat(zeros)), format!("{b}{}e-{zeros}", "0".repeat(zeros)));
            prop_assert_eq!(compare(&x, &y), a.cmp(&b), "{} {}", x, y);
        }

        #[test]
        fn floats_are_as_machines_have_them(a in any::<f64>(), b in any::<f64>()) {
            if a.is_finite() && b.is_finite() {
                prop_assert_eq!(Some(compare(&format!("{a:e}"), &format!("{b}"))), a.partial_cmp(&b));
            }
        }

        #[test]
        fn any_text_is_a_number_or_none(text in "[-+.eE0-9]{0,12}") {
            let as_float = text.parse::<f64>().is_ok();
            prop_assert_eq!(Number::parse(&text).is_some(), as_float, "{}", text);
        }
    }
}
