"""Where the files of a run stand, relative to the repository."""

from pathlib import Path

MODEL = Path("beyond/models/model.pt")

METRICS = Path("beyond/metrics")
SCORES = METRICS / "scores.json"
RUN = METRICS / "run.json"
RUNTIME = METRICS / "runtime.json"
HISTORY = METRICS / "history.csv"
PREDICTIONS = METRICS / "predictions.npz"
