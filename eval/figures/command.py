"""The paper's figures: `python -m eval.figures.command NAME... [store=DIR] [KEY=VALUE ...] [--output DIR]`, or `all`.

    python -m eval.figures.command fig3                     # history tokens kept by each scoring rule, against later attention
    python -m eval.figures.command fig4 fig10               # recall frames and fading memory
    python -m eval.figures.command fig5 store=results       # contact sheets, from a store: fig5 to fig9 and fig11
    python -m eval.figures.command cache lambda budget      # cache distributions (C.6), curves over two settings

Each writes NAME.pdf, NAME.png and NAME.json (numbers, settings, command, commit) to `<store>/figures`, or the folder given. fig3, fig4
and fig10 roll out the embedded backbone for a minute or two and `cache` plans alone: they need no store. Figures take, each some of
[backbone= task= method= source= prompt= prompts= seed= scenes= blocks= block= every= every_s= layers= layer= truth= recent= batch=];
what they mean and are by default: docs/figures.md. One that a figure does not have is refused. Other backbones: `jobs.watch.figures`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from echo.refusals import nearest
from eval.arguments import parse
from eval.figures.output import FigureOrder
from eval.figures.recorded.backbones import Loader, embedded

MODULES = {
    "fig3": "recorded.fig3", "fig4": "recorded.fig4", "fig5": "sheets", "fig6": "sheets", "fig7": "sheets", "fig8": "sheets",
    "fig9": "sheets", "fig10": "recorded.fig10", "fig11": "sheets", "cache": "caches", "lambda": "sweeps", "budget": "sweeps",
}  # fmt: skip
"""Figure -> module of `eval.figures` with KEYS and `make`."""
COMMON = {"store": "results", "--output": ""}


def keys_of(name: str) -> dict[str, str]:
    """A figure's keys and their defaults."""
    module = importlib.import_module(f"eval.figures.{MODULES[name]}")
    found: dict[str, str] = dict(module.KEYS)
    return found | getattr(module, "OWN", {}).get(name, {})


def orders(words: Sequence[str]) -> dict[str, FigureOrder]:
    """What is asked of each figure. Raises ValueError in one line for a word that none of them understands, or no figure at all."""
    wanted = [word for word in words if word in (*MODULES, "all")]
    if not wanted:
        other = next((word for word in words if "=" not in word), None)
        told = "" if other is None else f"{other}: no figure of this name; nearest is {nearest(other, [*MODULES, 'all'])} of "
        raise ValueError(f"{told or 'give a figure: '}{', '.join([*MODULES, 'all'])}")
    names = list(MODULES) if "all" in wanted else list(dict.fromkeys(wanted))
    own = {name: keys_of(name) for name in names}
    given, _ = parse(words, dict.fromkeys([key for keys in own.values() for key in keys], "") | COMMON, [*MODULES, "all"])
    said = {word.partition("=")[0] for word in words if "=" in word}
    folder = Path(given["--output"] or Path(given["store"]) / "figures")
    found = {}
    for name in names:
        values = {key: given[key] if key in said else default for key, default in own[name].items()}
        shown = [name, *(word for word in words if word.partition("=")[0] in own[name] or word.startswith("store="))]
        found[name] = FigureOrder(values | {"store": given["store"]}, folder, tuple(shown), "eval.figures.command")
    return found


def make(name: str, order: FigureOrder, load: Loader = embedded) -> list[Path]:
    """Make one figure; the files.

    Raises ValueError in one line: for a value that it cannot take, or naming what a store lacks and the command that makes it.
    """
    module = importlib.import_module(f"eval.figures.{MODULES[name]}")
    found: list[Path] = module.make(name, order, load)
    return found


def main(argv: Sequence[str] | None = None, load: Loader = embedded, module: str = "eval.figures.command", more: Sequence[str] = ()) -> int:
    """Command line; see the module's docstring. Exit status: 2 where anything was refused; the other figures are made.

    load: from a backbone's name to the backbone. module, more: what is noted as the command, and words that the loader has taken.
    """
    failed = False
    try:
        wanted = orders(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for name, order in wanted.items():
        noted = replace(order, words=(*order.words, *more), module=module)
        try:
            for path in make(name, noted, load):
                print(f"{path} ({path.stat().st_size // 1000} kB)")
        except (ValueError, OSError) as error:
            sys.stderr.write(f"{name}: {error}\n")
            failed = True
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
