"""Waiting for a condition, never for a time."""

import time


def wait_until(condition, what, timeout=15.0, interval=0.01):
    """Poll condition() until it is true and return its value.

    A condition that raises OSError or AssertionError is not true yet.
    """
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except (OSError, AssertionError) as error:
            last = error
        if time.monotonic() >= end:
            raise AssertionError(
                f"waited {timeout:g} s for {what}; last: {last!r}")
        time.sleep(interval)
