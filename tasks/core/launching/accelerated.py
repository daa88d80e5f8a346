"""The inside of a stage's own process that torchrun has started, where an accelerate configuration file is followed.

accelerate's launcher starts processes on its own machine: of several it has to be run on each, with that machine's
rank. torchrun's rendezvous gives the ranks by itself: so torchrun starts them, and what accelerate's launcher would
tell a process by its environment, the process takes from the file.

Run as `python -m tasks.core.launching.accelerated JOB FILE` by torchrun.
"""

import os
import sys
from pathlib import Path

from tasks.core.launching.child import run_and_exit


def environment(config_file: str, processes: int) -> dict[str, str]:
    """This process's environment as accelerate's launcher would have made it, by its own functions.

    `processes` are those on all machines. Raises ValueError, as that does, for a file that contradicts itself.
    """
    from accelerate.commands.launch import (  # type: ignore[import-untyped]
        _validate_launch_command,
        launch_command_parser,
    )
    from accelerate.utils.launch import prepare_multi_gpu_env  # type: ignore[import-untyped]

    size = [f"--num_processes={processes}", "--num_machines=1", "--main_process_port=0"]
    arguments = launch_command_parser().parse_args([f"--config_file={config_file}", *size, "none.py"])
    found: dict[str, str] = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    return found


if __name__ == "__main__":
    os.environ |= environment(sys.argv[2], int(os.environ["WORLD_SIZE"]))
    run_and_exit(Path(sys.argv[1]))
