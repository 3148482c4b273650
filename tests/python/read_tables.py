"""Counts the rows of the Delta tables with readers that are not ours: deltalake, DuckDB and Polars.

    read_tables.py STORE/tables

Prints one line of JSON: table -> rows. Every reader must agree.
"""
import json
import pathlib
import sys

import duckdb
import polars
from deltalake import DeltaTable

counts = {}
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    if not (folder / "_delta_log").is_dir():
        continue
    table = DeltaTable(str(folder))
    arrow = table.to_pyarrow_table()
    files = table.file_uris()
    seen = {
        "deltalake": arrow.num_rows,
        "polars": polars.scan_delta(str(folder)).select(polars.len()).collect().item(),
        # DuckDB's Delta extension is a download of its own; the files of the table's present version are plain Parquet.
        "duckdb": duckdb.execute("select count(*) from read_parquet(?, union_by_name = true)", [files]).fetchone()[0] if files else 0,
    }
    if len(set(seen.values())) != 1:
        sys.exit(f"{folder.name}: the readers disagree: {seen}")
    counts[folder.name] = arrow.num_rows
print(json.dumps(counts))
