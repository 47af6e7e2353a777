"""Time to import, to --help, and from load to the first token of an eight-token prompt.

    python benchmarks/startup.py BUNDLE

Each in a fresh process; the bundle has been opened before, so its hashes are stamped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from measuring import interleaved, record, spread

FIRST_TOKEN = """
import sys, tightrope
model = tightrope.load(sys.argv[1])
model.generate([5, 7, 8, 9, 10, 21, 25, 6], max_tokens=1, ignore_eos=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()

    def run(*command: str) -> None:
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)

    times = interleaved(
        {
            "python itself": lambda: run("-c", "pass"),
            "import tightrope": lambda: run("-c", "import tightrope"),
            "tightrope --help": lambda: run("-m", "tightrope", "--help"),
            "load and first token": lambda: run("-c", FIRST_TOKEN, arguments.bundle),
        },
        arguments.repetitions,
    )
    record("startup", {"unit": "ms", **{name: spread(value) for name, value in times.items()}})


if __name__ == "__main__":
    main()
