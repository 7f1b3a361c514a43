"""What PyTorch and scikit-learn take for the same trainings; started by the benchmark `training`, answers in JSON.

    python peers.py versions
    python peers.py sgd FOLDER EPOCHS BATCH ROUNDS      train.npy, train_labels.npy, val.npy, val_labels.npy in FOLDER
    python peers.py lbfgs FOLDER C OBJECTIVE            train.npy, train_labels.npy in FOLDER
"""
import json
import sys
import time
import warnings
from pathlib import Path

import numpy


def load(folder, name):
    return numpy.load(Path(folder) / f"{name}.npy")


def versions():
    import sklearn
    import torch

    return {"PyTorch": torch.__version__, "scikit-learn": sklearn.__version__, "NumPy": numpy.__version__}


def sgd(folder, epochs, batch, rounds):
    """PyTorch's tutorial on tensors in memory: no DataLoader, no device; the best epoch's weights are kept, as we do."""
    import torch
    from torch.nn import functional

    features, labels = torch.from_numpy(load(folder, "train")), torch.from_numpy(load(folder, "train_labels"))
    val_features, val_labels = torch.from_numpy(load(folder, "val")), torch.from_numpy(load(folder, "val_labels"))
    classes = int(labels.max()) + 1

    def train(epochs, fused):
        layer = torch.nn.Linear(features.shape[1], classes)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.001, momentum=0.9, fused=fused)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
        best, kept = -1.0, None
        for _ in range(epochs):
            total, right = torch.zeros(()), torch.zeros((), dtype=torch.long)
            for rows in torch.randperm(len(features)).split(batch):
                optimizer.zero_grad()
                logits, target = layer(features[rows]), labels[rows]
                loss = functional.cross_entropy(logits, target)
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    total += loss * len(rows)
                    right += (logits.argmax(1) == target).sum()
            scheduler.step()
            with torch.no_grad():
                logits = layer(val_features)
                functional.cross_entropy(logits, val_labels).item()
                accuracy = (logits.argmax(1) == val_labels).double().mean().item()
            total.item(), right.item()
            if accuracy > best:
                best, kept = accuracy, {name: value.clone() for name, value in layer.state_dict().items()}
        return best, kept

    trials = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for fused in (False, True):
            train(1, fused)
            seconds, accuracies = [], []
            for seed in range(rounds):
                torch.manual_seed(seed)
                start = time.perf_counter()
                accuracies.append(train(epochs, fused)[0])
                seconds.append(time.perf_counter() - start)
            trials.append({"threads": threads, "fused": fused, "seconds": seconds, "accuracy": accuracies[0]})
    return trials


def lbfgs(folder, c, wanted):
    """LogisticRegression with its tolerance lowered until it is at the objective `wanted`, mean loss and penalty."""
    from scipy.special import logsumexp
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore")  # that it stopped before it converged is seen in the objective
    single, labels = load(folder, "train"), load(folder, "train_labels")
    rows = numpy.arange(len(labels))

    def objective(model):
        logits = single.astype(numpy.float64) @ model.coef_.T.astype(numpy.float64) + model.intercept_
        loss = (logsumexp(logits, axis=1) - logits[rows, labels]).mean()
        return loss + (model.coef_.astype(numpy.float64) ** 2).sum() / (2 * c * len(labels))

    trials, fastest, most = [], numpy.inf, 20_000
    for dtype in (numpy.float64, numpy.float32):
        features = single.astype(dtype)
        for tolerance in (1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7):
            model = LogisticRegression(C=c, tol=tolerance, max_iter=most)
            start = time.perf_counter()
            model.fit(features, labels)
            seconds = time.perf_counter() - start
            reached, iterations = objective(model), int(model.n_iter_[0])
            done = bool(reached <= wanted * (1 + 1e-6))
            trials.append({"dtype": numpy.dtype(dtype).name, "tolerance": tolerance, "seconds": seconds, "done": done,
                           "iterations": iterations, "objective": float(reached)})
            print(trials[-1], file=sys.stderr)
            if done or seconds > fastest:
                break
        fastest = min(fastest, seconds)
        most = 2 * iterations  # f32 may stay above a low tolerance for ever
    return trials


command, *arguments = sys.argv[1:]
if command == "versions":
    answer = versions()
elif command == "sgd":
    answer = sgd(arguments[0], *map(int, arguments[1:]))
else:
    answer = lbfgs(arguments[0], *map(float, arguments[1:]))
print(json.dumps(answer))
