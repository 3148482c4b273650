//! Raw columns, before any encoding: what tables and requests hold.

/// One column; every kind marks a missing value its own way.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Numbers; NaN is missing.
    Numbers(Vec<f64>),
    /// Texts by position in `values`; `u32::MAX` (or any position past the end) is missing.
    Texts {
        /// Position of each row's text.
        codes: Vec<u32>,
        /// The texts, in any order, each once or more often.
        values: Vec<String>,
    },
    /// Microseconds since 1970-01-01T00:00:00Z; `None` is missing.
    Times(Vec<Option<i64>>),
}

impl Column {
    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(values) => values.len(),
            Self::Texts { codes, .. } => codes.len(),
            Self::Times(values) => values.len(),
        }
    }

    /// No rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A column of texts, each value stored once.
    pub fn texts<'a>(rows: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut positions: std::collections::HashMap<&str, u32> = std::collections::HashMap::new();
        let (mut codes, mut values) = (Vec::new(), Vec::new());
        for text in rows {
            codes.push(text.map_or(u32::MAX, |text| {
                *positions.entry(text).or_insert_with(|| {
                    values.push(text.to_owned());
                    (values.len() - 1) as u32
                })
            }));
        }
        Self::Texts { codes, values }
    }
}

/// Named columns of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    columns: Vec<(String, Column)>,
    rows: usize,
}

impl Frame {
    /// A frame of these columns, or the name of the first whose length differs or whose name comes twice.
    ///
    /// # Errors
    /// The name of the offending column.
    pub fn new(columns: Vec<(String, Column)>) -> Result<Self, String> {
        let rows = columns.first().map_or(0, |(_, column)| column.len());
        for (i, (name, column)) in columns.iter().enumerate() {
            if column.len() != rows || columns[..i].iter().any(|(other, _)| other == name) {
                return Err(name.clone());
            }
        }
        Ok(Self { columns, rows })
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The column of this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(own, _)| own == name).map(|(_, column)| column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_different_lengths_or_the_same_name_are_refused() {
        let column = |n| Column::Numbers(vec![0.0; n]);
        assert_eq!(Frame::new(vec![("a".into(), column(2)), ("b".into(), column(3))]), Err("b".into()));
        assert_eq!(Frame::new(vec![("a".into(), column(2)), ("a".into(), column(2))]), Err("a".into()));
    }
}
