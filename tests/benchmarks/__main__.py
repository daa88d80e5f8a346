"""`python -m tests.benchmarks NAME` runs one benchmark, without NAME all; every one ends with a JSON line."""

import subprocess
import sys
from pathlib import Path

NAMES = sorted(path.stem.replace("_", "-") for path in Path(__file__).parent.glob("[a-z]*.py"))


def main(arguments: list[str]) -> int:
    """Run the benchmark named first, with the other arguments, or all; the exit code is the first failure's."""
    if arguments and arguments[0] not in NAMES:
        print(f"there is no benchmark {arguments[0]}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    commands = [arguments] if arguments else [[name] for name in NAMES]
    codes = [
        subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{name.replace('-', '_')}", *words]
        ).returncode
        for name, *words in commands
    ]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
