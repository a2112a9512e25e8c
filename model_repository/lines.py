"""Pictures of lines of text, made of dots, upright and on their heads, and a golden set of them.

    python model_repository/lines.py localhost:8000

asks text_direction of a server on and on, as a client would.
"""

import http.client
import itertools
import json
import sys
import time

import numpy as np

INPUT, OUTPUT = "x", "save_infer_model/scale_0.tmp_1"
PAUSE_S = 0.005
"""Between two requests of a client."""
WORDS = ("PARTY", "RAFT", "LEAFY", "FLEA")

# 5 x 7 dots a letter; none of them looks alike upside down.
LETTERS = {
    "A": ("01110", "10001", "10001", "11111", "10001", "10001", "10001"),
    "E": ("11111", "10000", "10000", "11110", "10000", "10000", "11111"),
    "F": ("11111", "10000", "10000", "11110", "10000", "10000", "10000"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "P": ("11110", "10001", "10001", "11110", "10000", "10000", "10000"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "T": ("11111", "00100", "00100", "00100", "00100", "00100", "00100"),
    "Y": ("10001", "10001", "01010", "00100", "00100", "00100", "00100"),
}


def line(word: str) -> np.ndarray:
    """The word in black on white, FP32 [3, 48, 192], values from -1 to 1."""
    gap = np.zeros((7, 1))
    rows = [np.array([[int(dot) for dot in row] for row in LETTERS[letter]]) for letter in word]
    dots = np.concatenate([part for row in rows for part in (row, gap)], axis=1)
    ink = np.kron(dots, np.ones((4, 4)))
    page = np.zeros((48, 192))
    top, left = (48 - ink.shape[0]) // 2, (192 - ink.shape[1]) // 2
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return np.stack([1 - 2 * page] * 3).astype(np.float32)


def turned(image: np.ndarray) -> np.ndarray:
    """By half a turn."""
    return np.ascontiguousarray(image[:, ::-1, ::-1])


def golden_set() -> str:
    """A case for each word as it is, and one for it on its head: the class is the angle."""
    cases = [
        case(f"{word} {angle}", image, number)
        for word in WORDS
        for number, (angle, image) in enumerate(((0, line(word)), (180, turned(line(word)))))
    ]
    return "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in cases)


def case(name: str, image: np.ndarray, number: int) -> dict:
    """A picture, and which class is to be the likeliest."""
    inputs = {INPUT: [image.astype(int).tolist()]}
    expect = {"match": "top_k", "output": OUTPUT, "k": 1, "value": number}
    return {"id": name, "inputs": inputs, "expect": expect}


def request(word: str) -> str:
    """A picture as KServe's JSON has it."""
    data = line(word).astype(int).ravel().tolist()
    tensor = {"name": INPUT, "datatype": "FP32", "shape": [1, 3, 48, 192], "data": data}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":"))


def ask(address: str) -> None:
    """One request after the other, until somebody ends it or one is not answered."""
    bodies = itertools.cycle([request(word) for word in WORDS])
    connection = http.client.HTTPConnection(address)
    for body in bodies:
        time.sleep(PAUSE_S)
        connection.request("POST", "/v2/models/text_direction/infer", body)
        answer = connection.getresponse()
        told = answer.read().decode()
        if answer.status != http.client.OK:
            sys.exit(f"status {answer.status}: {told}")


if __name__ == "__main__":
    ask(sys.argv[1])
