"""`make table-depth`: how every algorithm learns at every depth, as a table."""

import json

from comparison import in_words, markdown, read_command_line, restore_seeds, test_by_energy

from bpc_cli.evaluation.statistics import spread
from bpc_cli.options.algorithms import ALGORITHMS


def main() -> None:
    sweep, jobs, dataset = read_command_line(__doc__)
    cells: dict[str, dict[int, str]] = {}
    for job in jobs:
        lines = json.loads((job / "summary.json").read_text())["seeds"]
        config, models = restore_seeds(job)
        algorithm = ALGORITHMS[config.algorithm.name]
        accuracies = [line["test_accuracy"] for line in lines]
        if not algorithm.amortiser_learns:  # then it classifies nothing feedforward
            accuracies = [test_by_energy(config, model, dataset) for model in models]
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
    (sweep / "table.md").write_text(markdown(rows) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
