//! Tables of a page.

use super::markup::Markup;

/// What stands in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// Ids and digests: a fixed width of character.
    Code(String),
    /// A number with its unit in the heading.
    Number(String),
    /// A time.
    Time(String),
    /// Whether something is as it should be: told in words, and in colour.
    Verdict(bool, &'static str),
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// An id or digest.
    pub fn code(text: impl Into<String>) -> Self {
        Self::Code(text.into())
    }

    /// A number.
    pub fn number(number: impl std::fmt::Display) -> Self {
        Self::Number(number.to_string())
    }

    fn write(&self, out: &mut Markup) {
        match self {
            Self::Text(text) => out.raw("<td><bdi>").text(text).raw("</bdi></td>"),
            Self::Code(text) => out.raw("<td class=\"code\"><bdi>").text(text).raw("</bdi></td>"),
            Self::Number(text) => out.raw("<td class=\"number\">").text(text).raw("</td>"),
            Self::Time(text) => out.raw("<td class=\"time\">").text(text).raw("</td>"),
            Self::Verdict(true, word) => out.raw("<td class=\"good\">").text(word).raw("</td>"),
            Self::Verdict(false, word) => out.raw("<td class=\"bad\">").text(word).raw("</td>"),
        };
    }
}

/// Writes a table: what it shows, its headings (those of numbers begin with `#`), its rows. Without rows it says `none`.
pub fn table(
    out: &mut Markup,
    caption: &str,
    headings: &[&'static str],
    rows: impl IntoIterator<Item = Vec<Cell>>,
    none: &str,
) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        out.paragraph(none);
        return;
    }
    out.raw("<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"")
        .text(caption)
        .raw("\">\n<table>\n<caption>");
    out.text(caption).raw("</caption>\n<thead><tr>");
    for heading in headings {
        match heading.strip_prefix('#') {
            Some(number) => out.raw("<th scope=\"col\" class=\"number\">").text(number).raw("</th>"),
            None => out.raw("<th scope=\"col\">").text(heading).raw("</th>"),
        };
    }
    out.raw("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.raw("<tr>");
        row.iter().for_each(|cell| cell.write(out));
        out.raw("</tr>\n");
    }
    out.raw("</tbody>\n</table>\n</div>\n");
}
