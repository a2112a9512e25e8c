"""Images in prompts over the engine, token by token against transformers' own `generate`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import torch
from image_folders import encoded, picture
from PIL import Image
from real_engine import DrivenEngine, Result, submit
from vision_folders import KINDS, ROWS_PER_TILE, Reference, make_vision_model

from trivet.backends.api import Sampling
from trivet.backends.llm.engine import assemble, image_desk
from trivet.backends.llm.engine.embeddings import FIRST_ID, Embeddings
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import Abort, Quit, Submit, SubmittedImage
from trivet.backends.llm.settings import EngineSettings

NUM_NEW = 6
TOLERANCE = 1e-3
GREEDY = Sampling(max_tokens=NUM_NEW, temperature=0.0, ignore_eos=True, logprobs=1)
IMAGE_TOKEN = 259
BLUE = encoded(picture(70, 40, seed=1))
RED = encoded(picture(40, 30, seed=4), "JPEG")
WHOLE = encoded(picture(30, 30, seed=2), "WEBP", lossless=True)
"""Each is cut into four tiles, which are looked at with the whole."""
ON_ITS_SIDE = Image.Exif()
ON_ITS_SIDE[0x0112] = 6


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation and what transformers makes of it."""

    prompt: list[int]
    files: tuple[bytes, ...]
    tokens: list[int]
    logprobs: list[float]

    def submit(self, name: str, sampling: Sampling = GREEDY, salt: str = "") -> Submit:
        images = [
            SubmittedImage(blake2b(file, digest_size=16).digest(), 5 * ROWS_PER_TILE, "there", file)
            for file in self.files
        ]
        made = submit(name, self.prompt, sampling)
        return replace(made, images=images, cache_salt=salt)

    def check(self, result: Result) -> None:
        assert not result.error, result.error
        assert result.tokens == self.tokens
        found = torch.tensor([each[1] for each in result.logprobs])
        assert torch.allclose(found, torch.tensor(self.logprobs), atol=TOLERANCE)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vision_model(tmp_path_factory.mktemp("vision"), request.param)


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vision_model(tmp_path_factory.mktemp("vision"))


@cache
def cases(folder: Path) -> dict[str, Case]:
    """One image, two in one message, one in each of two turns, and none."""
    reference = Reference(folder)
    image = {"type": "image"}

    def case(files: tuple[bytes, ...], *messages: Sequence[Any]) -> Case:
        roles = ("user", "assistant", "user")
        conversation = [
            {
                "role": role,
                "content": [
                    {"type": "text", "text": part} if isinstance(part, str) else part
                    for part in parts
                ],
            }
            for role, parts in zip(roles, messages, strict=False)
        ]
        prompt, tokens, logprobs = reference.generate(conversation, files, NUM_NEW)
        return Case(prompt, files, tokens, logprobs)

    return {
        "one": case((BLUE,), (image, "What is this?")),
        "other": case((RED,), (image, "What is this?")),
        "two": case((BLUE, RED), ("From ", image, " to ", image, "?")),
        "turns": case((BLUE, WHOLE), (image, "What?"), ("A wave.",), (image, "And this?")),
        "text": case((), ("What is a trivet? It is short.",)),
    }


def drive(folder: Path, **settings: Any) -> DrivenEngine:
    given: dict[str, Any] = {
        "dtype": "float32", "num_threads": 1, "kv_cache_bytes": 1 << 20, "block_size": 4,
        "max_model_len": 256, **settings,
    }  # fmt: skip
    driven = DrivenEngine()
    driven.engine, _ = assemble.make_engine(EngineSettings(str(folder), **given), driven.send)
    return driven


def embeddings_of(driven: DrivenEngine) -> Embeddings:
    desk = driven.engine._intake._images
    assert desk is not None
    return desk._embeddings


def run(driven: DrivenEngine, named: dict[str, Case]) -> dict[str, Result]:
    return driven.run([case.submit(name) for name, case in named.items()])


def test_each_conversation_alone_is_as_in_transformers(folder: Path) -> None:
    driven = drive(folder, prefix_caching=False)

    for name, case in cases(folder).items():
        case.check(run(driven, {name: case})[name])

    assert embeddings_of(driven).num_leased == 0


def test_equal_texts_with_other_images_have_other_answers(smolvlm: Path) -> None:
    """Or the comparisons would show nothing."""
    one, other = cases(smolvlm)["one"], cases(smolvlm)["other"]

    assert one.prompt == other.prompt
    assert one.tokens != other.tokens or one.logprobs != pytest.approx(other.logprobs)


@pytest.mark.parametrize("prefix_caching", [False, True])
@pytest.mark.parametrize("max_batched_tokens", [7, 64, 512])
def test_batched_and_in_chunks_they_are_the_same(
    smolvlm: Path, max_batched_tokens: int, prefix_caching: bool
) -> None:
    driven = drive(
        smolvlm, max_batched_tokens=max_batched_tokens, prefix_caching=prefix_caching,
        max_num_seqs=8,
    )  # fmt: skip
    known = cases(smolvlm)

    for _ in range(2):
        results = run(driven, known)
        for name, case in known.items():
            case.check(results[name])


def test_the_same_image_is_found_in_the_prefix_cache_and_another_is_not(smolvlm: Path) -> None:
    driven = drive(smolvlm)
    one, other, turns = (cases(smolvlm)[name] for name in ("one", "other", "turns"))

    first = run(driven, {"one": one})["one"]
    again = run(driven, {"one": one})["one"]
    with_another = run(driven, {"other": other})["other"]
    longer = run(driven, {"turns": turns})["turns"]

    assert first.num_cached == 0
    assert again.num_cached > len(one.prompt) - 8
    start = one.prompt.index(IMAGE_TOKEN)
    assert with_another.num_cached <= start
    assert longer.num_cached > start + ROWS_PER_TILE
    for case, result in ((one, again), (other, with_another), (turns, longer)):
        case.check(result)


def test_tenants_share_no_image(smolvlm: Path) -> None:
    driven = drive(smolvlm)
    one = cases(smolvlm)["one"]
    seen = counting_looks(driven)
    driven.run([one.submit("a", salt="one")])
    driven.run([one.submit("b", salt="one")])
    assert len(seen) == 5

    result = driven.run([one.submit("c", salt="other")])["c"]

    assert len(seen) == 10
    assert result.num_cached == 0
    one.check(result)


def counting_looks(driven: DrivenEngine) -> list[int]:
    """Of tiles, from now on."""
    desk = driven.engine._intake._images
    assert desk is not None
    seen: list[int] = []
    look: Callable[..., Any] = desk._sight.look

    def counted(pixels: Any, first: int) -> Any:
        seen.append(first)
        return look(pixels, first)

    desk._sight.look = counted  # type: ignore[method-assign]
    return seen


def test_an_image_of_several_requests_is_looked_at_once(smolvlm: Path) -> None:
    driven = drive(smolvlm, prefix_caching=False)
    seen = counting_looks(driven)
    one = cases(smolvlm)["one"]

    results = driven.run([one.submit(str(index)) for index in range(4)])

    assert seen == [0, 1, 2, 3, 4]
    for result in results.values():
        one.check(result)


def test_preempted_requests_have_their_images_still(smolvlm: Path) -> None:
    # Two layers of two times 16 numbers a token: 36 blocks of 4 tokens.
    driven = drive(smolvlm, kv_cache_bytes=36 * 4 * 2 * 2 * 16 * 4, max_model_len=140)
    seen = counting_looks(driven)
    long = replace(GREEDY, max_tokens=40)
    two, one = cases(smolvlm)["one"], cases(smolvlm)["other"]

    alone = [driven.run([case.submit("x", long)])["x"].tokens for case in (two, one)]
    num_seen = len(seen)
    results = driven.run([two.submit("a", long, "s"), one.submit("b", long, "s")])

    assert driven.preempted
    assert [results["a"].tokens, results["b"].tokens] == alone
    assert len(seen) == num_seen + 10
    assert embeddings_of(driven).num_leased == 0


def test_more_images_than_there_is_room_for_wait(smolvlm: Path) -> None:
    driven = drive(smolvlm, kv_cache_bytes=36 * 4 * 2 * 2 * 16 * 4, max_model_len=140)
    embeddings = embeddings_of(driven)
    embeddings._max_rows = 25
    one, other = cases(smolvlm)["one"], cases(smolvlm)["other"]

    results = driven.run([one.submit("a"), other.submit("b"), one.submit("c"), other.submit("d")])

    for name, case in (("a", one), ("b", other), ("c", one), ("d", other)):
        case.check(results[name])
    assert embeddings.num_rows <= 25


def test_prompts_with_images_are_scored_by_their_tokens(smolvlm: Path) -> None:
    driven = drive(smolvlm)
    one = cases(smolvlm)["one"]
    scoring = replace(GREEDY, prompt_logprobs=0, repetition_penalty=1.0)
    reference = Reference(smolvlm)
    inputs = reference.inputs(
        [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}],
            }
        ],
        one.files,
    )
    with torch.no_grad():
        wanted = torch.log_softmax(reference.model(**inputs).logits[0], -1)

    result = driven.run([one.submit("a", scoring)])["a"]

    assert result.prompt_logprobs is not None
    found = [(each[0], each[1]) for each in result.prompt_logprobs]
    assert [token for token, _ in found] == one.prompt[1:]
    rows = torch.tensor(one.prompt[1:])[:, None]
    expected = wanted[:-1].gather(1, rows)[:, 0]
    assert torch.allclose(torch.tensor([value for _, value in found]), expected, atol=TOLERANCE)


@pytest.mark.parametrize("when", ["waiting", "looked at", "running"])
def test_an_aborted_request_frees_its_images(smolvlm: Path, when: str) -> None:
    driven = drive(smolvlm, max_batched_tokens=8)
    engine, embeddings = driven.engine, embeddings_of(driven)
    driven._num_open = 1
    engine.inbox.put(cases(smolvlm)["two"].submit("a", replace(GREEDY, max_tokens=50)))
    if when != "waiting":
        step_until(engine, lambda: bool(engine._intake._images._looking))  # type: ignore[union-attr]
    if when == "running":
        step_until(engine, lambda: bool(engine._generations))
    assert when == "waiting" or embeddings.num_leased == 40

    engine.inbox.put(Abort(["a"]))
    engine.inbox.put(Quit())
    engine.run()

    assert embeddings.num_leased == 0
    assert not engine._scheduler.has_work
    one = cases(smolvlm)["one"]
    one.check(run(driven, {"one": one})["one"])


def step_until(engine: Engine, is_reached: Callable[[], bool]) -> None:
    while not is_reached():
        engine._take_messages(wait=not engine.has_work)
        if engine.has_work and not is_reached():
            engine.step()


def test_an_image_that_cannot_be_processed_costs_its_requests_alone(smolvlm: Path) -> None:
    driven = drive(smolvlm)
    one, text = cases(smolvlm)["one"], cases(smolvlm)["text"]
    broken = one.submit("broken")
    broken = replace(broken, images=[broken.images[0]._replace(file=BLUE[:300], digest=b"b")])
    misfit = one.submit("misfit")
    misfit = replace(misfit, images=[misfit.images[0]._replace(num_tokens=8, digest=b"m")])

    results = driven.run([broken, misfit, one.submit("one"), text.submit("text")])

    assert results["broken"].error.startswith("there: the file cannot be decoded")
    assert "places for 20 tokens of images" in results["misfit"].error
    one.check(results["one"])
    text.check(results["text"])
    assert embeddings_of(driven).num_leased == 0


def test_a_step_that_fails_while_looking_costs_its_requests_alone(smolvlm: Path) -> None:
    driven = drive(smolvlm)
    desk = driven.engine._intake._images
    assert desk is not None
    look, calls = desk._sight.look, iter([None, RuntimeError("broken"), *[None] * 50])

    def failing(pixels: Any, first: int) -> Any:
        if error := next(calls):
            raise error
        return look(pixels, first)

    desk._sight.look = failing  # type: ignore[method-assign]
    one, other = cases(smolvlm)["one"], cases(smolvlm)["other"]

    results = driven.run([one.submit("a"), other.submit("b")])

    assert "the model failed while computing" in results["a"].error
    other.check(results["b"])
    one.check(run(driven, {"one": one})["one"])
    assert embeddings_of(driven).num_leased == 0


def test_files_that_wait_have_a_bound(smolvlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = drive(smolvlm)
    embeddings_of(driven)._max_rows = 25
    monkeypatch.setattr(image_desk, "MAX_WAITING_BYTES", len(BLUE) + len(RED))
    one, other = cases(smolvlm)["one"], cases(smolvlm)["other"]

    names = ("a", "b", "c", "d", "e")
    results = driven.run(
        [case.submit(name) for name, case in zip(names, [one, other, one, other, one], strict=True)]
    )

    refused = [name for name in names if "wait to be looked at" in results[name].error]
    assert refused
    assert results["a"].tokens == one.tokens
    assert all(results[name].tokens for name in names if name not in refused)


@pytest.mark.parametrize(
    "file",
    [
        encoded(picture(40, 30).convert("P")),
        encoded(picture(40, 30).convert("RGBA")),
        encoded(Image.new("I;16", (40, 30), 200)),
        encoded(picture(40, 30), "JPEG", exif=ON_ITS_SIDE),
        encoded(picture(40, 30), "WEBP", save_all=True, append_images=[picture(40, 30, seed=9)]),
    ],
    ids=["palette", "alpha", "16 bits", "turned", "animated"],
)
def test_odd_images_are_seen_as_transformers_sees_them(smolvlm: Path, file: bytes) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    made = Reference(smolvlm).generate([{"role": "user", "content": content}], [file], NUM_NEW)
    case = Case(made[0], (file,), made[1], made[2])

    case.check(shared(smolvlm).run([case.submit("a")])["a"])


@cache
def shared(folder: Path) -> DrivenEngine:
    return drive(folder)


def test_rows_are_found_by_their_ids() -> None:
    embeddings = Embeddings(100)
    images = [embeddings.lease(("", name), 3) for name in (b"a", b"b")]
    for value, image in enumerate(images):
        image.rows = torch.arange(6.0).view(3, 2) + 10 * value
    ids = [*images[1].ids(), *images[0].ids()][1:5]

    found = embeddings.rows(torch.tensor(ids).numpy())

    assert found[:, 0].tolist() == [12.0, 14.0, 0.0, 2.0]
    assert min(ids) >= FIRST_ID


def test_an_image_that_was_forgotten_keeps_its_ids() -> None:
    embeddings = Embeddings(3)
    first = embeddings.lease(("", b"a"), 3)
    first.rows = torch.zeros(3, 1)
    embeddings.release(first)
    assert embeddings.num_rows == 3

    other = embeddings.lease(("", b"b"), 3)
    again = embeddings.lease(("", b"a"), 3)

    assert again is not first
    assert again.ids() == first.ids() != other.ids()
