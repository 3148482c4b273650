//! Coarse parts of cells, for columns that a contract wants generalised instead of tokenised.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, StringArray};

use super::birth::BirthDate;

/// A coarse part of a cell. A cell that does not have it becomes null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generalisation {
    /// The first three digits of a postal code.
    Zip3,
    /// The year of a date, as int32.
    BirthYear,
    /// The network of an IP address: /24, or /48 of IPv6.
    Ip24,
}

/// The coarse part of each cell.
pub(super) fn generalise(how: Generalisation, text: &StringArray) -> ArrayRef {
    match how {
        Generalisation::Zip3 => Arc::new(text.iter().map(|cell| zip3(cell?)).collect::<StringArray>()),
        Generalisation::Ip24 => Arc::new(text.iter().map(|cell| network(cell?)).collect::<StringArray>()),
        Generalisation::BirthYear => Arc::new(
            text.iter().map(|cell| BirthDate::parse(cell?.trim())?.year()?.try_into().ok()).collect::<Int32Array>(),
        ),
    }
}

fn zip3(cell: &str) -> Option<String> {
    let digits =
        |range: Range<usize>| cell.trim().get(range).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    digits(0..5).and_then(|_| digits(0..3)).map(str::to_owned)
}

fn network(cell: &str) -> Option<String> {
    Some(match cell.trim().parse().ok()? {
        std::net::IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        std::net::IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    })
}
