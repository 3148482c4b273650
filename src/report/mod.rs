//! Reports for people: pure functions from what the topics say to one HTML page, or to the same facts as JSON.
//!
//! Everything in a record may have been chosen by somebody hostile, so a page is built by [`markup::Markup`], which takes as markup only
//! what stands in this program's text and escapes all else. A page loads nothing, runs nothing (its content security policy forbids
//! it), and holds no time but those of the records: the same records give the same bytes.

pub mod aggregate;
pub mod compliance;
mod compliance_page;
pub mod contributor;
mod drawing;
pub mod evaluation;
mod evaluation_page;
pub mod flame;
pub mod markup;
pub mod table;

#[cfg(test)]
mod tests {
    /// Holds a page to its golden file. Where the page was changed on purpose, run the test once with `HOKUSAI_BLESS=1` and look at the
    /// difference.
    pub(super) fn assert_golden(name: &str, page: &str) {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/goldens").join(name);
        if std::env::var_os("HOKUSAI_BLESS").is_some() {
            std::fs::write(&file, page).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap();
        assert!(page == golden, "{} is not what it was; HOKUSAI_BLESS=1 writes it anew", file.display());
    }
}
