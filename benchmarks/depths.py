"""`make depths`: how every algorithm learns at every depth, as a table."""

import argparse
import json
import os
from pathlib import Path

from comparison import in_words, markdown, restore_seeds, search_labels

from bpc_cli.algorithms import ALGORITHMS
from bpc_cli.data import load_dataset
from bpc_cli.seeds import spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path, help="a sweep over algorithms and depths")
    parser.add_argument("--data", default="mnist")
    parser.add_argument(
        "--archives",
        default=os.environ.get("BPC_MNIST_ARCHIVES"),
        help="folder with the data set's original archives",
    )
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data, archive_dir=arguments.archives)
    cells: dict[str, dict[int, str]] = {}
    for path in sorted(arguments.sweep.glob("*/summary.json"), key=lambda path: path.parent.name):
        lines = json.loads(path.read_text())["seeds"]
        config, networks = restore_seeds(path.parent)
        algorithm = ALGORITHMS[config.algorithm.name]
        accuracies = [line["test_accuracy"] for line in lines]
        if not algorithm.amortiser_learns:  # a pass of it names nothing
            accuracies = [search_labels(config, each, dataset) for each in networks]
        cell = in_words(spread(accuracies), 1)
        if algorithm.generator_learns:
            cell += f"; {spread([line['generation_error'] for line in lines]).mean:.3f}"
        cells.setdefault(config.algorithm.name, {})[config.model.depth] = cell
        print(f"{config.algorithm.name}, depth {config.model.depth}: {cell}", flush=True)
    depths = sorted({depth for row in cells.values() for depth in row})
    rows = [["", *(f"depth {depth}" for depth in depths)]]
    rows += [
        [f"`{name}`", *(row.get(depth, "") for depth in depths)] for name, row in cells.items()
    ]
    (arguments.sweep / "table.md").write_text(markdown(rows) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
