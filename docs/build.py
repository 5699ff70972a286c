"""What `make docs` makes: equations as MathML, and options, experiments and API from their tables.

MkDocs calls these functions as it builds. Browsers draw MathML without scripts or fonts.
"""

import re
from pathlib import Path

import yaml
from hydra import compose, initialize_config_module
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from omegaconf import OmegaConf

from bpc_cli import _HOMES as homes
from bpc_cli import __all__ as public_names
from bpc_cli.options.algorithms import ALGORITHMS
from bpc_cli.options.declare import flatten_options, option_fields
from bpc_cli.options.evaluation_schema import EvalConfig, register_schemas
from bpc_cli.options.schema import TrainConfig

CONFIGS = Path(__file__).parents[1] / "configs"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of tables."""
    pages = {
        "options.md": options_page(),
        "experiments.md": experiments_page(),
        "api.md": api_page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Write each $$equation$$ as MathML, and each $symbol$ of the concepts."""
    markdown = re.sub(r"\$\$(.+?)\$\$", lambda found: math(found[1], "block"), markdown)
    if page.file.src_uri != "concepts.md":  # elsewhere dollars are prompts and variables
        return markdown
    return re.sub(r"\$([^$\n]+)\$", lambda found: math(found[1], "inline"), markdown)


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Leave out what a notebook's page would load from elsewhere for formulas and diagrams."""
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    left_out = r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->"
    return re.sub(rf'{left_out}<script type="module">.*?</script>', "", output, flags=re.DOTALL)


def math(equation: str, display: str) -> str:
    """Write an equation as MathML."""
    return convert(equation.strip(), display=display)


def options_page() -> str:
    """List every option of both commands, its default, unit and meaning."""
    register_schemas()
    parts = ["# Options", "As `--help` lists them. `null` stands for none."]
    for title, name, schema in (
        ("bpc-train", "train", TrainConfig),
        ("bpc-eval", "eval", EvalConfig),
    ):
        with initialize_config_module("bpc_cli.configs", version_base="1.3"):
            composed = OmegaConf.to_container(compose(name))
            defaults = dict(flatten_options(composed, schema))
        rows = ["| option | default | unit | |", "|---|---|---|---|"]
        for path, field in option_fields(schema):
            about = field.metadata["help"]
            if choices := field.metadata["choices"]:
                about += ": " + ", ".join(f"`{choice}`" for choice in choices)
            default = written(defaults.get(path))
            rows.append(f"| `{path}` | `{default}` | {field.metadata['unit']} | {cell(about)} |")
        parts += [f"## {title}", "\n".join(rows)]
    algorithms = [f"| `{name}` | {each.about} |" for name, each in ALGORITHMS.items()]
    parts += ["## Algorithms", "\n".join(["| `algorithm=` | |", "|---|---|", *algorithms])]
    return "\n\n".join(parts)


def experiments_page() -> str:
    """Show every experiment's file."""
    parts = ["# Experiments", "`bpc-train experiment=NAME`; an option beside it takes precedence."]
    for path in sorted(CONFIGS.glob("experiment/*.yaml")):
        text = path.read_text().removeprefix("# @package _global_\n")
        parts += [f"## {path.stem}", f"```yaml\n{text}```"]
    return "\n\n".join(parts)


def api_page() -> str:
    """List what `import bpc_cli` offers, by room."""
    parts = ["# API", "Every name can be imported from `bpc_cli` itself."]
    rooms: dict[str, list[str]] = {}
    for name in public_names:
        rooms.setdefault(homes[name], []).append(name)
    for room, names in rooms.items():
        parts.append(f"## {room.replace('.', ' / ')}")
        parts += [f"::: bpc_cli.{room}.{name}" for name in names]
    return "\n\n".join(parts)


def written(value: object) -> str:
    """Write a value as one gives it on a command line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000) if value != "???" else "—"
    return text.removesuffix("...\n").strip().replace("|", "\\|")


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
