//! HTML and SVG as text, built so that nothing from outside can become markup.

use std::fmt::{Display, Write};

/// Longest text of a record that is shown whole, in characters.
const MAX_SHOWN: usize = 600;

/// What every page looks like: light and dark, on paper too; nothing moves once it is there.
const STYLE: &str = include_str!("page.css");

/// A document under construction. Markup is what stands in the program ([`Markup::raw`] takes `'static` text alone); everything else
/// goes through [`Markup::text`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Markup(String);

impl Markup {
    /// An empty piece.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Markup of the program's own.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// A text, for content and for attribute values in double quotes alike. What cannot be seen or changes the order of what can
    /// (controls, bidirectional overrides, zero widths) is written out as `\u{…}`; what is longer than a person reads is cut, and says so.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        let text = text.to_string();
        for (at, c) in text.chars().enumerate() {
            if at == MAX_SHOWN {
                let _ = write!(self.0, "… ({} characters)", text.chars().count());
                break;
            }
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if is_unseen(c) => self.0.extend(c.escape_unicode()),
                c => self.0.push(c),
            }
        }
        self
    }

    /// A place in a drawing, in hundredths of a unit; what is no number is 0.
    pub fn place(&mut self, value: f64) -> &mut Self {
        let value = if value.is_finite() { value } else { 0.0 };
        // No "-0.00": the sign of a zero tells nothing.
        let rounded = (value * 100.0).round() / 100.0 + 0.0;
        let _ = write!(self.0, "{rounded:.2}");
        self
    }

    /// Another piece.
    pub fn piece(&mut self, piece: &Self) -> &mut Self {
        self.0.push_str(&piece.0);
        self
    }

    /// A heading of the second level.
    pub fn heading(&mut self, text: impl Display) -> &mut Self {
        self.raw("<h2>").text(text).raw("</h2>\n")
    }

    /// A paragraph of text.
    pub fn paragraph(&mut self, text: impl Display) -> &mut Self {
        self.raw("<p>").text(text).raw("</p>\n")
    }

    /// The text so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Characters that a reader does not see, or that change how others are read.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text for a terminal: what cannot be seen, or changes the order of what can, is written out.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unseen(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// A whole page: title, one line under it, content. Its policy lets it load and run nothing.
#[must_use]
pub fn page(title: &str, subtitle: &str, content: &Markup) -> String {
    let mut page = Markup::new();
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
        .raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n")
        .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
        .raw("<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n")
        .raw("<link rel=\"icon\" href=\"data:,\">\n<title>")
        .text(title)
        .raw("</title>\n<style>\n")
        .raw(STYLE)
        .raw("</style>\n</head>\n<body>\n<main>\n<header>\n<h1>")
        .text(title)
        .raw("</h1>\n<p class=\"subtitle\">")
        .text(subtitle)
        .raw("</p>\n</header>\n")
        .piece(content)
        .raw("</main>\n</body>\n</html>\n");
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_never_becomes_markup_and_hides_nothing() {
        let mut markup = Markup::new();
        markup
            .raw("<td title=\"")
            .text("\"><script>alert('x')&</script>")
            .raw("\">")
            .text("a\u{202e}b\0\n")
            .raw("</td>");
        assert_eq!(
            markup.as_str(),
            "<td title=\"&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&amp;&lt;/script&gt;\">a\\u{202e}b\\u{0}\\u{a}</td>"
        );
        let mut long = Markup::new();
        long.text("é".repeat(5_000));
        assert!(long.as_str().len() < 2_000 && long.as_str().ends_with("… (5000 characters)"));
    }

    #[test]
    fn places_are_the_same_text_on_every_machine() {
        let mut markup = Markup::new();
        markup.place(-0.001).raw(" ").place(f64::NAN).raw(" ").place(1.005).raw(" ").place(-2.5);
        assert_eq!(markup.as_str(), "0.00 0.00 1.00 -2.50");
    }

    proptest! {
        #[test]
        fn no_text_brings_a_character_that_means_something_to_a_browser(text in ".{0,80}") {
            let mut markup = Markup::new();
            markup.text(&text);
            prop_assert!(!markup.as_str().contains(['<', '>', '"', '\'']));
            for (at, _) in markup.as_str().match_indices('&') {
                let rest = &markup.as_str()[at..];
                prop_assert!(["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].iter().any(|e| rest.starts_with(e)));
            }
        }
    }
}
