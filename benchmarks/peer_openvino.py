"""A checkpoint as OpenVINO GenAI loads it, in int4: `python peer_openvino.py CHECKPOINT FOLDER`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from optimum.commands.optimum_cli import main as optimum

OPTIONS = ("--weight-format", "int4", "--group-size", "32", "--sym", "--ratio", "1.0")
PIXELS = "preprocessor_config.json"


def main(source: Path, target: Path) -> None:
    sees = (source / PIXELS).is_file()
    task = "image-text-to-text" if sees else "text-generation-with-past"
    command = ["export", "openvino", "--model", str(source), "--task", task, *OPTIONS, str(target)]
    sys.argv = ["optimum-cli", *command]
    optimum()
    if sees:
        shutil.copy(source / PIXELS, target / PIXELS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
