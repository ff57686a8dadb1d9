//! What AWS and its SDK say, made fit for a log: causes in one line, foreign text tamed.

use std::error::Error;

/// An error with its causes, in one line. `Display` alone: `Debug` would print whole requests.
pub(crate) fn said(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    printable(&text, 500)
}

/// Foreign text for a log: short, in one line.
pub(crate) fn printable(text: &str, most: usize) -> String {
    text.chars()
        .take(most)
        .flat_map(|c| {
            // Quotes stay as they are; what could break out of the line is escaped.
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// The first error of this type among an error and its causes.
pub(crate) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn foreign_text_stays_in_its_line() {
        assert_eq!(
            printable("it's \"x\"\r\nInjected", 100),
            "it's \"x\"\\r\\nInjected"
        );
        assert_eq!(printable("äöü", 2), "äö");
    }
}
