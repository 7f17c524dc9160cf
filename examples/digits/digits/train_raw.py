"""Logistic regression on the pixels. The history has one row: how many steps the Newton solver made."""

import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from digits.parameters import load
from digits.records import write_records
from stages.common import paths
from stages.common.files import read_array
from stages.common.process import run_stage
from stages.evaluate import accuracy_and_loss

MODEL = Path("models/raw.npz")


def main() -> None:
    given, began = load(), time.monotonic()
    images, labels = read_array(paths.images("train")), read_array(paths.labels("train"))

    logistic = LogisticRegression(
        solver="newton-cg", tol=given.tolerance, C=given.raw.inverse_regularization, max_iter=100
    ).fit(images, labels)

    MODEL.parent.mkdir(exist_ok=True)
    learned = {"coefficients": logistic.coef_, "intercept": logistic.intercept_}
    np.savez(MODEL, **learned)
    train = accuracy_and_loss(logistic.predict_proba(images), labels)
    parameters = given.model_dump(include={"seed", "tolerance", "split", "raw"})
    history = [{"epoch": 1, "newton_steps": int(logistic.n_iter_[0])}]
    weights = sum(array.size for array in learned.values())
    write_records("raw", parameters, history, weights, train, time.monotonic() - began)


if __name__ == "__main__":
    run_stage("train_raw", main)
