"""Logistic regression on the features of a Bernoulli restricted Boltzmann machine (100 hidden units).

The page prints the pseudo-likelihood after each of the machine's iterations, and here it is the training history.
"""

import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import BernoulliRBM

from digits.parameters import load
from digits.records import write_records
from stages.common import paths
from stages.common.files import read_array
from stages.common.process import run_stage
from stages.evaluate import accuracy_and_loss

MODEL = Path("models/rbm.npz")


def main() -> None:
    given, began = load(), time.monotonic()
    images, labels = read_array(paths.images("train")), read_array(paths.labels("train"))

    history = []
    for iteration in range(1, given.rbm.iterations + 1):
        # Anew each time: fit goes through the same states, and partial_fit calculates in another precision.
        rbm = BernoulliRBM(
            given.rbm.components,
            learning_rate=given.rbm.learning_rate,
            n_iter=iteration,
            random_state=given.seed,
        ).fit(images)
        likelihood = float(rbm.score_samples(images).mean())
        history.append({"epoch": iteration, "pseudo_likelihood": round(likelihood, 6)})
        print(f"iteration {iteration}/{given.rbm.iterations}  pseudo-likelihood {likelihood:.2f}")
    features = rbm.transform(images)
    logistic = LogisticRegression(
        solver="newton-cg", tol=given.tolerance, C=given.rbm.inverse_regularization, max_iter=100
    ).fit(features, labels)

    MODEL.parent.mkdir(exist_ok=True)
    learned = {
        "components": rbm.components_,
        "hidden": rbm.intercept_hidden_,
        "coefficients": logistic.coef_,
        "intercept": logistic.intercept_,
    }
    np.savez(MODEL, **learned)
    train = accuracy_and_loss(logistic.predict_proba(features), labels)
    parameters = given.model_dump(include={"seed", "tolerance", "split", "rbm"})
    weights = sum(array.size for array in learned.values())
    write_records("rbm", parameters, history, weights, train, time.monotonic() - began)


if __name__ == "__main__":
    run_stage("train_rbm", main)
