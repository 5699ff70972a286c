"""What `--help` prints: examples, and every option by section, from the schema's own table."""

import dataclasses
import importlib.resources
import shutil
import textwrap

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from bpc_cli.cli.commands import Command
from bpc_cli.options.declare import options_by_section
from bpc_cli.options.names import GROUPS, LAUNCHERS, SECTIONS

_WIDEST, _NARROWEST = 100, 40  # longer lines are hard to read, shorter ones hold no option's name
_COLUMN = 30  # where explanations begin, unless the terminal is narrow

_SWEEP = (
    ("-m NAME=A,B,C", "run once for each value, or combination of values"),
    ("hydra/launcher=NAME", f"what runs the jobs: {', '.join(LAUNCHERS)} (default: basic)"),
    ("hydra/sweeper=optuna", "search instead, in NAME=interval(A,B) and lists (bpc-train)"),
    ("hydra.sweep.dir=DIR", "the sweep's directory; given again, it runs what is unfinished"),
)
_FLAGS = (
    ("--cfg job", "print the composed config and stop"),
    ("--version", "print the version and stop"),
    ("--where", "list where compiled programs and data sets are kept, and their sizes"),
    ("--clear-cache", "remove compiled programs and packed copies of data sets"),
    ("-sc install=bash", 'tab completion: eval "$({command} -sc install=bash)"'),
    ("--hydra-help", "the other flags, which are Hydra's"),
)


def explain(command: Command) -> str:
    """Explain a command: examples, then every option with its unit and default, by section."""
    with hydra.initialize_config_module("bpc_cli.configs", version_base="1.3"):
        composed = hydra.compose(command.config_name, return_hydra_config=True)
    page = _Page()
    page.paragraph(command.about)
    page.heading("Examples")
    for line, about in command.examples:
        page.example(line, about)
    for section, options in options_by_section(command.schema).items():
        page.heading(SECTIONS[section])
        for group in GROUPS:
            is_here = section == (group if group in SECTIONS else "run")
            if is_here and group in composed.hydra.runtime.choices:
                page.entry(f"{group}=NAME", f"settings by name: {', '.join(choices_of(group))}")
        for path, field in options:
            page.entry(path, _explained(composed, path, field))
            if chosen := field.metadata["choices"]:
                page.entry("", f"one of: {', '.join(chosen)}")
        if section == "run":
            page.entry("hydra.run.dir=DIR", "the run's directory; given again, it resumes the run")
    page.heading("Sweep")
    for name, text in _SWEEP:
        page.entry(name, text)
    page.heading("Flags")
    if command.dry_run is not None:
        page.entry("--dry-run", "print what would be run, with its costs, and do nothing")
    for name, text in _FLAGS:
        page.entry(name, text.format(command=command.name))
    return "\n".join(page.lines)


def choices_of(group: str) -> list[str]:
    """List a config group's names."""
    folder = importlib.resources.files("bpc_cli.configs").joinpath(group)
    files = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    stored = ConfigStore.instance().repo.get(group, {})  # groups whose names a table gives
    return sorted(
        name.removesuffix(".yaml") for name in {*files, *stored} if name.endswith(".yaml")
    )


def _explained(composed: DictConfig, path: str, field: dataclasses.Field) -> str:
    unit = f"{field.metadata['unit']}; " if field.metadata["unit"] else ""
    default = "required"
    if not OmegaConf.is_missing(composed, path):
        value = OmegaConf.select(composed, path)
        default = {None: "null", True: "true", False: "false"}.get(
            value if value is None or isinstance(value, bool) else "", str(value)
        )
    return f"{field.metadata['help']} ({unit}default: {default})"


class _Page:
    """Lines in two columns, as wide as the terminal, or 80 where there is none."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        columns = shutil.get_terminal_size((80, 24)).columns
        self._width = min(max(columns, _NARROWEST), _WIDEST)
        self._column = min(_COLUMN, self._width // 2)

    def paragraph(self, text: str) -> None:
        """Add lines of text."""
        for line in text.splitlines():
            self.lines += textwrap.wrap(line, self._width)

    def heading(self, title: str) -> None:
        """Begin a section."""
        self.lines += ["", title]

    def example(self, line: str, about: str) -> None:
        """Add a command line, which is not wrapped, so that it can be copied."""
        self.lines.append(f"  {line}")
        self._indented(about, 6)

    def entry(self, name: str, text: str) -> None:
        """Explain a name in the second column; below it, where it is too long for the first."""
        if len(name) + 3 > self._column:
            self.lines.append(f"  {name}")
            self._indented(text, self._column)
            return
        before = len(self.lines)
        self._indented(text, self._column)
        self.lines[before] = f"  {name}".ljust(self._column) + self.lines[before].lstrip()

    def _indented(self, text: str, column: int) -> None:
        margin = " " * column
        self.lines += textwrap.wrap(
            text, self._width, initial_indent=margin, subsequent_indent=margin
        )
