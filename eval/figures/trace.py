"""What each block attends to, as data and as a picture: `python -m eval.figures.trace method=NAME task=TASK [blocks=N] [--png FILE]`.

Prints one JSON line a block: {"block", "scene", "keys": [[source, position], ...], "queries": [...]} in latent frames, from the
policy's plan alone: no network runs. With several prompts in a task's set, the first one is traced (prompt=ID takes another).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.presets import make_policy, preset, prompt_set
from echo.cache.kinds import Kind
from echo.cache.plan import Plan
from echo.cache.policy import plans, script_of
from echo.files import ROOT
from echo.geometry import Geometry
from echo.scene import Prompt, load_prompts

if TYPE_CHECKING:
    from echo.backbone.load import Backbone

USAGE = "method=NAME task=TASK [blocks=N] [prompt=ID] [method.SETTING=VALUE ...]"


def strip(axis: Any, traced: Sequence[Plan], height: int, bottom: float, ink: str) -> None:
    """Draw plans on an axis: blocks to the right, window slots upwards, coloured by kind of memory; scene borders as lines.

    Args:
        axis: of matplotlib.
        traced: plans of blocks that follow each other.
        height: slots that the strip is high.
        bottom: where the first slot begins.
        ink: colour of the borders.
    """
    from matplotlib.colors import ListedColormap

    kinds = list(Kind)
    grid = [[float("nan")] * len(traced) for _ in range(height)]
    for column, plan in enumerate(traced):
        for slot, kind in enumerate(plan.kinds()):
            grid[slot][column] = kinds.index(kind)
    colours = ListedColormap([kind.colour for kind in kinds])
    axis.imshow(grid, origin="lower", aspect="auto", interpolation="none", cmap=colours, vmin=-0.5, vmax=len(kinds) - 0.5,
                extent=(traced[0].block - 0.5, traced[-1].block + 0.5, bottom, bottom + height))  # fmt: skip
    for before, after in zip(traced[:-1], traced[1:]):
        if before.scene != after.scene:
            axis.axvline(after.block - 0.5, color=ink, linewidth=0.8)


def draw(traced: Sequence[Plan], path: Path, title: str) -> None:
    """A strip of one policy as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    height = max(len(plan.kinds()) for plan in traced)
    figure, axis = pyplot.subplots(figsize=(max(4.0, 0.11 * len(traced) + 2.2), 0.12 * height + 1.3), layout="constrained")
    strip(axis, traced, height, -0.5, "black")
    used = [kind for kind in Kind if any(kind in plan.kinds() for plan in traced)]
    axis.legend(handles=[Patch(color=k.colour, label=k.value) for k in used], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axis.set(xlabel="block (0.75 s)", ylabel="window slot (latent frames)", title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words of the command line. Raises ValueError for another form or key."""
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or (key not in ("method", "task", "blocks", "prompt") and not key.startswith("method.")):
            raise ValueError(f"{word!r}: give {USAGE}")
        options[key] = value
    for key in ("method", "task"):
        if key not in options:
            raise ValueError(f"{key}= is missing: give method=NAME task=TASK")
    return options


def pick_prompt(options: dict[str, Any]) -> Prompt:
    """The task's first prompt, or the one named. Raises ValueError for an unknown id."""
    prompts = load_prompts(ROOT / prompt_set(options["task"]))
    if "prompt" not in options:
        return prompts[0]
    for prompt in prompts:
        if prompt.id == options["prompt"]:
            return prompt
    raise ValueError(f"task {options['task']} has no prompt {options['prompt']!r}; first is {prompts[0].id!r}")


def embed(texts: list[str]) -> list[list[float]]:
    """Features of the shipped backbone's text encoder, for presets that route by one."""
    from echo.backbone.interface import features  # torch, which most traces do without

    return features(shipped_backbone().text, texts)


@cache
def shipped_backbone() -> Backbone:
    """The shipped backbone, loaded once."""
    from echo.backbone.load import BackboneFile, load

    return load(BackboneFile(preset("backbone", "tiny")["weights"]))


def main(argv: list[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.figures.trace", description="Print what each block attends to, one JSON line a block."
    )
    parser.add_argument("words", nargs="+", metavar="key=value", help=USAGE)
    parser.add_argument("--png", type=Path, help="also draw the trace into this file")
    arguments = parser.parse_args(argv)
    # Planning reads frames and slots only; the sizes of the network have no say in it.
    geometry = Geometry(layers=1, heads=1, head_dim=6, grid_height=1, grid_width=1)
    try:
        options = parse_overrides(arguments.words)
        policy, prompt = make_policy(options), pick_prompt(options)
        script = script_of(prompt, policy, embed)
        asked = options.get("blocks", str(script.blocks))
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"blocks={asked}: a whole number, at least 1; nearest is 1")
        blocks = int(asked)
        policy.check(geometry, blocks)
        traced = list(plans(policy, script, geometry, blocks))
        if arguments.png:
            draw(traced, arguments.png, f"{policy.label} on {options['task']}: prompt {prompt.id}")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for plan in traced:
        print(json.dumps(plan.as_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
