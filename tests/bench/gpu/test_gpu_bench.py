"""The bench of a GPU, as far as a processor can follow it: a tiny model takes all the ways."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.figures import Row
from bench.gpu import __main__ as bench_gpu
from bench.gpu import peers
from bench.gpu.correctness import logits_row, tokens_row
from bench.gpu.decode import decode_rows, step_s
from bench.gpu.llama import LLAMA, SETTINGS, Frames, RandomLlama
from bench.gpu.packed import packed_rows
from bench.gpu.roofline import Numbers, Rates
from bench.gpu.throughput import throughput_rows

ROOT = Path(__file__).parents[3]
TINY = replace(
    LLAMA, num_layers=2, hidden_size=64, num_heads=4, num_kv_heads=2, head_dim=16,
    intermediate_size=96, vocabulary_size=200, max_positions=512, rope_scaling=None,
)  # fmt: skip
RATES = Rates(1e9, 1e10)


@pytest.fixture(scope="module")
def tiny() -> RandomLlama:
    settings = replace(
        SETTINGS, device="cpu", dtype="float32", max_model_len=200, max_num_seqs=8,
        max_batched_tokens=256, kv_cache_bytes=1 << 22,
    )  # fmt: skip
    return RandomLlama(TINY, settings)


def test_without_a_gpu_it_says_so_and_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("bench.gpu: skipped, PyTorch ")
    assert "sees no GPU" in done.stdout


def test_a_decode_step_is_the_time_between_full_frames() -> None:
    frames = Frames(times_s=[0.0, 9.0, 10.0, 11.0, 13.0, 99.0], counts=[1, 2, 2, 2, 2, 1])
    assert step_s(frames, 2) == 1.0
    with pytest.raises(AssertionError, match="never ran together"):
        step_s(frames, 3)


def test_decode_steps_are_held_against_the_floor(tiny: RandomLlama) -> None:
    share, ahead = decode_rows(tiny, RATES, Numbers(), batches=(4,), context=40, num_steps=10)
    assert share.cell == "decode float32, batch 4, context 40: share of the floor"
    assert (share.bar, share.unit) == (0.5, "tokens/s")
    assert ahead.ours == share.ours > 0
    floor_s = 4 / share.bare
    body = 2 * (64 * (8 * 16 + 4 * 16) + 3 * 64 * 96)
    assert floor_s == pytest.approx(
        (2 * body + 2 * 64 * 200) / 1e9 + 4 * 40 * 2 * 2 * 2 * 16 * 2 / 1e9
    )


def test_whole_requests_are_held_against_the_ceiling(tiny: RandomLlama) -> None:
    (row,) = throughput_rows(tiny, RATES, Numbers(), ((20, 12),), num_requests=5)
    assert row.cell == "5 requests float32, 20/12: share of the ceiling"
    assert row.ours > 0
    assert row.bare > 0


def test_overlapping_steps_give_the_same_tokens(tiny: RandomLlama) -> None:
    row = tokens_row(tiny, 5)
    assert (row.ours, row.verdict) == (0, "pass")


def test_the_logits_are_right_on_a_processor_too() -> None:
    row = logits_row(replace(TINY, vocabulary_size=4096), "cpu")
    assert row.verdict == "pass"
    assert row.ours > 0


@pytest.mark.slow
def test_transformers_is_asked_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "LLAMA", TINY)
    figure, reason = peers.ask("transformers", sys.executable, (3, 8, 4))
    assert reason == ""
    assert figure > 0


def test_a_peer_that_is_not_there_is_skipped_with_its_word() -> None:
    assert peers.ask("vllm", "/nowhere/python")[1].startswith("[Errno 2]")
    figure, reason = peers.ask("vllm", sys.executable)
    assert (figure, reason) == (0.0, "ModuleNotFoundError: No module named 'vllm'")
    assert peers.peers({}) == {"transformers": sys.executable}
    assert peers.peers({"TRIVET_BENCH_VLLM": "/a/python"})["vllm"] == "/a/python"


def test_packed_weights_are_held_against_plain_ones() -> None:
    settings = replace(
        SETTINGS, device="cpu", dtype="float32", max_model_len=64, max_num_seqs=4,
        max_batched_tokens=64, kv_cache_bytes=1 << 21,
    )  # fmt: skip
    four, eight = packed_rows(TINY, settings, batch=2, context=20, num_steps=8)
    assert four.cell == "decode int4, batch 2, context 20: next to float32"
    assert (four.bar, eight.bar) == (2.0, None)
    assert four.bare == eight.bare > 0


def fake_subject(folder: Path, name: str, text: str) -> bench_gpu.Subject:
    (folder / f"{name}.py").write_text(text)
    return bench_gpu.Subject(name, name, needs_s=1)


@pytest.mark.slow
def test_a_subject_that_fails_leaves_the_others_standing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = "Row('a', 's', 2.0, 1.0, 0.5, note='n')"
    subjects = (
        fake_subject(tmp_path, "good", f"from bench.figures import Row\ndef run(): return [{row}]"),
        fake_subject(tmp_path, "bad", "import os\ndef run(): os._exit(3)"),
        fake_subject(tmp_path, "slow", "import time\ndef run(): time.sleep(60)"),
        replace(fake_subject(tmp_path, "late", ""), needs_s=1e6),
    )
    monkeypatch.setattr(bench_gpu, "SUBJECTS", subjects)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    rows, failed = bench_gpu.measure(None, 8.0)
    assert rows == [Row("a", "s", 2.0, 1.0, 0.5, note="n")]
    assert failed == {
        "bad": "ended with code 3; what it said stands above",
        "slow": "not done within 8 s (--budget)",
        "late": "not begun, 8 s are left (--budget)",
    }


@pytest.mark.parametrize("bar", [0.5, 3.0])
def test_the_table_comes_last_and_a_miss_is_told_by_the_exit_code(
    bar: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row("tokens of a step", "tokens/s", 2.0, 1.0, bar)]
    monkeypatch.setattr(bench_gpu, "why_skipped", lambda: "")
    monkeypatch.setattr(bench_gpu, "device_facts", lambda: {"device": "none"})
    monkeypatch.setattr(bench_gpu, "measure", lambda only, deadline_s: (rows, {}))
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "--json", str(tmp_path / "found.json")])
    with pytest.raises(SystemExit) as ended:
        bench_gpu.main()
    assert ended.value.code == (bar == 3.0)
    assert "tokens of a step" in capsys.readouterr().out
    found: Any = json.loads((tmp_path / "found.json").read_text())
    assert found["cells"][0]["verdict"] == ("MISS" if bar == 3.0 else "pass")
    assert found["environment"]["device"] == "none"
