"""Train the reference model from nothing: `python -m models.training.train OUT`.

Every stage writes OUT/<stage>.pt now and then and goes on from there when it is started again; its
log is OUT/<stage>.jsonl. The data of a step depend on seed, stage and step alone, not on the number
of processes. After the last stage the model lies in OUT/model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from collections import defaultdict
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from models.training import checkpoints
from models.training.architecture import LAYERS, config, create
from models.training.batches import TYPES, make_batch
from models.training.checkpoints import TrainingError
from models.training.losses import (
    Aids,
    Tensors,
    answers,
    bridge,
    projected,
    sight,
    to_tensors,
    visual_tokens,
)
from models.training.release import release
from models.training.stages import RELEASED, STAGES, Stage
from models.training.subjects import SEVERAL
from models.training.vocabulary import WORDS

SAVE_SECONDS = 240
LOG_STEPS = 50
GROUNDING = 0.3
WARMUP = 100
BETAS, DECAY, CLIP = (0.9, 0.98), 0.03, 1.0


def settings(stage: Stage, seed: int) -> dict[str, Any]:
    """What a checkpoint depends on; one training must not go on with another's."""
    return {
        "seed": seed,
        "stage": _described(stage),
        "vocabulary": hashlib.sha256(" ".join(WORDS).encode()).hexdigest()[:16],
        "model": hashlib.sha256(config().to_json_string().encode()).hexdigest()[:16],
    }


def _described(value: Any) -> dict[str, Any]:
    """Fields that differ from their defaults, so that a new option leaves old checkpoints valid."""
    found: dict[str, Any] = {}
    for field in fields(value):
        own = getattr(value, field.name)
        usual = field.default
        if field.default_factory is not MISSING:
            usual = field.default_factory()
        if own != usual:
            found[field.name] = _described(own) if is_dataclass(own) else own
    return found


class Trainer:
    """One stage in one process."""

    def __init__(self, out: Path, stage: Stage, seed: int, rank: int, world: int, device: str):
        self.out, self.stage, self.seed = out, stage, seed
        self.rank, self.world = rank, world
        self.device = torch.device(device)
        self.model = create(seed)
        self.aids = Aids()
        self.aids.tie(self.model.model.language_model.embed_tokens.weight)
        self.step, self.seconds = 0, 0.0
        self._start_from_earlier_stages()
        self.model.to(self.device)
        self.aids.to(self.device)
        self.weights = self._trained()
        groups = [
            {"params": [w for w in self.weights if w.ndim >= 2], "weight_decay": DECAY},
            {"params": [w for w in self.weights if w.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=stage.rate, betas=BETAS, fused=True)
        self._resume()
        self.tally: dict[str, list[float]] = defaultdict(list)

    @property
    def path(self) -> Path:
        return self.out / f"{self.stage.name}.pt"

    def _start_from_earlier_stages(self) -> None:
        for place, name in enumerate(self.stage.after):
            earlier = next(stage for stage in STAGES if stage.name == name)
            path = self.out / f"{name}.pt"
            state = checkpoints.load(path, settings(earlier, self.seed))
            if state["step"] < earlier.steps:
                raise TrainingError(f"{path} is at step {state['step']} of {earlier.steps}")
            if place == 0:
                self.model.load_state_dict(state["model"])
                self.aids.load_state_dict(state["aids"])
                continue
            tower = {k: v for k, v in state["model"].items() if "vision_tower" in k}
            self.model.load_state_dict(tower, strict=False)
            heads = {k: v for k, v in state["aids"].items() if not k.startswith("oracle")}
            self.aids.load_state_dict(heads, strict=False)

    def _trained(self) -> list[torch.nn.Parameter]:
        model = self.model
        parts: dict[str, list[torch.nn.Module]] = {
            "words": [model.model.language_model, model.lm_head, self.aids.oracle],
            "sight": [
                model.model.vision_tower,
                self.aids.patch,
                self.aids.deep,
                self.aids.cls,
            ],
            "bridge": [model.model.multi_modal_projector],
            "all": [model, self.aids.patch, self.aids.deep, self.aids.cls],
        }
        for weight in [*model.parameters(), *self.aids.parameters()]:
            weight.requires_grad_(False)
        found = [w for part in parts[self.stage.learns] for w in part.parameters()]
        for weight in found:
            weight.requires_grad_(True)
        return found

    def _resume(self) -> None:
        if not self.path.exists():
            return
        state = checkpoints.load(self.path, settings(self.stage, self.seed))
        self.model.load_state_dict(state["model"])
        self.aids.load_state_dict(state["aids"])
        if state["optimizer"]:  # not in one that was made small
            self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def run(self) -> None:
        parent = multiprocessing.parent_process()
        saved = begun = time.monotonic()
        earlier = self.seconds
        while self.step < self.stage.steps:
            if parent is not None and not parent.is_alive():
                raise TrainingError("the process that started this one is gone")
            self.advance()
            self.seconds = earlier + time.monotonic() - begun
            if self.rank == 0:
                if self.step % LOG_STEPS == 0:
                    self._log()
                if time.monotonic() - saved > SAVE_SECONDS:
                    saved = time.monotonic()
                    self.save()
        if self.rank == 0:
            self.save()

    def _rate(self) -> float:
        if self.step < WARMUP:
            return self.stage.rate * (self.step + 1) / WARMUP
        part = (self.step - WARMUP) / max(1, self.stage.steps - WARMUP)
        return self.stage.rate * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * part)))

    def advance(self) -> None:
        """One step."""
        place = [stage.name for stage in STAGES].index(self.stage.name)
        seed = self.seed + 1000 * place
        batch = make_batch(self.stage.diet, seed, self.step, self.rank, self.world)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        loss = self._loss(to_tensors(batch, self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        flat = torch.cat(
            [(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in self.weights]
        )
        if self.world > 1:
            dist.all_reduce(flat)
            flat /= self.world
        norm = float(flat.norm())
        flat *= min(1.0, CLIP / (norm + 1e-6))
        start = 0
        for weight in self.weights:
            weight.grad = flat[start : start + weight.numel()].view_as(weight)
            start += weight.numel()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.tally["norm"].append(norm)
        self.step += 1

    def _loss(self, data: Tensors) -> torch.Tensor:
        learns = self.stage.learns
        if learns == "words" or data.pixels is None:
            return self._answer_loss(self.aids.oracle(data.hot), data)
        if learns == "sight":
            _, loss, shares = sight(self.model, self.aids, data)
            self._note_sight(loss, shares)
            return loss
        if learns == "bridge":
            loss = bridge(visual_tokens(self.model, data.pixels), self.aids, data)
            self.tally["bridge"].append(float(loss.detach()))
            return loss
        features, seen, shares = sight(self.model, self.aids, data)
        self._note_sight(seen, shares)
        tokens = projected(self.model, features)
        apart = bridge(tokens, self.aids, data)
        self.tally["bridge"].append(float(apart.detach()))
        return self._answer_loss(tokens, data) + 0.4 * seen + 0.2 * apart

    def _note_sight(self, loss: torch.Tensor, shares: dict[str, float]) -> None:
        self.tally["sight"].append(float(loss.detach()))
        for name, share in shares.items():
            self.tally[f"patch {name}"].append(share)

    def _answer_loss(self, tokens: torch.Tensor, data: Tensors) -> torch.Tensor:
        rng = np.random.RandomState([9, self.seed, self.step])
        hide = LAYERS
        if rng.random_sample() < self.stage.hide_late:
            hide = LAYERS * 2 // 3 + int(rng.randint(3))
        loss, astray, verdicts = answers(self.model, tokens, data, self.stage.whole, hide)
        self.tally["loss"].append(float(loss.detach()))
        self.tally["astray" if len(data.visual) else "astray in text"].append(
            float(astray.detach())
        )
        for kind, right in verdicts:
            self.tally[TYPES[kind]].append(right)
        return loss + GROUNDING * astray

    def _log(self) -> None:
        line: dict[str, Any] = {"stage": self.stage.name, "step": self.step}
        line["minutes"] = round(self.seconds / 60, 1)
        line |= {name: round(float(np.mean(values)), 3) for name, values in self.tally.items()}
        self.tally.clear()
        with open(self.out / f"{self.stage.name}.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        checkpoints.save(
            self.path,
            {
                "settings": settings(self.stage, self.seed),
                "model": self.model.state_dict(),
                "aids": self.aids.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
            },
        )


def _work(
    out: Path, stage: Stage, seed: int, rank: int, world: int, device: str, port: int
) -> None:
    if device == "cpu":
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        Trainer(out, stage, seed, rank, world, device).run()
    except TrainingError as error:
        sys.exit(f"error: {error}")


def _run_together(jobs: list[tuple[Path, Stage, int, int, int, str, int]]) -> None:
    """Run one process a job; the first that fails, or an interruption, ends them all."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_work, args=job) for job in jobs]
    # Ctrl-C reaches every process of the terminal; this one alone answers it.
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    for process in running:
        process.start()
    signal.signal(signal.SIGINT, answer)
    try:
        while any(process.is_alive() for process in running):
            if any(process.exitcode for process in running):
                break
            time.sleep(0.2)
    finally:
        for process in running:
            process.kill()
    if any(process.exitcode for process in running):
        sys.exit(1)


def run(out: Path, only: list[str], seed: int, processes: int, device: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chosen = [stage for stage in STAGES if stage.name in only]
    for stage in chosen:
        if SEVERAL in stage.diet.kinds and processes > stage.diet.groups:
            raise TrainingError(
                f"processes is {processes}; accepted: up to {stage.diet.groups}, the sequences of "
                f"a step of {stage.name} that shows several pictures"
            )
    _run_together([(out, stage, seed, 0, 1, device, 0) for stage in chosen if stage.alone])
    port = 29500 + os.getpid() % 1000
    for stage in chosen:
        if not stage.alone:
            _run_together(
                [(out, stage, seed, rank, processes, device, port) for rank in range(processes)]
            )


def main() -> None:
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stage", action="append", choices=names, help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    try:
        run(given.out, given.stage or names, given.seed, given.processes, given.device)
        if STAGES[-1].name in (given.stage or names):
            release(averaged(given.out, given.seed), given.out / "model")
    except TrainingError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def averaged(out: Path, seed: int) -> dict[str, torch.Tensor]:
    """The weights that are released: the mean of those of RELEASED's stages."""
    mean: dict[str, torch.Tensor] = {}
    for name, share in RELEASED.items():
        stage = next(stage for stage in STAGES if stage.name == name)
        state = checkpoints.load(out / f"{name}.pt", settings(stage, seed))
        for key, value in state["model"].items():
            mean[key] = mean.get(key, 0.0) + share * value.float()
    return mean


if __name__ == "__main__":
    main()
