"""Claim: at 32 connections segue's service answers 2.5 times as many requests as the plain way,
with at most half its p99 latency; at one connection its median latency is at most 0.7 of its.

The plain way is FastAPI calling Keras' `model.predict` for each request, under a lock (without one
it breaks down under concurrency). Both serve the same made run, with histories of full length, on
the same machine, alternating; wrk (Debian's package) sends the load.

    python benchmarks/serve_load.py [--seconds S] [--rounds N] [--memory-requests N]
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

ITEMS, LENGTH, WIDTH, BLOCKS = 3_417, 200, 64, 2
CONNECTIONS = (1, 8, 32, 128)
THROUGHPUT, P50, P99 = 2.5, 0.7, 0.5
BODIES = 256

# wrk asks for the next body of a list at each request, and counts what is not 200.
SCRIPT = """
local bodies = {}
local headers = {["Content-Type"] = "application/json"}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local at = 0
request = function()
  at = at %% #bodies + 1
  return wrk.format("POST", "/v1/recommendations", headers, bodies[at])
end
"""


def plain() -> None:
    """The plain way, as a server of its own: `serve_load.py --plain RUN PORT`."""
    import threading

    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    import segue

    recommender = segue.load(sys.argv[2])
    model, table = recommender.model, recommender._scorer.item_table
    ids = recommender.vocabulary.ids.to_list()
    dense = {each: at for at, each in enumerate(ids, start=1)}
    lock = threading.Lock()
    app = FastAPI()

    class Asked(BaseModel):
        history: list[int]
        k: int = 10

    @app.post("/v1/recommendations")
    def recommend(asked: Asked) -> dict[str, object]:
        known = [dense[each] for each in asked.history if each in dense][-LENGTH:]
        row = np.zeros((1, LENGTH), np.int32)
        row[0, : len(known)] = known
        with lock:
            states = model.predict({"item_ids": row}, verbose=0)["item_sequence_embedding"]
        scores = table @ states[0, max(len(known) - 1, 0)]
        scores[[0, *known]] = -np.inf
        best = np.argpartition(-scores, asked.k)[: asked.k]
        best = best[np.argsort(-scores[best])]
        return {"items": [{"item_id": ids[each - 1]} for each in best]}

    model.predict({"item_ids": np.ones((1, LENGTH), np.int32)}, verbose=0)
    uvicorn.run(app, port=int(sys.argv[3]), log_level="warning", access_log=False)


def make_run(path: Path) -> None:
    """A run of MovieLens-1M's size with weights as they begin: they cost what trained ones do."""
    import segue  # noqa: F401 - chooses the backend
    from segue.artifact import Run, write_run
    from segue.backend import load_keras
    from segue.config import Config
    from segue.data.vocabulary import Vocabulary

    load_keras()
    from segue.model.sasrec import SASRec
    from segue.model.weights import weights_of

    settings = [f"max_length={LENGTH}", f"width={WIDTH}", f"num_blocks={BLOCKS}"]
    config = Config().with_settings(settings)
    model = SASRec(ITEMS, config.model, config.loss, seed=0)
    vocabulary = Vocabulary(pl.Series(range(1, ITEMS + 1), dtype=pl.Int64))
    titles = pl.DataFrame({"title": [f"Film {each} (1999)" for each in range(1, ITEMS + 1)]})
    counts = np.ones(ITEMS + 1, np.int64)
    counts[0] = 0
    write_run(Run(config, weights_of(model), vocabulary, titles, counts, None, {}, None, {}), path)


@contextmanager
def serving(command: list[str], port: int) -> Iterator[int]:
    """A server's process id, once it answers."""
    server = subprocess.Popen(command, stdout=sys.stderr)
    try:
        body = json.dumps({"history": [1]}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/recommendations",
            body,
            {"Content-Type": "application/json"},
        )
        for _ in range(600):
            try:
                urllib.request.urlopen(asked, timeout=5).read()
                break
            except OSError:
                if server.poll() is not None:
                    raise SystemExit(
                        f"{' '.join(command)} ended with {server.returncode}"
                    ) from None
                time.sleep(0.5)
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def load(port: int, connections: int, seconds: float, script: Path) -> dict[str, float]:
    """Requests per second, latencies in ms, and answers that were not 2xx."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script)]
    text = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True
    ).stdout
    factors = {"us": 0.001, "ms": 1.0, "s": 1000.0}

    def percentile(name: str) -> float:
        found = re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", text)
        assert found, text
        return float(found[1]) * factors[found[2]]

    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    assert rate, text
    return {
        "per_second": float(rate[1]),
        "p50_ms": percentile("50"),
        "p99_ms": percentile("99"),
        "refused": int(failed[1]) if failed else 0,
    }


def resident_mb(pid: int) -> float:
    """Memory of a process that is in use."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def main() -> int:
    """Serve the run in both ways, load them in turn, report; 1 where a claim fails."""
    parser = argparse.ArgumentParser(description="Requests a second and latencies of two servers.")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory-requests", type=int, default=0, help="also: 100000")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        make_run(place / "run")
        rng = np.random.default_rng(0)
        bodies = [
            json.dumps({"history": rng.integers(1, ITEMS + 1, LENGTH).tolist(), "k": 10})
            for _ in range(BODIES)
        ]
        (place / "bodies").write_text("\n".join(bodies))
        script = place / "load.lua"
        script.write_text(SCRIPT % (place / "bodies"))
        run = str(place / "run")
        servers = {
            "plain": [sys.executable, __file__, "--plain", run, "8801"],
            "segue": [sys.executable, "-m", "segue", "serve", run, "--port", "8802"],
        }
        ports = {"plain": 8801, "segue": 8802}
        rows: dict[tuple[str, int], list[dict[str, float]]] = {}
        memory: dict[str, float] = {}
        with serving(servers["plain"], 8801), serving(servers["segue"], 8802) as pid:
            for name in servers:
                load(ports[name], 32, 2, script)
            for _ in range(arguments.rounds):
                for connections in CONNECTIONS:
                    for name in servers:
                        measured = load(ports[name], connections, arguments.seconds, script)
                        rows.setdefault((name, connections), []).append(measured)
                        print(f"{name}, {connections}: {measured}", file=sys.stderr, flush=True)
            past = load(8802, 512, arguments.seconds, script)
            if arguments.memory_requests:
                memory["before_mb"] = resident_mb(pid)
                rate = rows["segue", 32][-1]["per_second"]
                load(8802, 32, arguments.memory_requests / rate, script)
                memory["after_mb"] = resident_mb(pid)
    return 0 if report(rows, past, memory) else 1


def report(
    rows: dict[tuple[str, int], list[dict[str, float]]],
    past: dict[str, float],
    memory: dict[str, float],
) -> bool:
    """Print a table and one line of JSON; whether the claims hold."""
    medians = {
        key: {name: float(np.median([each[name] for each in values])) for name in values[0]}
        for key, values in rows.items()
    }
    print(
        f"{'':6} {'connections':>11} {'per second':>10} {'p50 ms':>8} {'p99 ms':>8} {'not 200':>8}"
    )
    for (name, connections), row in medians.items():
        print(
            f"{name:6} {connections:11} {row['per_second']:10.0f} {row['p50_ms']:8.2f} "
            f"{row['p99_ms']:8.1f} {row['refused']:8.0f}"
        )
    plain_32, segue_32 = medians["plain", 32], medians["segue", 32]
    throughput = segue_32["per_second"] / plain_32["per_second"]
    p50 = medians["segue", 1]["p50_ms"] / medians["plain", 1]["p50_ms"]
    p99 = segue_32["p99_ms"] / plain_32["p99_ms"]
    holds = [throughput >= THROUGHPUT, p50 <= P50, p99 <= P99]
    line = {
        "throughput_ratio_32": throughput,
        "p50_ratio_1": p50,
        "p99_ratio_32": p99,
        "holds": holds,
        "past_saturation": past,
        "memory": memory,
        "rows": {f"{name} {connections}": row for (name, connections), row in medians.items()},
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(line))
    return all(holds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        plain()
    else:
        sys.exit(main())
