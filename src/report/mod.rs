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
