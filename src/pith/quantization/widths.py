"""The search for choices that are good in two ways at once, by Optuna's NSGA-II."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GENES = 3


def proposed(
    score: Callable[[Int[Tensor, "choice layer"]], Float[Tensor, "choice two"]],
    first: Int[Tensor, "choice layer"],
    free: list[int],
    size: tuple[int, int, int],
) -> Int[Tensor, "found layer"]:
    """All choices that a search looked at, each once, in the order in which it came to them.

    Args:
        score: what is to be small, of each choice.
        first: those that it begins with; also what genes are that are not free.
        free: which genes may be changed.
        size: the population, the generations, and the seed.
    """
    import optuna  # it takes long to import, and only searching needs it

    population, generations, seed = size
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        sampler = optuna.samplers.NSGAIISampler(
            population_size=population, crossover_prob=0.9, mutation_prob=0.1, seed=seed
        )
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        genes: dict[str, optuna.distributions.BaseDistribution] = {
            str(index): optuna.distributions.IntDistribution(0, _GENES - 1) for index in free
        }
        for row in first[:population].tolist():
            study.enqueue_trial({name: row[int(name)] for name in genes})
        looked_at: dict[tuple[int, ...], None] = {}
        for _ in range(generations):
            trials = [study.ask(genes) for _ in range(population)]
            rows = first[:1].repeat(population, 1)
            rows[:, free] = torch.tensor([[trial.params[name] for name in genes] for trial in trials])
            for trial, row, scores in zip(trials, rows.tolist(), score(rows).tolist(), strict=True):
                study.tell(trial, scores)
                looked_at.setdefault(tuple(row))
    finally:
        optuna.logging.set_verbosity(level)
    return torch.tensor(list(looked_at))


def gap_fillers(bits: Float[Tensor, " choice"], held: Float[Tensor, " other"], count: int) -> list[int]:
    """Choices one after another, each the one that is farthest from all that are held and chosen already."""
    chosen: list[int] = []
    for _ in range(min(count, len(bits))):
        distance = (bits[:, None] - torch.cat([held, bits[chosen]])).abs().amin(1)
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return chosen
