#!/usr/bin/python3
"""The scenarios the gRPC half was made for, played with real processes.

    python3 tests/e2e/grpc/scenarios.py NAME|all [--seconds 20] [--direct]

grpcio calls real servers 600 times a second through redial, or itself with
round_robin and a retry policy with --direct, while a server is hurt. Prints
what was seen; the exit code is 0 when nothing went wrong.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, HERE)

import backends  # noqa: E402
import plays  # noqa: E402
from servers import Redial  # noqa: E402

SIZES = {"K": 10, "M": 20, "G": 30}


def size(text):
    return int(float(text[:-1]) * (1 << SIZES[text[-1]])) \
        if text[-1] in SIZES else int(text)


def run(name, options):
    folder = tempfile.mkdtemp(prefix="redial-grpc-")
    proxies = []

    def make_proxy(targets, sets):
        proxies.append(Redial(
            os.path.join(folder, "redial"), "grpc://" + ",".join(targets),
            sets=[*sets, *options.set]).start())
        return proxies[-1]
    try:
        result = plays.play(name, folder,
                            None if options.direct else make_proxy,
                            options.seconds, options.rate, options.size,
                            options.server)
        for proxy in proxies:
            result.bad += proxy.finish()
        print(f"{'scenario':28}{name} "
              f"{'directly' if options.direct else 'through redial'}: "
              f"{plays.SCENARIOS[name][0]}")
        if not options.direct:
            sets = plays.SCENARIOS[name][2] + options.set
            print(f"{'settings':28}" + " ".join(
                word.split(".", 1)[1] for word in sets))
        for label, shown in result.rows:
            print(f"{label:28}{shown}")
        result.bad += result.late
        for line in result.bad:
            print(f"  ! {line}")
        print(f"{'verdict':28}{'FAILED' if result.bad else 'passed'}\n")
        return 1 if result.bad else 0
    finally:
        for proxy in proxies:
            if proxy.running():
                proxy.kill9()
        if options.keep:
            print(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    names = "\n".join(f"{name:18}{words}" for name, (words, _, _)
                      in plays.SCENARIOS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=names,
        formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenario", metavar="NAME",
                        choices=[*plays.SCENARIOS, "all"])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=600)
    parser.add_argument("--size", type=size, default=size("10G"),
                        help="of the stream: 10G")
    parser.add_argument("--set", action="append", default=[],
                        help="a setting of redial, such as upstream.lb=...")
    parser.add_argument("--server", default="python",
                        choices=list(backends.SERVERS))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--direct", action="store_true",
                       help="without redial, for comparison")
    which.add_argument("--redial", action="store_true",
                       help="through redial (the default)")
    parser.add_argument("--keep", action="store_true",
                        help="keep the folder with the logs")
    options = parser.parse_args()
    chosen = list(plays.SCENARIOS) if options.scenario == "all" \
        else [options.scenario]
    return max([run(name, options) for name in chosen])


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"took {time.monotonic() - began:.1f} s")
    sys.exit(code)
