"""The table of commands: a sentence and the function of each, whose module is imported when the command runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer import TyperException
from typer.core import TyperCommand, TyperGroup
from typer.main import get_install_completion_arguments

from echo.refusals import nearest_of
from jobs.cli.words import command

USUAL = ""
"""Key of a group's default command."""
ABOUT = """Cache policies for long autoregressive video, measured: from a prompt set to a table with intervals.

What is computed is KEY=VALUE, as in run.py; where it goes or how it is shown is a --flag. Each command has a --help of its own. The exit
status is 0, 1 if something failed or is incomplete, 2 for a usage error.

\b
    echo-harness run method=infinity_rope,echo task=recall prompts=2 seed=0 -m
    echo-harness status
    echo-harness tables recall
"""
Table = Mapping[str, "tuple[str, str] | tuple[str, Table]"]
GROUPS: Table = {
    "run": ("Run one experiment or a sweep, with the arguments of `python run.py`.", "jobs.launch.sweep:command"),
    "suite": ("Make all tables of the paper from the embedded world, and draw the sweeps.", "jobs.watch.suite:suite"),
    "live": ("Prompt new scenes while the video runs, in the browser.", "jobs.live.command:live"),
    "plan": ("Forecast what a sweep will take before anything runs.", "jobs.watch.forecast:plan"),
    "status": ("Show which videos of a store are done, running, failed or missing.", "jobs.watch.status:status"),
    "verify": ("Check that a store, or submissions of labs, still hold what was written to them.", "jobs.watch.verify:verify"),
    "export": ("Pack a store into one file that another lab can verify, merge and show.", "jobs.watch.export:export"),
    "merge": ("Merge submissions of labs into a store; units that disagree are left out.", "jobs.watch.merge:merge"),
    "trace": ("Print what each block attends to, one JSON line per block.", "eval.figures.trace:trace"),
    "replay": ("Replay a recorded case and compare.", "eval.audit.replay:replay_case"),
    "tables": ("Make tables: of a store, of ratings by people, of measured speeds.", {
        USUAL: ("Make the tables of a store.", "eval.tables.command:tables"),
        "speed": ("Write measured speeds beside published ones.", "eval.tables.speed:table"),
    }),
    "figures": ("Draw the paper's figures, contact sheets, drift and sweeps.", {
        USUAL: ("Draw the paper's figures.", "jobs.watch.figures:figures"),
        "sheet": ("Draw contact sheets of a store.", "eval.figures.sheets:sheets"),
        "drift": ("Draw how policies drift, block by block.", "eval.figures.drift:drift"),
        "sweep": ("Draw scores against one setting of Echo.", "eval.figures.sweeps:sweep"),
    }),
    "report": ("Write a store as one folder that opens from disk.", "eval.report.build:report"),
    "study": ("Run a user study: a rating page from a store, and ratings from its answers.", {
        "build": ("Write a rating page from a store.", "eval.study.command:build"),
        "collect": ("Read the answers of raters and write the ratings that count.", "eval.study.command:collect"),
    }),
    "claims": ("Compare a store's orderings of methods with the paper's.", {
        "ordering": ("Say where a store orders methods as the paper does.", "eval.claims.ordering:ordering"),
        "variants": ("Say what changes if a method is swapped for a variant.", "eval.claims.ordering:swapped"),
    }),
    "score": ("Score any folder of videos by VBench's formulas.", "eval.vbench.folder:score"),
    "bench": ("Measure speed and memory on this device.", {
        USUAL: ("Measure speed and memory of cache policies on a Wan2.1 backbone.", "jobs.bench.command:bench"),
        "card": ("Measure everything on a GPU in twelve minutes.", "jobs.bench.card:card"),
        "block": ("Measure a single block at full size.", "jobs.bench.command:block"),
        "parity": ("Compare latents of bf16 with fp32, and compiled with eager.", "jobs.bench.command:compare"),
        "overhead": ("Measure what each policy costs besides attention.", "jobs.bench.overhead:overhead"),
    }),
    "data": ("Download weights, import and make prompt sets.", {
        "download": ("Download weights and prompts, with checks and resume.", "data.download:download"),
        "import": ("Make a prompt set from a prompt file.", "data.importers:import_prompts"),
        "shots": ("Make a prompt set with a language model.", "data.build_shots:shots"),
        "stories": ("Assemble and check the prompt sets of the real backbones.", "data.stories:stories"),
        "prompts": ("Write the prompt sets of the embedded world.", "data.build_prompts:prompts"),
    }),
    "train": ("Train the embedded world's networks.", {
        "backbone": ("Train the tiny backbone on the embedded world.", "jobs.train.backbone:backbone"),
        "scorer": ("Train the embedded scorer's encoder.", "jobs.train.scorer:scorer"),
        "self-rollout": ("Train a backbone on its own few-step rollouts.", "jobs.train.self_rollout:self_rollout"),
        "heads": ("Label a network's heads by their attention, for method=forcing_kv.", "jobs.train.heads:heads"),
    }),
    "audit": ("Validate this project's own instruments.", {
        "targets": ("Measure how often the backbone follows a held-out prompt.", "eval.audit.targets:targets"),
        "routers": ("Count what each router gets right on the prompt sets.", "jobs.bench.routers:routers"),
        "validate": ("Measure what the embedded scorer reads correctly in corrupted videos.", "eval.audit.validate:validate"),
        "memory": ("Measure how the memory scores of real video follow the embedded world's truth.", "eval.audit.memory:memory"),
    }),
}  # fmt: skip


class Later(TyperCommand):
    """A command whose module is imported when it runs."""

    def __init__(self, name: str, sentence: str, target: str) -> None:
        super().__init__(name, help=sentence, rich_markup_mode=None)
        self.target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command."""
        return command(str(self.name), self.target).make_context(info_name, args, parent, **extra)


class Kinds(TyperGroup):
    """Commands by name; a default command takes all arguments that name no other command, `--help` included."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Like typer, with the default command's name inserted if it is left out."""
        if USUAL in self.commands and (not args or args[0] not in self.commands):
            args = [USUAL, *args]
        if not args and not ctx.resilient_parsing:
            raise ValueError(f"{ctx.command_path}: give one of {', '.join(self.commands)}; --help says what they do")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Like typer. Raises ValueError in one line for an unknown command."""
        if args[0] not in self.commands:
            raise ValueError(f"{' '.join(ctx.command_path.split())} {args[0]}: no such command; {nearest_of(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """A line for each command, with its whole sentence."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in self.commands.items()])


def group(name: str, table: Table, sentence: str = "") -> Kinds:
    """The commands of a table, and of the tables in it."""
    commands: dict[str, Any] = {}
    for key, (about, entry) in table.items():
        full = f"{name} {key}".strip()
        commands[key] = Later(full, about, entry) if isinstance(entry, str) else group(full, entry, about)
    made = Kinds(name=name, commands=commands, help=sentence or ABOUT, rich_markup_mode=None)
    if not name:
        made.params += get_install_completion_arguments()
    return made


def carried_out(words: list[str], program: str, complete: str) -> int | None:
    """Run a command line; returns its exit status. `complete`: the variable by which shells ask for completions.

    Raises ValueError in one line for words that typer does not understand.
    """
    try:
        return group("", GROUPS).main(words, program, complete, standalone_mode=False)
    except TyperException as error:
        raise ValueError(error.format_message()) from error
