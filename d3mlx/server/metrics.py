"""Measurements of the server as Prometheus reads them."""

from __future__ import annotations

from d3mlx.server.worker import Worker


def metrics(worker: Worker) -> str:
    """Return the counts and the sizes of the queues in Prometheus' text format."""
    totals = worker.totals
    counters = {
        "forwards": ("Forwards of the model", {"": totals.steps}),
        "rows": ("Positions computed", {"": totals.rows}),
        "tokens": ("Tokens of answers", {"": totals.tokens}),
        "answers": ("Answers by their end", {f'{{end="{end}"}}': count for end, count in totals.answers.items()}),
    }
    gauges = {
        "running": ("Requests in the next forward", len(worker.running)),
        "waiting": ("Requests in the queue", len(worker.waiting)),
        "prefix_bytes": ("Memory of the caches of earlier requests", worker.prefixes.nbytes if worker.prefixes else 0),
    }
    lines = []
    for name, (text, values) in counters.items():
        lines += [f"# HELP d3mlx_{name}_total {text}.", f"# TYPE d3mlx_{name}_total counter"]
        lines += [f"d3mlx_{name}_total{labels} {value}" for labels, value in values.items()]
    for name, (text, value) in gauges.items():
        lines += [f"# HELP d3mlx_{name} {text}.", f"# TYPE d3mlx_{name} gauge", f"d3mlx_{name} {value}"]
    return "\n".join(lines) + "\n"
