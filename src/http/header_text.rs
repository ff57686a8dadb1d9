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

    /// Adds a number in decimal.
    pub fn put_number(&mut self, number: impl itoa::Integer) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }

    /// The header's value, or another where it holds what no header may.
    pub fn value_or(&self, otherwise: &'static str) -> HeaderValue {
        HeaderValue::from_bytes(&self.bytes[..self.length])
            .unwrap_or(HeaderValue::from_static(otherwise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
