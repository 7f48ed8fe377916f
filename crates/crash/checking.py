"""What the checkers of crash runs have in common: how histories and databases are read, and how a verdict is told. Standard library and
the databases' own command line clients only: nothing of Baton is used."""

import argparse
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

SHOWN_MAX = 20


def read_arguments():
    """Command line."""
    parser = argparse.ArgumentParser(description="verdict over a crash run")
    parser.add_argument("--history", required=True)
    parser.add_argument("--database", required=True)
    return parser.parse_args()


def rows_of(database, query):
    """The rows of a query, as texts."""
    kind, _, where = database.partition(":")
    if kind == "sqlite":
        connection = sqlite3.connect(f"file:{where}?mode=ro", uri=True)
        try:
            return [tuple(str(value) for value in row) for row in connection.execute(query)]
        finally:
            connection.close()
    if kind == "postgres":
        command = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t", "--set=ON_ERROR_STOP=1", "--command", query, where]
    elif kind == "mariadb":
        command = ["mariadb", "--no-defaults", "-uroot", "-h127.0.0.1", "-P", where, "--batch", "--skip-column-names", "-e", query, "test"]
    else:
        sys.exit(f"checking: no database of the kind {kind!r}")
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"checking: {command[0]}: {ran.stderr}")
    return [tuple(line.split("\t")) for line in ran.stdout.splitlines() if line]


def lines_of(folder):
    """All objects of all history files. The last line of a process that was killed may be torn: it was not written."""
    for path in sorted(Path(folder).glob("*.jsonl")):
        for line in path.read_text().split("\n")[:-1]:
            yield json.loads(line)


def listed(counts):
    """Counts in words."""
    return ", ".join(f"{what}: {count}" for what, count in sorted(counts.items()))


def judged(rules, run):
    """Prints what breaks each rule; true when nothing does."""
    clean = True
    for rule in rules:
        violations = list(rule(run))
        print(f"{rule.__name__}: {len(violations)}")
        for violation in violations[:SHOWN_MAX]:
            print(f"  {violation}")
        clean = clean and not violations
    return clean
