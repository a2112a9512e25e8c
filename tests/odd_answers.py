"""Python models that answer with what nobody can send: each object in each place."""

ODD = """
import itertools, sys

HALF = "\\\\ud83d"


class Rude:
    def __str__(self):
        raise RuntimeError("ask me not")
    __repr__ = __len__ = __bool__ = __iter__ = __str__


class Lying(str):
    def __str__(self):
        return 5
    encode = None


class Counting(dict):
    def items(self):
        raise KeyError("secret")


OBJECTS = [
    HALF, "x" + HALF + HALF, "\\x00", b"\\xff\\xfe", None, 2**70, -(10**5000), float("nan"),
    float("inf"), 1j, object(), Rude(), Rude, Lying("x"), Counting({"a": 1}), [HALF],
    {HALF: HALF}, {"k": HALF}, {"k": 2**64}, {"k": float("nan")}, {"k": object()}, {"k": [1]},
    {1: 2}, {"k": None}, {"k": np.float32(1)}, {"k": np.int64(3)}, {"k": "y" * (2 << 20)},
    "z" * (20 << 20), [], (), set(), np.zeros((2, 2)), np.array(HALF),
    np.array([[HALF]], dtype=object), np.array([Rude()], dtype=object), np.array([1j]),
    np.zeros(3, "M8[s]"), np.array([(1, 2)], "i4,i4"), np.zeros(0, object), range(3), lambda: 1,
    sys, Exception(HALF), pb_utils.TritonError(HALF), pb_utils.TritonError(Rude()),
    pb_utils.TritonError("x", []), pb_utils.TritonError("x", HALF), pb_utils.TritonError(5, 99),
]


def fine(value=1):
    array = np.array([str(value)], dtype=object)
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])


def text(given):
    array = np.empty(1, dtype=object)
    array[0] = given
    return array


def as_element(given):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text(given))])


def as_array(given):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", given)])


def as_name(given):
    return pb_utils.InferenceResponse([pb_utils.Tensor(given, np.zeros(1))])


def as_outputs(given):
    return pb_utils.InferenceResponse(given)


def as_error(given):
    return pb_utils.InferenceResponse(error=given)


def as_error_text(given):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(given))


def as_parameters(given):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text("x"))], parameters=given)


def as_parameter(given):
    return as_parameters({"k": given})


def as_response(given):
    return given


def as_raised(given):
    raise pb_utils.TritonModelException(given)


PLACES = [as_element, as_array, as_name, as_outputs, as_error, as_error_text, as_parameters,
          as_parameter, as_response, as_raised]
CASES = list(itertools.product(PLACES, OBJECTS))


def answer(request):
    number = int(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0])
    if number < 0:
        return fine()
    make, given = CASES[number]
    return make(given)
"""
"""What is answered for the number in IN: the object of that number in the place of that number; for
a negative one, "1"."""
NUM_ODD = 10 * 48

PLAIN = (
    ODD
    + """
class TritonPythonModel:
    def execute(self, requests):
        return [answer(request) for request in requests]
"""
)
DECOUPLED = (
    ODD
    + """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            sender.send(answer(request), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
)
