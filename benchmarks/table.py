"""The figures of a bench as Markdown tables; README.md holds them. A pure function of the JSON's content."""

from typing import Any

from stages import markdown

Json = dict[str, Any]
NOTHING = markdown.NOTHING
TITLES = {"keras_cnn": "Keras CNN", "resnet18": "ResNet-18"}


def table(results: Json) -> str:
    """A line on the machine, and a table for each part that was measured."""
    sections = [heading(results)]
    if "throughput" in results:
        sections += ["**Training**, ours beside the way of the paper's notebook, measured in turns:"]
        sections += [throughput_table(results["throughput"])]
        sections += [measuring(results["throughput"])]
        gpu = results["gpu"]
        sections += [f"On a GPU: {gpu}." if isinstance(gpu, str) else f"On a GPU, {gpu['name']}:"]
        sections += [] if isinstance(gpu, str) else [throughput_table(gpu["throughput"])]
        sections += [
            "**Distance to the limit**: a step's operations at the rate of large matrix products, and the time of its "
            "convolutions and dense layers alone, as the framework computes them:"
        ]
        sections += [limit_table(results["limit"])]
    if "pipeline" in results:
        sections += ["**The pipeline**, in a clone of that commit; memory is that of the largest process:"]
        sections += [pipeline_table(results["pipeline"], results["full_runs"])]
    return "\n\n".join(sections)


def heading(results: Json) -> str:
    """What was measured, and where."""
    host = results["host"]
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    commit = (host["commit"] or "unknown")[:7] + (" with uncommitted changes" if host["dirty"] else "")
    warning = "**A quick try on made-up images: no figures.** " if results["quick"] else ""
    return (
        f"{warning}{host['processor']}, {host['cores']} cores, {host['memory_gb']} GB, {host['platform']}; "
        f"{host['date']}; commit {commit}; {versions}."
    )


def throughput_table(rows: list[Json]) -> str:
    """Images a second and ms a step of both ways, and the median and the spread of the rounds' ratios."""
    lines = []
    for row in rows:
        ratios = [time["notebook"] / time["ours"] for time in row["rounds_ms_per_step"]]
        lines.append(
            [
                TITLES[row["model"]],
                str(row["batch_size"]),
                *(f"{row[way]['images_per_second']:,.0f}" for way in ("ours", "notebook")),
                *(f"{row[way]['ms_per_step']:.1f} ms" for way in ("ours", "notebook")),
                f"**{row['ratio_to_notebook']:.2f}** ({min(ratios):.2f} to {max(ratios):.2f})",
            ]
        )
    header = ["model", "batch", "ours, images/s", "notebook, images/s", "ours, a step", "notebook, a step"]
    return markdown.table([*header, "times as fast (of the rounds)"], lines)


def measuring(rows: list[Json]) -> str:
    """What both ways have in common, and what the figures leave out."""
    threads = ", ".join(sorted({str(row["settings"]["threads"]) for row in rows}))
    starts = {way: [row[way]["left_out_ms_per_step"] for row in rows] for way in ("ours", "notebook")}
    left_out = "; ".join(
        f"{way} {', '.join(f'{start:.1f}' for start in values if start)} ms a step" for way, values in starts.items()
    )
    return (
        f"Both with {threads} threads, in float32, on the same images. Left out are validation and, of each round of "
        f"Keras, the 25 steps in which `fit` starts ({left_out})."
    )


def limit_table(rows: list[Json]) -> str:
    """The least time of a step in each precision, its share of ours, and what the framework's products take."""
    lines = []
    for row in rows:
        operations = row["gigaflop_per_step"]
        for name, values in row["precisions"].items():
            lines.append(
                [
                    TITLES[row["model"]],
                    str(row["batch_size"]),
                    f"{operations['network']:.2f} GFLOP",
                    f"{operations['ours']:.2f} GFLOP",
                    f"{name}, {values['gflops_per_second']:,.0f} GFLOP/s",
                    f"{values['least_ms']:.1f} ms",
                    f"{row['ms_per_step']:.1f} ms",
                    f"{100 * values['share_of_step']:.0f} %",
                    f"{row['products_ms']:.1f} ms" if name == "float32" else NOTHING,
                ]
            )
    header = ["model", "batch", "the network's step", "ours", "matrix products", "least time", "our step", "share"]
    return markdown.table([*header, "convolutions, dense layers"], lines)


def pipeline_table(measured: Json, full_runs: Json) -> str:
    """Seconds and memory of the stages, of dvc, of the imports and of the committed full runs."""
    lines = [
        [f"download ({measured['archive']}), preprocess and split together", seconds(measured["data_seconds"]), NOTHING]
    ]
    lines += [
        [f"{stage}{', one epoch' if stage.startswith('train_') else ''}", seconds(values["seconds"]), memory(values)]
        for stage, values in (measured["stages"] | measured["stages_of_one_epoch"]).items()
    ]
    lines += [
        ["`dvc repro` with nothing to do", seconds(measured["repro_with_nothing_to_do_seconds"]), NOTHING],
        [
            "`dvc exp run -S dropout=0.4`, until its first 25 steps are done",
            seconds(measured["experiment_until_training_seconds"]),
            NOTHING,
        ],
    ]
    for stage, values in measured["imports"].items():
        frameworks = ", ".join(values["frameworks"]) or "no framework"
        lines.append([f"`import stages.{stage}` ({frameworks})", seconds(values["seconds"]), NOTHING])
    for model, run in full_runs.items():
        reached = NOTHING if run["seconds_to_accuracy"] is None else seconds(run["seconds_to_accuracy"])
        where = f"(committed run, {run['processor']}, {run['cores']} cores)"
        lines.append([f"{TITLES[model]}, to a validation accuracy of {run['accuracy']:g} {where}", reached, NOTHING])
        lines.append([f"{TITLES[model]}, all {run['epochs']} epochs {where}", seconds(run["seconds"]), NOTHING])
    return markdown.table(["what", "time", "peak memory"], lines)


def seconds(value: float) -> str:
    """Three digits of a time."""
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def memory(values: Json) -> str:
    """Of a stage."""
    return f"{values['peak_memory_mb']:,} MB"
