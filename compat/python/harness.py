"""Runs the cases of one client suite against one server and prints `PASS name seconds` or `FAIL name: reason`.

A case is a function that takes the server; it fails by raising. A case that is a generator is prepared up to its
`yield`, then the broker is killed and started again (once for all such cases), then the rest of it runs.
"""

import argparse
import concurrent.futures
import contextlib
import inspect
import subprocess
import sys
import threading
import time
import traceback
import uuid

PARALLEL_CASES = 6
RESTART_SECONDS_MAX = 60

_cases = []


def case(function):
    """Registers a case under its name."""
    _cases.append(function)
    return function


class Server:
    """The server under test, as a case sees it."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = None  # made by the first case that needs it; lives as long as the server

    def unique(self, stem):
        """A name that no other case uses."""
        return f"{stem}-{uuid.uuid4().hex[:8]}"


def check(condition, message):
    """Fails the case when the condition does not hold."""
    if not condition:
        raise AssertionError(message)


def equal(actual, expected, what):
    """Fails the case when the two differ, and says both."""
    if actual != expected:
        raise AssertionError(f"{what}: expected {_short(expected)}, got {_short(actual)}")


def _short(value, characters_max=300):
    text = repr(value)
    return text if len(text) <= characters_max else f"{text[:characters_max]}... ({len(text)} characters)"


def wait_until(condition, seconds, what):
    """Waits for the condition; its first true value is returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)


_print_lock = threading.Lock()


def _report(line):
    with _print_lock:
        print(line, flush=True)


def _first_line(error):
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error) or type(error).__name__
    if not isinstance(error, AssertionError):
        text = f"{type(error).__name__}: {text}"
    return f"{' '.join(text.split())} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"


def _run_phase(jobs):
    """Runs (name, callable) pairs side by side; yields each name with its seconds and its error or None."""

    def timed(job):
        started = time.monotonic()
        try:
            job()
            error = None
        except Exception as caught:  # whatever a client raises is a failure of its case
            error = caught
        return time.monotonic() - started, error

    with concurrent.futures.ThreadPoolExecutor(PARALLEL_CASES) as pool:
        running = {pool.submit(timed, job): name for name, job in jobs}
        for done in concurrent.futures.as_completed(running):
            seconds, error = done.result()
            yield running[done], seconds, error


def _run_restart_cases(functions, server, hook):
    generators, seconds_before, failed = {f.__name__: f(server) for f in functions}, {}, set()
    for name, seconds, error in _run_phase([(n, g.__next__) for n, g in generators.items()]):
        seconds_before[name] = seconds
        if error is not None:
            failed.add(name)
            _report(f"FAIL {name}: before the restart: {_first_line(error)}")
    restarted = subprocess.run(hook, shell=True, timeout=RESTART_SECONDS_MAX, stdout=subprocess.DEVNULL, check=False)
    if restarted.returncode != 0:
        for name in generators.keys() - failed:
            _report(f"FAIL {name}: the restart hook ended with {restarted.returncode}")
        return False

    def finish(generator):
        with contextlib.suppress(StopIteration):
            next(generator)
            raise AssertionError("the case yields more than once")

    rest = [(n, lambda g=g: finish(g)) for n, g in generators.items() if n not in failed]
    for name, seconds, error in _run_phase(rest):
        if error is not None:
            failed.add(name)
            _report(f"FAIL {name}: after the restart: {_first_line(error)}")
        else:
            _report(f"PASS {name} {seconds + seconds_before[name]:.1f}")
    return not failed


def main():
    """Runs all cases, or those named; the exit code tells whether all passed."""
    parser = argparse.ArgumentParser(description="client suite; prints PASS and FAIL lines")
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT of the server under test")
    parser.add_argument("--restart-hook", help="shell command: kill -9 the broker, start it again, return when it serves")
    parser.add_argument("--case", action="append", default=[], help="run only this case (repeatable)")
    arguments = parser.parse_args()
    chosen = [c for c in _cases if not arguments.case or c.__name__ in arguments.case]
    unknown = set(arguments.case) - {c.__name__ for c in _cases}
    if unknown or not chosen:
        parser.error(f"no such case: {', '.join(sorted(unknown)) or 'none registered'}")
    server = Server(arguments.bootstrap)
    plain = [c for c in chosen if not inspect.isgeneratorfunction(c)]
    with_restart = [c for c in chosen if inspect.isgeneratorfunction(c)]
    if with_restart and not arguments.restart_hook:
        parser.error("these cases need --restart-hook: " + ", ".join(c.__name__ for c in with_restart))
    passed = True
    for name, seconds, error in _run_phase([(c.__name__, lambda c=c: c(server)) for c in plain]):
        if error is None:
            _report(f"PASS {name} {seconds:.1f}")
        else:
            passed = False
            _report(f"FAIL {name}: {_first_line(error)}")
    if with_restart:
        passed = _run_restart_cases(with_restart, server, arguments.restart_hook) and passed
    sys.exit(0 if passed else 1)
