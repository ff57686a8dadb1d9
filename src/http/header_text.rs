//! Header text that is put together for one answer: into the answer's head itself, or on the stack and then copied
//! once, into memory of just its length. A growing buffer would cost a second allocation to be shared.

use http::HeaderValue;

/// What header text is put into: ASCII of our own making.
pub trait Text {
    /// Adds text.
    fn put(&mut self, text: &[u8]);

    /// Adds a number in decimal.
    fn put_number(&mut self, number: impl itoa::Integer) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }
}

impl Text for Vec<u8> {
    fn put(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
    }
}

/// `N` bytes at most; what is beyond is cut off.
#[derive(Debug, Clone, Copy)]
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

    /// What has been put together.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The header's value, or another where it holds what no header may.
    pub fn value_or(&self, otherwise: &'static str) -> HeaderValue {
        HeaderValue::from_bytes(self.bytes()).unwrap_or(HeaderValue::from_static(otherwise))
    }
}

impl<const N: usize> Text for HeaderText<N> {
    fn put(&mut self, text: &[u8]) {
        debug_assert!(self.length + text.len() <= N, "{N} bytes are too few");
        let room = &mut self.bytes[self.length..];
        let taken = text.len().min(room.len());
        room[..taken].copy_from_slice(&text[..taken]);
        self.length += taken;
    }
}

/// The first second that an HTTP date cannot say.
const YEAR_10000: u64 = 253_402_300_800;

/// Seconds since the epoch as an HTTP date, such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7): every tile's
/// answer has one, and a formatter for all dates takes five times as long. None after the year 9999, which is the
/// last that it can say.
pub fn http_date(seconds: u64) -> Option<[u8; 29]> {
    if seconds >= YEAR_10000 {
        return None;
    }
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut put = |place: usize, part: &[u8]| text[place..][..part.len()].copy_from_slice(part);
    // 1970-01-01 was a Thursday.
    put(0, three("ThuFriSatSunMonTueWed", days % 7));
    put(5, &two_digits(day));
    put(8, three("JanFebMarAprMayJunJulAugSepOctNovDec", month - 1));
    put(12, &two_digits(year / 100));
    put(14, &two_digits(year % 100));
    put(17, &two_digits(second / 3600));
    put(20, &two_digits(second / 60 % 60));
    put(23, &two_digits(second % 60));
    Some(text)
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
        fn dates_are_those_that_httpdate_writes(seconds in 0..YEAR_10000) {
            let text = http_date(seconds).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            prop_assert_eq!(std::str::from_utf8(&text).unwrap(), httpdate::fmt_http_date(time));
        }
    }

    #[test]
    fn what_is_after_the_year_9999_is_no_date() {
        assert!(http_date(YEAR_10000).is_none());
        let last = http_date(YEAR_10000 - 1);
        assert_eq!(&last.unwrap(), b"Fri, 31 Dec 9999 23:59:59 GMT");
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
