"""Groups of commands: which there are, loaded when they are called, with `--json` before or after a name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

# Where each command lies, and its help. Loading all modules to list them would take a second and a half.
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("serve", "Run the service."),
    "enroll": (
        "voices",
        "Add recordings to a speaker, who is created if new; or enrol many with --from.",
    ),
    "verify": ("voices", "Is this recording of that speaker?"),
    "identify": ("voices", "Who, of the enrolled speakers, is this?"),
    "export": (
        "model",
        "Turn a checkpoint into one .onnx model, proven equal to it, or nearly so with --precision.",
    ),
    "adopt": ("model", "Turn somebody else's ONNX network into one .onnx model, its front-end inside."),
    "inspect": ("model", "Print a model's card; draw its architecture."),
    "embed": ("model", "Write the embeddings of recordings, in the order given."),
    "evaluate": ("evaluation", "Score a list of trials: EER, minDCF and Cllr, with intervals over speakers."),
    "calibrate": (
        "evaluation",
        "Set how a model decides on lists of trials, and write that into its card.",
    ),
    "train": ("train", "Train a network by a recipe, resuming where an earlier run of it stopped."),
    "teach": ("train", "Embed the training recordings with a network to learn from."),
    "backup": (
        "backup",
        "Copy the store to a file, also while the service runs. The master key is not in it.",
    ),
    "restore": (
        "backup",
        "Go back to a backup, also while the service runs. What was erased since stays erased.",
    ),
    "check": (
        "backup",
        "Check the file, every sealed value, the templates, the index and the audit log; 1 if one is wrong.",
    ),
    "doctor": (
        "doctor",
        "Look at hardware, provider, models, store and keys, and say what to mend; 1 if something is broken.",
    ),
    "models": ("models", "List, add, remove and show models; choose the default."),
    "speakers": (
        "speakers",
        "List, show, disclose, unlock, delete, export and import speakers; opt-outs; changes of model.",
    ),
    "keys": ("keys", "Create, list and revoke API keys; rotate the master key."),
    "tenants": ("tenants", "List tenants, choose what is kept, rotate their keys, delete them."),
    "store": ("store", "Copy the store to another database; index large tenants there."),
    "audit": ("audit", "Read and verify the audit log."),
    "bench": ("bench", "Measure, side by side in one run."),
}
GROUPS = ("models", "speakers", "keys", "tenants", "store", "audit", "bench")


class Group(TyperGroup):
    """Commands that take `--json` before their name as well: `sayso --json keys list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._json_after_name(ctx, args))

    def _json_after_name(self, ctx: Any, args: list[str]) -> list[str]:
        place = next((i for i, word in enumerate(args) if not word.startswith("-")), None)
        if place is None or "--json" not in args[:place]:
            return args
        before = [word for word in args[:place] if word != "--json"]
        command = self.get_command(ctx, args[place])
        options = command.params if command is not None else []
        takes_file = any(
            "--json" in option.opts and not getattr(option, "is_flag", False) for option in options
        )
        return [*before, args[place], "--json", *(["-"] if takes_file else []), *args[place + 1 :]]


class LazyGroup(Group):
    """All of `COMMANDS`; the module of each is imported when it is called, not when it is listed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()}
        self._listing = False

    def get_command(self, ctx: Any, name: str) -> Any:
        if self._listing or name not in COMMANDS:
            return super().get_command(ctx, name)
        module = import_module(f"sayso.cli.{COMMANDS[name][0]}")
        loaded = typer.main.get_group(module.app)
        return loaded if name in GROUPS else loaded.get_command(ctx, name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def group(name: str) -> typer.Typer:
    """Make the group of commands of that name, with its help from `COMMANDS`."""
    return typer.Typer(cls=Group, help=COMMANDS[name][1], no_args_is_help=True)
