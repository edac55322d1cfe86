"""Claim: at 32 connections segue's service answers 2.5 times as many requests as the plain way,
with at most half its p99 latency; at one connection its median latency is at most 0.7 of its.
Past saturation it refuses at once what it cannot take, by 503 with Retry-After. After 100,000
requests it holds at most 5% more memory than after 1,000. A new model every second for a minute
makes no request fail, and no answer is by two models.

The plain way is FastAPI calling Keras' `model.predict` for each request, under a lock (without one
it breaks down under concurrency). Both serve the same made run, with histories of full length, on
the same machine, alternating; wrk (Debian's package) sends the load. Memory and reloads are seen on
servers of their own.

    python benchmarks/serve_load.py [--seconds S] [--rounds N] [--requests N] [--reload-seconds S]
"""

import argparse
import http.client
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ITEMS, LENGTH, WIDTH, BLOCKS = 3_417, 200, 64, 2
CONNECTIONS = (1, 8, 32, 128)
THROUGHPUT, P50, P99, GROWTH = 2.5, 0.7, 0.5, 1.05
# More than the queue of 256 and the batch that is being answered.
TOO_MANY = 768
BODIES = 256
RECOMMEND = "/v1/recommendations"
JSON = {"Content-Type": "application/json"}

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
# To see what was answered costs wrk time, so that no speed is taken from such a load.
COUNTING = """
local threads = {}
told = 0
setup = function(thread) threads[#threads + 1] = thread end
response = function(status, headers)
  local wait = headers["retry-after"] or headers["Retry-After"]
  if status == 503 and wait and tonumber(wait) >= 1 then told = told + 1 end
end
done = function()
  print("refused by 503 with Retry-After: " .. threads[1]:get("told"))
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
    model, table = recommender.model, recommender.retriever.item_table
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


def make_run(path: Path, seed: int = 0) -> None:
    """A run of MovieLens-1M's size with weights as they begin: they cost what trained ones do."""
    import segue  # noqa: F401 - chooses the backend
    from segue.artifact import Run, write_run
    from segue.backend import load_keras
    from segue.config import Config
    from segue.data.vocabulary import Vocabulary

    load_keras()
    from segue.model.sequence_model import build_model
    from segue.model.weights import weights_of

    settings = [f"max_length={LENGTH}", f"width={WIDTH}", f"num_blocks={BLOCKS}"]
    config = Config().with_settings([*settings, f"seed={seed}"])
    model = build_model(ITEMS, config)
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
        while True:
            try:
                post(port, RECOMMEND, {"history": [1]})
                break
            except OSError:
                if server.poll() is not None:
                    raise SystemExit(
                        f"{' '.join(command)} ended with {server.returncode}"
                    ) from None
                time.sleep(0.5)
        yield server.pid
    finally:
        # Whoever serves the plain way may still be answering what wrk no longer waits for.
        server.kill()
        server.wait()


def post(port: int, path: str, body: object = None) -> Any:
    """The answer to one request."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, JSON, method="POST")
    with urllib.request.urlopen(asked, timeout=120) as answer:
        return json.loads(answer.read())


def load(port: int, connections: int, seconds: float, script: Path) -> dict[str, float]:
    """Requests per second, latencies in ms, and answers that were not 2xx."""
    length = f"-d{max(1, round(seconds))}s"  # wrk takes whole seconds
    command = ["wrk", "-t1", f"-c{connections}", length, "--latency", "-s", str(script)]
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
    as_told = re.search(r"refused by 503 with Retry-After: (\d+)", text)
    assert rate, text
    return {
        "per_second": float(rate[1]),
        "p50_ms": percentile("50"),
        "p99_ms": percentile("99"),
        "refused": int(failed[1]) if failed else 0,
        "refused_as_told": int(as_told[1]) if as_told else 0,
    }


def past_saturation(port: int, seconds: float, script: Path) -> dict[str, float]:
    """What becomes of more requests than the queue takes."""
    counting = script.with_name("counting.lua")
    counting.write_text(script.read_text() + COUNTING)
    return load(port, TOO_MANY, seconds, counting)


def memory(port: int, pid: int, requests: int, script: Path) -> dict[str, float]:
    """Memory after 1,000 requests, and after all of them."""
    sizes = {}
    for wanted in (1_000, requests):
        while (done := answered(port)) < wanted:
            rate = load(port, 32, 1, script)["per_second"]
            load(port, 32, max(1.0, (wanted - done) / rate - 1), script)
        sizes[f"mb_after_{wanted}"] = resident_mb(pid)
    return sizes | {"requests": answered(port)}


def answered(port: int) -> int:
    """How many recommendations the server has given."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(
        rf'segue_requests_total{{operation="POST {RECOMMEND}",status="200"}} (\S+)', text
    )
    return int(float(found[1])) if found else 0


def resident_mb(pid: int) -> float:
    """Memory of a process that is in use."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def reloading(port: int, link: Path, runs: list[Path], seconds: float) -> dict[str, int]:
    """Load a server, and have it load another run every second; what went wrong."""
    histories = [{"history": [each], "return": ["score"]} for each in range(1, 9)]
    body = json.dumps({"requests": histories}).encode()
    outcomes: list[tuple[int, Any]] = []
    is_over = threading.Event()

    def ask() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not is_over.is_set():
            client.request("POST", f"{RECOMMEND}:batch", body, JSON)
            answer = client.getresponse()
            outcomes.append((answer.status, json.loads(answer.read())))

    reloads = 0
    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        ends = time.monotonic() + seconds
        while (began := time.monotonic()) < ends:
            reloads += 1
            point(link, runs[reloads % 2])
            post(port, "/v1/admin/reload")
            time.sleep(max(0.0, began + 1 - time.monotonic()))
        is_over.set()
        for each in asking:
            each.result()
    best: dict[str, list[float]] = {}
    mixed = 0
    for _, document in (each for each in outcomes if each[0] == 200):
        scores = [each["items"][0]["score"] for each in document["results"]]
        known = best.setdefault(document["model_version"], scores)
        versions = {each["model_version"] for each in document["results"]}
        is_whole = versions == {document["model_version"]} and np.allclose(scores, known, atol=1e-4)
        mixed += not is_whole
    failed = sum(status != 200 for status, _ in outcomes)
    return {
        "reloads": reloads,
        "answers": len(outcomes),
        "failed": failed,
        "mixed": mixed,
        "models": len(best),
    }


def point(link: Path, run: Path) -> None:
    """Have a link lead to a run, at once."""
    draft = link.with_name("draft")
    draft.symlink_to(run)
    draft.replace(link)


def main() -> int:
    """Serve the run in both ways, load them in turn, report; 1 where a claim fails."""
    parser = argparse.ArgumentParser(description="Requests a second and latencies of two servers.")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=100_000, help="for memory; 0: not seen")
    parser.add_argument("--reload-seconds", type=float, default=60, help="0: not seen")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        runs = [place / "run", place / "other"]
        for seed, run in enumerate(runs):
            make_run(run, seed)
        script = write_script(place)
        rows, past = compare(runs[0], script, arguments.seconds, arguments.rounds)
        sizes, reloads = {}, {}
        if arguments.requests:
            with serving(segue_command(runs[0], 8803), 8803) as pid:
                sizes = memory(8803, pid, arguments.requests, script)
        if arguments.reload_seconds:
            point(place / "link", runs[0])
            with serving(segue_command(place / "link", 8804), 8804):
                reloads = reloading(8804, place / "link", runs, arguments.reload_seconds)
    return 0 if report(rows, past, sizes, reloads) else 1


def write_script(place: Path) -> Path:
    """What wrk sends: histories of full length."""
    rng = np.random.default_rng(0)
    bodies = [
        json.dumps({"history": rng.integers(1, ITEMS + 1, LENGTH).tolist(), "k": 10})
        for _ in range(BODIES)
    ]
    (place / "bodies").write_text("\n".join(bodies))
    script = place / "load.lua"
    script.write_text(SCRIPT % (place / "bodies"))
    return script


def segue_command(run: Path, port: int) -> list[str]:
    """How segue is started, as anyone would."""
    return [sys.executable, "-m", "segue", "serve", str(run), "--port", str(port)]


def compare(
    run: Path, script: Path, seconds: float, rounds: int
) -> tuple[dict[tuple[str, int], list[dict[str, float]]], dict[str, float]]:
    """Both servers under all loads, in turn; then segue's under too much."""
    plain_command = [sys.executable, __file__, "--plain", str(run), "8801"]
    ports = {"plain": 8801, "segue": 8802}
    rows: dict[tuple[str, int], list[dict[str, float]]] = {}
    with serving(plain_command, 8801), serving(segue_command(run, 8802), 8802):
        for port in ports.values():
            load(port, 32, 2, script)
        for _ in range(rounds):
            for connections in CONNECTIONS:
                for name, port in ports.items():
                    measured = load(port, connections, seconds, script)
                    rows.setdefault((name, connections), []).append(measured)
                    print(f"{name}, {connections}: {measured}", file=sys.stderr, flush=True)
        return rows, past_saturation(8802, seconds, script)


def report(
    rows: dict[tuple[str, int], list[dict[str, float]]],
    past: dict[str, float],
    sizes: dict[str, float],
    reloads: dict[str, int],
) -> bool:
    """Print a table and one line of JSON; whether the claims hold that were looked at."""
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
    holds = {
        "throughput": throughput >= THROUGHPUT,
        "p50": p50 <= P50,
        "p99": p99 <= P99,
        "refusals": 0 < past["refused"] == past["refused_as_told"],
    }
    if sizes:
        before, after, _ = sizes.values()
        holds["memory"] = after <= GROWTH * before
    if reloads:
        holds["reloads"] = reloads["failed"] == reloads["mixed"] == 0 and reloads["models"] == 2
    line = {
        "throughput_ratio_32": throughput,
        "p50_ratio_1": p50,
        "p99_ratio_32": p99,
        "holds": holds,
        "past_saturation": past,
        "memory": sizes,
        "reloads": reloads,
        "rows": {f"{name} {connections}": row for (name, connections), row in medians.items()},
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(line))
    return all(holds.values())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        plain()
    else:
        sys.exit(main())
