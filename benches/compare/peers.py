"""What other ways to the same features take; started by the benchmark `compare`, answers in JSON.

    python peers.py versions
    python peers.py prepare BACKBONE FOLDER        what the peers load: weights for PyTorch, a network that ends in features
    python peers.py PEER trial TASK                which of a peer's own ways is fastest on the first pictures
    python peers.py PEER run TASK WAY              all pictures; with "reference" in TASK its features are compared
    python peers.py cold FOLDER PICTURE            one picture, as a whole process

PEER is torchvision, torchvision-folded, onnxruntime or fastembed. TASK and WAY are JSON. Time is taken from the first picture to the last feature:
imports, loading and a first batch come before it.
"""
import csv
import itertools
import json
import os
import sys
import time
from pathlib import Path

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZE, CROP = 256, 224
FEATURES, WEIGHTS, FASTEMBED = "features.onnx", "weights.pth", "fastembed"
FORK = {"multiprocessing_context": "fork"} if sys.platform == "linux" else {}  # starts faster than what Python takes by itself


def versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {"Python": ".".join(map(str, sys.version_info[:3]))}
    for package in ("torch", "torchvision", "onnxruntime", "pillow", "numpy", "fastembed"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def prepare(backbone, folder):
    import onnx
    import onnx.numpy_helper
    import onnx.utils
    import torch

    folder = Path(folder)
    graph = onnx.load(backbone).graph
    weights = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    torch.save(weights, folder / WEIGHTS)
    classifier = graph.node[-1]
    if classifier.op_type != "Gemm":
        raise SystemExit(f"the last node of {backbone} is {classifier.op_type}, not the Gemm of a classifier")
    onnx.utils.extract_model(backbone, str(folder / FEATURES), [graph.input[0].name], [classifier.input[0]])
    own = folder / FASTEMBED
    own.mkdir(exist_ok=True)
    (own / "model.onnx").write_bytes((folder / FEATURES).read_bytes())
    (own / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": RESIZE}, "resample": 2,
        "do_center_crop": True, "crop_size": CROP, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": MEAN, "image_std": STD,
    }))
    return {}


def resnet18(folder, folded=False, features=True):
    """torchvision's ResNet18. The file's network has its BatchNorm in the weights and biases of the convolutions: with `folded`
    this one, too, else it has torchvision's own BatchNorm that only adds the bias."""
    import torch
    import torchvision

    weights = torch.load(Path(folder) / WEIGHTS, weights_only=True)
    norm = {"norm_layer": lambda channels: torch.nn.Identity()} if folded else {}
    model = torchvision.models.resnet18(num_classes=len(weights["fc.bias"]), **norm)
    if folded:
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.bias = torch.nn.Parameter(torch.zeros(module.out_channels))
        model.load_state_dict(weights)
    else:
        state = model.state_dict()
        for name in state:
            if name.endswith("running_var"):
                state[name].fill_(1 - 1e-5)  # its square root with BatchNorm's epsilon is 1; the means are 0, the factors 1
        for name, value in weights.items():
            if not name.startswith("fc.") and name.endswith(".bias"):
                name = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
            state[name] = value
        model.load_state_dict(state)
    if features:
        model.fc = torch.nn.Identity()
    return model.eval()


def image_folder(root):
    """Whatever splits there are, or the classes themselves, with each picture's path below `root`."""
    import torch
    import torchvision
    from torchvision import transforms

    transform = transforms.Compose([
        transforms.Resize(RESIZE), transforms.CenterCrop(CROP), transforms.ToTensor(), transforms.Normalize(MEAN, STD),
    ])
    splits = [split for split in ("train", "val", "test") if (Path(root) / split).is_dir()] or ["."]
    folders = [torchvision.datasets.ImageFolder(os.path.join(root, split), transform) for split in splits]
    paths = [os.path.relpath(path, root) for folder in folders for path, _ in folder.samples]
    return torch.utils.data.ConcatDataset(folders), paths


class Torchvision:
    """ImageFolder, DataLoader and the model in PyTorch."""

    folded = False

    def __init__(self, task):
        self.task, self.model = task, resnet18(task["folder"], self.folded)
        self.pictures, self.paths = image_folder(task["dataset"])

    def ways(self, quick):
        threads = self.task["threads"]
        # The threads of the model beside the workers: all of them, or those that the workers leave.
        loaders = [(0, threads)] + [(workers, count) for workers in (1, 2)
                                    for count in sorted({threads, max(1, threads - workers)}, reverse=True)]
        batches, layouts = ((32,), (True,)) if quick else ((8, 16, 32, 64), (False, True))
        for (workers, count), batch, channels_last in itertools.product(loaders, batches, layouts):
            yield {"num_workers": workers, "set_num_threads": count, "batch_size": batch, "channels_last": channels_last}

    def run(self, way, limit):
        import torch

        torch.set_num_threads(way["set_num_threads"])
        layout = torch.channels_last if way["channels_last"] else torch.contiguous_format
        model = self.model.to(memory_format=layout)
        pictures = self.pictures if limit is None else torch.utils.data.Subset(self.pictures, spread(len(self.paths), limit))
        with torch.inference_mode():
            model(torch.zeros(way["batch_size"], 3, CROP, CROP).to(memory_format=layout))
            start = time.perf_counter()
            workers = {"num_workers": way["num_workers"], **(FORK if way["num_workers"] else {})}
            loader = torch.utils.data.DataLoader(pictures, way["batch_size"], **workers)
            features = [model(images.to(memory_format=layout)) for images, _ in loader]
            features = torch.cat(features).numpy()
            return features, time.perf_counter() - start


class TorchvisionFolded(Torchvision):
    folded = True


def picture(path):
    """As torchvision makes it, by Pillow and NumPy alone."""
    import numpy
    from PIL import Image

    image = Image.open(path).convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((RESIZE * width // short, RESIZE * height // short), Image.Resampling.BILINEAR)
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    image = numpy.asarray(image.crop((left, top, left + CROP, top + CROP)), numpy.float32)
    return ((image - scaled(MEAN)) / scaled(STD)).transpose(2, 0, 1)


def scaled(values):
    import numpy

    return numpy.array(values, numpy.float32) * numpy.float32(255)


class OnnxRuntime:
    """Pillow and ONNX Runtime: one after the other, decoding ahead in threads, or a session for each thread."""

    def __init__(self, task):
        self.task = task
        self.paths = listed(task)
        self.sessions = {}

    def ways(self, quick):
        threads = self.task["threads"]
        for batch in (8,) if quick else (1, 8, 16):
            yield {"way": "in turn", "batch_size": batch}
            for spinning in (False,) if quick else (False, True):
                yield {"way": "decoding ahead", "batch_size": batch, "spinning": spinning}
            if threads > 1:
                yield {"way": "a session per thread", "batch_size": batch}

    def open(self, intra, spinning=True):
        import onnxruntime

        if (intra, spinning) not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = intra
            options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
            file = str(Path(self.task["folder"]) / FEATURES)
            count = self.task["threads"] if intra == 1 else 1
            self.sessions[intra, spinning] = [
                onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for _ in range(count)
            ]
        return self.sessions[intra, spinning]

    def run(self, way, limit):
        import queue
        from concurrent.futures import ThreadPoolExecutor

        import numpy

        threads, size = self.task["threads"], way["batch_size"]
        per_thread = way["way"] == "a session per thread"
        sessions = self.open(1 if per_thread else threads, way.get("spinning", True))
        name = sessions[0].get_inputs()[0].name
        for session in sessions:
            session.run(None, {name: numpy.zeros((size, 3, CROP, CROP), numpy.float32)})
        paths = self.paths if limit is None else [self.paths[index] for index in spread(len(self.paths), limit)]
        paths = [os.path.join(self.task["dataset"], path) for path in paths]
        batches = [paths[start:start + size] for start in range(0, len(paths), size)]
        infer = lambda session, pictures: session.run(None, {name: numpy.stack(pictures)})[0]
        start = time.perf_counter()
        if way["way"] == "in turn":
            features = [infer(sessions[0], [picture(path) for path in batch]) for batch in batches]
        elif per_thread:
            idle = queue.SimpleQueue()
            for session in sessions:
                idle.put(session)

            def whole(batch):
                session = idle.get()
                feature = infer(session, [picture(path) for path in batch])
                idle.put(session)
                return feature

            with ThreadPoolExecutor(threads) as pool:
                features = list(pool.map(whole, batches))
        else:
            with ThreadPoolExecutor(threads) as pool:
                features, ahead = [], []
                for batch in batches:
                    ahead.append([pool.submit(picture, path) for path in batch])
                    if len(ahead) > 2:
                        features.append(infer(sessions[0], [future.result() for future in ahead.pop(0)]))
                features += [infer(sessions[0], [future.result() for future in batch]) for batch in ahead]
        return numpy.concatenate(features), time.perf_counter() - start


class FastEmbed:
    """fastembed with this backbone in the place of one of its own, which would have to be downloaded."""

    loosely = True  # its CenterCrop rounds the other way, and features are scaled to length 1

    def __init__(self, task):
        from fastembed import ImageEmbedding

        self.task = task
        self.paths = listed(task)
        self.model = ImageEmbedding(
            "Qdrant/resnet50-onnx", threads=task["threads"], providers=["CPUExecutionProvider"],
            specific_model_path=str(Path(task["folder"]) / FASTEMBED), cache_dir=task["folder"],
        )

    def ways(self, quick):
        for batch, parallel in itertools.product((8,) if quick else (1, 8, 16), (None, self.task["threads"])):
            yield {"batch_size": batch, "parallel": parallel}

    def run(self, way, limit):
        import numpy

        paths = self.paths if limit is None else [self.paths[index] for index in spread(len(self.paths), limit)]
        paths = [os.path.join(self.task["dataset"], path) for path in paths]
        list(self.model.embed(paths[:1]))
        start = time.perf_counter()
        features = list(self.model.embed(paths, batch_size=way["batch_size"], parallel=way["parallel"]))
        return numpy.stack(features), time.perf_counter() - start


def listed(task):
    """The pictures' paths below the data set, as lastlayer has them."""
    with open(task["pictures"], encoding="utf-8", newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


def spread(count, limit):
    """Up to `limit` of `count` places, evenly."""
    return [index * count // min(limit, count) for index in range(min(limit, count))]


def trial(peer, task):
    """Every way on the same few pictures, and the best ones again on more: the fastest of those."""
    ways = list(peer.ways(task["quick"]))
    seconds = [peer.run(way, task["trial"])[1] for way in ways]
    for way, taken in sorted(zip(ways, seconds), key=lambda pair: pair[1]):
        print(f"  {min(task['trial'], len(peer.paths)) / taken:6.1f}/s  {way}", file=sys.stderr)
    final = [ways[place] for place in sorted(range(len(ways)), key=seconds.__getitem__)[:3]]
    again = [min(peer.run(way, 2 * task["trial"])[1] for _ in range(2)) for way in final]
    return {"way": final[again.index(min(again))], "tried": len(ways)}


def run(peer, task, way):
    import numpy

    features, seconds = peer.run(way, None)
    answer = {"pictures": len(features), "seconds": seconds}
    if "reference" in task:
        reference = numpy.load(task["reference"])
        places = {os.path.normpath(path): place for place, path in enumerate(listed(task))}
        if sorted(map(os.path.normpath, peer.paths)) != sorted(places):
            raise SystemExit(f"it finds {len(peer.paths)} pictures in {task['dataset']}, lastlayer {len(places)}")
        reference = reference[[places[os.path.normpath(path)] for path in peer.paths]]
        lengths = numpy.linalg.norm(features, axis=1) * numpy.linalg.norm(reference, axis=1)
        cosines = (features * reference).sum(1) / lengths
        answer["cosine"] = float(cosines.min())
        if not answer["cosine"] > (0.95 if getattr(peer, "loosely", False) else 0.9999):
            worst = peer.paths[int(cosines.argmin())]
            raise SystemExit(f"its features are not lastlayer's: cosine {cosines.min():.5f} on {worst}")
    return answer


def cold(folder, path):
    import torch
    from PIL import Image
    from torchvision import transforms

    model = resnet18(folder, features=False)
    transform = transforms.Compose([
        transforms.Resize(RESIZE), transforms.CenterCrop(CROP), transforms.ToTensor(), transforms.Normalize(MEAN, STD),
    ])
    with torch.inference_mode():
        probabilities = model(transform(Image.open(path).convert("RGB"))[None]).softmax(1)
    return {"class": int(probabilities.argmax()), "probability": float(probabilities.max())}


def main():
    command, *arguments = sys.argv[1:]
    if command in ("versions", "prepare", "cold"):
        return {"versions": versions, "prepare": prepare, "cold": cold}[command](*arguments)
    what, task, *way = arguments
    peers = {"torchvision": Torchvision, "torchvision-folded": TorchvisionFolded, "onnxruntime": OnnxRuntime, "fastembed": FastEmbed}
    peer = peers[command](json.loads(task))
    return trial(peer, json.loads(task)) if what == "trial" else run(peer, json.loads(task), json.loads(way[0]))


if __name__ == "__main__":  # fastembed's workers import this file again
    print(json.dumps(main()))
