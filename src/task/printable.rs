//! Text from outside, made safe to show.

use luksmith_formats::text::Shown;

/// Text that may come from an image, a file name or an argument, safe to show on a terminal:
/// control characters, among them those of the direction of text
/// ([`is_control`](luksmith_formats::text::is_control)), are escaped in the form of Rust, as `\n`
/// or `\u{9b}`, and the userinfo of a URI, which may hold a password, is replaced by `…`.
#[must_use]
pub fn printable(text: &str) -> String {
    Shown(&without_userinfo(text)).to_string()
}

/// `scheme://…@host/` in place of `scheme://user:password@host/`.
fn without_userinfo(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for rest in parts {
        shown.push_str("://");
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '\'' | '"'))
            .unwrap_or(rest.len());
        match rest.split_at(end).0.rfind('@') {
            Some(at) => {
                shown.push('…');
                shown.push_str(rest.split_at(at).1);
            }
            None => shown.push_str(rest),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let text = "a\n\u{1b}[31m\u{9b}31m\u{202e}b";
        assert_eq!(printable(text), r"a\n\u{1b}[31m\u{9b}31m\u{202e}b");
    }

    #[test]
    fn the_userinfo_of_a_uri_is_not_shown() {
        for (text, shown) in [
            ("nbd://u:hunter2@host:1/x", "nbd://…@host:1/x"),
            (
                "invalid 'a=nbds://u:p@ss@h/,key' there",
                "invalid 'a=nbds://…@h/,key' there",
            ),
            (
                "nbd://host/vm@snapshot nbd+unix:///a?socket=/x@y",
                "nbd://host/vm@snapshot nbd+unix:///a?socket=/x@y",
            ),
            ("a@b and c://d", "a@b and c://d"),
            ("nbd://a:b@c/ nbd://d:e@f/", "nbd://…@c/ nbd://…@f/"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
