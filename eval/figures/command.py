"""The list of figures, and their command line.

Each writes NAME.pdf, NAME.png and NAME.json (numbers, settings, command, commit) to `<store>/figures`, or to another folder. fig3, fig4,
fig10, overview and centres roll out the embedded backbone for a minute or two, and `cache` only plans: they need no store. `centres`
reads statistics of a real backbone, real=FILE.pt. Figures take some of [backbone= task= method= source= prompt= prompts= seed=
scenes= blocks= block= every= every_s= layers= layer= truth= recent= batch= real= ages=]; docs/figures.md has their meanings and
defaults. A setting that a figure does not have is refused.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from echo.files import RESULTS
from echo.refusals import Unfinished, nearest_of
from eval.figures.output import FigureOrder
from eval.figures.recorded.backbones import Loader, embedded

MODULES = {
    "fig3": "recorded.fig3", "fig4": "recorded.fig4", "fig5": "sheets", "fig6": "sheets", "fig7": "sheets", "fig8": "sheets",
    "fig9": "sheets", "fig10": "recorded.fig10", "fig11": "sheets", "cache": "caches", "lambda": "sweeps", "budget": "sweeps",
    "overview": "recorded.overview", "frontier": "frontier", "centres": "recorded.centres", "coherence": "coherence",
}  # fmt: skip
"""Figure -> module of `eval.figures` with KEYS and `make`."""


def keys_of(name: str) -> dict[str, str]:
    """A figure's keys and their defaults."""
    module = importlib.import_module(f"eval.figures.{MODULES[name]}")
    keys: dict[str, str] = dict(module.KEYS)
    return keys | getattr(module, "OWN", {}).get(name, {})


def orders(words: Sequence[str], store: Path = RESULTS, folder: Path | None = None) -> dict[str, FigureOrder]:
    """The order of each figure. Raises ValueError in one line for a setting that none of them has, or without a figure."""
    known = [*MODULES, "all"]
    wanted = [word for word in words if word in known]
    if not wanted:
        other = next((word for word in words if "=" not in word), None)
        raise ValueError(
            f"give a figure: {', '.join(known)}" if other is None else f"{other}: no figure of this name; {nearest_of(other, known)}"
        )
    real = any(word.startswith("real=") for word in words)  # a file that nobody has by default
    names = [name for name in MODULES if real or name != "centres"] if "all" in wanted else list(dict.fromkeys(wanted))
    own = {name: keys_of(name) for name in names}
    said = {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
    forms = [*known, *dict.fromkeys(f"{key}=" for keys in own.values() for key in keys)]
    for word in words:
        if word not in known and word.partition("=")[0] + "=" not in forms:
            raise ValueError(f"{word}: not understood; {nearest_of(word, forms)}")
    orders = {}
    for name in names:
        shown = [name, *(word for word in words if word.partition("=")[0] in own[name])]
        shown += [] if store == RESULTS else ["--store", str(store)]
        values = own[name] | {key: value for key, value in said.items() if key in own[name]} | {"store": str(store)}
        orders[name] = FigureOrder(values, folder or store / "figures", tuple(shown))
    return orders


def make(name: str, order: FigureOrder, load: Loader = embedded) -> list[Path]:
    """Make one figure; returns the files.

    Raises ValueError in one line for an invalid value, or with the command that makes what the store lacks.
    """
    module = importlib.import_module(f"eval.figures.{MODULES[name]}")
    written: list[Path] = module.make(name, order, load)
    return written


def draw(
    words: Sequence[str], store: Path = RESULTS, output: Path | None = None, load: Loader = embedded, more: Sequence[str] = ()
) -> Iterator[str]:
    """Draw figures one after the other; yields a line for each file. A figure that fails does not stop the others.

    Args:
        words: names of figures and their settings.
        store: the run store.
        output: the folder; the store's figures by default.
        load: from a backbone's name to the backbone.
        more: arguments of the loader, which are recorded with the command.

    Raises:
        ValueError: in one line, for an unknown argument, and if no figure can be drawn.
        Unfinished: if some figures cannot be drawn, with a line for each.
    """
    made, failures = False, []
    for name, order in orders(words, store, output).items():
        try:
            for path in make(name, replace(order, words=(*order.words, *more)), load):
                yield f"{path} ({path.stat().st_size // 1000} kB)"
            made = True
        except (ValueError, OSError) as error:
            failures.append(f"{name}: {error}")
    if failures:
        raise (Unfinished if made else ValueError)("\n".join(failures))
