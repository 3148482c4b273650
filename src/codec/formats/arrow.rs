//! Arrow IPC, stream or file.

use std::io::Cursor;

use ::arrow::datatypes::SchemaRef;
use ::arrow::ipc::reader::StreamReader;

use super::columns::Columns;
use super::{Decoded, Format, FormatError, Limits};
use crate::codec::ipc_check::{Budget, Fault, check};

fn wrong(detail: impl Into<String>) -> FormatError {
    FormatError::parse(Format::Arrow, detail)
}

pub(super) fn decode(document: &[u8], target: &SchemaRef, limits: &Limits) -> Result<Decoded, FormatError> {
    let budget = Budget { rows: limits.rows, bytes: limits.decoded_bytes };
    let stream = check(document, budget).map_err(|fault| match fault {
        Fault::Broken(what) => wrong(what),
        Fault::Rows => FormatError::TooLarge { what: "rows are", limit: limits.rows },
        Fault::Bytes => {
            FormatError::TooLarge { what: "uncompressed bytes of the buffers are", limit: limits.decoded_bytes }
        }
    })?;
    let unread = |_| wrong("its schema cannot be read");
    let schema = StreamReader::try_new(Cursor::new(stream), None).map_err(unread)?.schema();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let mut columns = Columns::new(Format::Arrow, target, limits, names)?;
    let wanted =
        (0..schema.fields().len()).filter(|i| target.column_with_name(schema.field(*i).name()).is_some()).collect();
    for batch in StreamReader::try_new(Cursor::new(stream), Some(wanted)).map_err(unread)? {
        columns.push(&batch.map_err(|_| wrong("a batch does not fit its schema"))?)?;
    }
    columns.finish()
}
