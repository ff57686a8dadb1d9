//! Header values that are put together for one answer: on the stack, then copied once, into memory of
//! just their length. A growing buffer would cost a second allocation to be shared.

use http::HeaderValue;

/// ASCII of our own making, `N` bytes at most; what is beyond is cut off.
pub struct HeaderText<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> HeaderText<N> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    /// Adds text.
    pub fn put(&mut self, text: &[u8]) {
        debug_assert!(self.length + text.len() <= N, "{N} bytes are too few");
        let room = &mut self.bytes[self.length..];
        let taken = text.len().min(room.len());
        room[..taken].copy_from_slice(&text[..taken]);
        self.length += taken;
    }

    /// Adds seconds since the epoch as an HTTP date, such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110
    /// §5.6.7): every tile's answer has one, and a formatter for all dates takes five times as long. Up to the
    /// year 9999, which is the last that it can say.
    pub fn put_http_date(&mut self, seconds: u64) {
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // 1970-01-01 was a Thursday.
        let weekday = three("ThuFriSatSunMonTueWed", days % 7);
        let (year, month, day) = civil(days);
        self.put(weekday);
        self.put(b", ");
        self.put(&two_digits(day));
        self.put(b" ");
        self.put(three("JanFebMarAprMayJunJulAugSepOctNovDec", month - 1));
        self.put(b" ");
        self.put(&two_digits(year / 100));
        self.put(&two_digits(year % 100));
        for (part, before) in [
            (second / 3600, b" "),
            (second / 60 % 60, b":"),
            (second % 60, b":"),
        ] {
            self.put(before);
            self.put(&two_digits(part));
        }
        self.put(b" GMT");
    }

    /// Adds a number in decimal.
    pub fn put_number(&mut self, number: impl itoa::Integer) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }

    /// What has been put together.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The header's value, or another where it holds what no header may.
    pub fn value_or(&self, otherwise: &'static str) -> HeaderValue {
        HeaderValue::from_bytes(self.bytes()).unwrap_or(HeaderValue::from_static(otherwise))
    }
}

/// The word at a place in a row of words of three letters.
fn three(words: &'static str, place: u64) -> &'static [u8] {
    let start = usize::try_from(place * 3).unwrap_or(0);
    words.as_bytes().get(start..start + 3).unwrap_or(b"???")
}

fn two_digits(number: u64) -> [u8; 2] {
    let digit = |n: u64| b'0' + u8::try_from(n % 10).unwrap_or(0);
    [digit(number / 10), digit(number)]
}

/// Year, month and day of a day since the epoch, in the proleptic Gregorian calendar. Years begin in March
/// here, so that the leap day is the last; source: Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn dates_are_those_that_httpdate_writes(seconds in 0_u64..253_402_300_800) {
            let mut text = HeaderText::<29>::new();
            text.put_http_date(seconds);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let value = text.value_or("");
            prop_assert_eq!(value.to_str().unwrap(), httpdate::fmt_http_date(time));
        }
    }

    #[test]
    fn text_and_numbers_become_a_value() {
        let mut text = HeaderText::<64>::new();
        text.put(b"private, max-age=");
        text.put_number(3600_u64);
        text.put(b"; ttl=");
        text.put_number(-4_i64);
        assert_eq!(text.value_or("no-store"), "private, max-age=3600; ttl=-4");
    }

    #[test]
    fn what_no_header_may_hold_is_replaced() {
        let mut text = HeaderText::<8>::new();
        text.put(b"a\nb");
        assert_eq!(text.value_or("no-store"), "no-store");
    }
}
