"""The figures of a bench as Markdown tables; docs/performance.md holds them. A pure function of the JSON's content."""

import textwrap
from typing import Any

from benchmarks.throughput import WAYS
from stages.paper import markdown

Json = dict[str, Any]
NOTHING = markdown.NOTHING
LINE = 118  # characters
TITLES = {"keras_cnn": "Keras CNN", "resnet18": "ResNet-18"}


def table(results: Json) -> str:
    """A line on the machine, and a table for each part that was measured."""
    sections = [heading(results)]
    if "throughput" in results:
        sections += [
            "**Training**: images a second of each way, and how many times as fast ours is. The brackets hold the "
            "range over the alternating rounds."
        ]
        sections += [throughput_table(results["throughput"])]
        sections += [measuring(results["throughput"])]
        gpu = results["gpu"]
        sections += [f"On a GPU: {gpu}." if isinstance(gpu, str) else f"On a GPU, {gpu['name']}:"]
        sections += [] if isinstance(gpu, str) else [throughput_table(gpu["throughput"])]
        sections += [
            "**Distance to the limit.** `operations`: those of our step, out of the plain network's. `least time`: "
            "our operations at the rate of large matrix products. `share`: the least time divided by the time of "
            "our step. `layers`: the time of the step's convolutions and dense layers alone, as the framework computes "
            "them."
        ]
        sections += [limit_table(results["limit"])]
    if "pipeline" in results:
        sections += ["**The pipeline**, in a clone of that commit. Memory is the peak of the largest process:"]
        sections += [pipeline_table(results["pipeline"], results["full_runs"])]
    return "\n\n".join(part if part.startswith("|") else textwrap.fill(part, LINE) for part in sections)


def heading(results: Json) -> str:
    """What was measured, and where."""
    host = results["host"]
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    commit = (host["commit"] or "unknown")[:7] + (" with uncommitted changes" if host["dirty"] else "")
    warning = "**A quick try on synthetic images: no figures.** " if results["quick"] else ""
    return (
        f"{warning}{host['processor']}, {host['cores']} cores, {host['memory_gb']} GB, {host['platform']}; "
        f"{host['date']}; commit {commit}; {versions}."
    )


def throughput_table(rows: list[Json]) -> str:
    """Images a second of each way; the median and the range of the rounds' ratios of ours to the others."""
    others = [way for way in WAYS if way != "ours" and way in rows[0]]
    lines = []
    for row in rows:
        line = [f"{TITLES[row['model']]}, {row['batch_size']}"]
        line += [f"{row[way]['images_per_second']:,.0f}" for way in ("ours", *others)]
        for way in others:
            ratios = [time[way] / time["ours"] for time in row["rounds_ms_per_step"]]
            line.append(f"**{row[f'ratio_to_{way}']:.2f}** ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(line)
    return markdown.table(["model, batch", "ours", *others, *(f"ours to {way}" for way in others)], lines)


def measuring(rows: list[Json]) -> str:
    """What the ways have in common, what the figures leave out, and the form that was faster for the expert."""
    threads = ", ".join(sorted({str(row["settings"]["threads"]) for row in rows}))
    forms = ", ".join(
        f"{TITLES[row['model']]}, {row['batch_size']}: {row['forms']['expert']}" for row in rows if "forms" in row
    )
    return (
        f"All use {threads} threads and float32, on the same images. Validation is not included, nor are the 25 steps "
        "in which each round's `fit` of Keras starts."
    ) + (f" Faster for the expert: {forms}." if forms else "")


def limit_table(rows: list[Json]) -> str:
    """The least time of a step, its share of ours, and the time of a step's layers."""
    lines = []
    for row in rows:
        operations = row["gigaflop_per_step"]
        least = row.get("precisions", {}).get("float32", row)  # results up to commit 7c8649f have bfloat16, too
        lines.append(
            [
                f"{TITLES[row['model']]}, {row['batch_size']}",
                f"{operations['ours']:.2f} of {operations['network']:.2f} GFLOP",
                f"{least['least_ms']:.1f} ms at {least['gflops_per_second']:,.0f} GFLOP/s",
                f"{row['ms_per_step']:.1f} ms ({100 * least['share_of_step']:.0f} %)",
                f"{row['products_ms']:.1f} ms",
            ]
        )
    return markdown.table(["model, batch", "operations", "least time", "our step (share)", "layers"], lines)


def pipeline_table(measured: Json, full_runs: Json) -> str:
    """Seconds and memory of the stages, of dvc, of the imports and of the committed full runs."""
    lines = [[f"download ({measured['archive']}), preprocess, split", seconds(measured["data_seconds"]), NOTHING]]
    lines += [
        [f"{stage}{', one epoch' if stage.startswith('train_') else ''}", seconds(values["seconds"]), memory(values)]
        for stage, values in (measured["stages"] | measured["stages_of_one_epoch"]).items()
    ]
    lines += [
        ["`dvc repro` with nothing to do", seconds(measured["repro_with_nothing_to_do_seconds"]), NOTHING],
        [
            "`dvc exp run -S dropout=0.4`, until it trains",
            NOTHING if (begun := measured["experiment_until_training_seconds"]) is None else seconds(begun),
            NOTHING,
        ],
    ]
    for stage, values in measured["imports"].items():
        frameworks = ", ".join(values["frameworks"]) or "no framework"
        lines.append([f"`import stages.{stage}` ({frameworks})", seconds(values["seconds"]), NOTHING])
    for model, run in full_runs.items():
        reached = NOTHING if run["seconds_to_accuracy"] is None else seconds(run["seconds_to_accuracy"])
        where = f"(committed, {run['processor']}, {run['cores']} cores)"
        lines.append([f"{TITLES[model]}, to validation accuracy {run['accuracy']:g} {where}", reached, NOTHING])
        lines.append([f"{TITLES[model]}, all {run['epochs']} epochs {where}", seconds(run["seconds"]), NOTHING])
    return markdown.table(["what", "time", "peak memory"], lines)


def seconds(value: float) -> str:
    """Three digits of a time."""
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def memory(values: Json) -> str:
    """The peak memory of a stage."""
    return f"{values['peak_memory_mb']:,} MB"
