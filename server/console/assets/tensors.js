// From what somebody typed, drew or chose to tensors, and to the request that carries them.

export const SIZES = {
  BOOL: 1, INT8: 1, UINT8: 1, INT16: 2, UINT16: 2, FP16: 2, BF16: 2, INT32: 4, UINT32: 4, FP32: 4,
  INT64: 8, UINT64: 8, FP64: 8,
};
const WHOLE = /^[-+]?\d+$/;
const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$/;
const TRUTHS = { true: "true", false: "false", 1: "true", 0: "false" };

export const product = (dims) => dims.reduce((made, each) => made * each, 1);

/** The shape for so many values: what is free in `dims` is filled from behind. */
export function fittingShape(dims, count) {
  const free = dims.filter((each) => each < 0).length;
  if (!free) return dims;
  const known = product(dims.filter((each) => each >= 0)) || 1;
  const rest = Math.max(1, Math.floor(count / known));
  let seen = 0;
  return dims.map((each) => {
    if (each >= 0) return each;
    seen += 1;
    return seen === free ? rest : 1;
  });
}

export function parsedShape(text) {
  const parts = text.replace(/[[\]()]/g, " ").split(/[\s,x]+/).filter(Boolean);
  if (!parts.every((each) => /^\d+$/.test(each))) {
    throw new Error(`"${text}" is no shape; write whole numbers such as 1, 16`);
  }
  return parts.map(Number);
}

/** Values as the texts that JSON has for them, so that no digit of a long number is lost. */
export function parsedValues(text, datatype) {
  const words = text.replace(/[[\]]/g, " ").split(/[\s,;]+/).filter(Boolean);
  return words.map((word) => {
    if (datatype === "BOOL") {
      const truth = TRUTHS[word.toLowerCase()];
      if (!truth) throw new Error(`"${word}" is neither true nor false`);
      return truth;
    }
    const pattern = /^(FP|BF)/.test(datatype) ? NUMBER : WHOLE;
    if (!pattern.test(word)) throw new Error(`"${word}" is no number of type ${datatype}`);
    return word.replace(/^\+/, "").replace(/^(-?)0+(?=\d)/, "$1").replace(/^(-?)\./, "$10.").replace(/\.(?=$|[eE])/, "");
  });
}

/** How an image lies in a tensor of these dims, without the batch; null: it cannot. */
export function imageLayout(dims) {
  const few = (each) => each === 1 || each === 3 || each === 4;
  const side = (each, usual) => (each > 0 ? each : usual);
  const last = dims.slice(dims.length > 3 ? 1 : 0);
  if (last.length === 2 && (last[0] < 0 || last[0] >= 4) && (last[1] < 0 || last[1] >= 4)) {
    return { order: "HW", channels: 1, height: side(last[0], 224), width: side(last[1], 224) };
  }
  if (last.length !== 3) return null;
  if (few(last[0]) || (last[0] < 0 && !few(last[2]))) {
    return { order: "CHW", channels: side(last[0], 3), height: side(last[1], 224), width: side(last[2], 224) };
  }
  if (!few(last[2])) return null;
  return { order: "HWC", channels: last[2], height: side(last[0], 224), width: side(last[1], 224) };
}

export const SCALES = {
  "0 to 1": (value) => value / 255,
  "0 to 255": (value) => value,
  "-1 to 1": (value) => value / 127.5 - 1,
  ImageNet: (value, channel) =>
    (value / 255 - [0.485, 0.456, 0.406][channel % 3]) / [0.229, 0.224, 0.225][channel % 3],
};

/** The numbers of an image in a tensor's order, drawn to its size. */
export function drawnImage(image, { order, channels, height, width }, scale) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const made = new Float64Array(height * width * channels);
  for (let at = 0; at < height * width; at += 1) {
    for (let channel = 0; channel < channels; channel += 1) {
      const gray = 0.299 * data[at * 4] + 0.587 * data[at * 4 + 1] + 0.114 * data[at * 4 + 2];
      const value = scale(channels === 1 ? gray : data[at * 4 + channel], channel);
      made[order === "CHW" ? channel * height * width + at : at * channels + channel] = value;
    }
  }
  return made;
}

function half(value) {
  const bits = new Uint32Array(new Float32Array([value]).buffer)[0];
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 0xff) - 112;
  if (exponent >= 31) return sign | 0x7c00 | ((bits & 0x7fffffff) > 0x7f800000 ? 0x200 : 0);
  if (exponent > 0) return sign | ((((exponent << 23) | (bits & 0x7fffff)) + 0x1000) >>> 13);
  if (exponent < -10) return sign;
  const mantissa = (bits & 0x7fffff) | 0x800000;
  return sign | ((mantissa + (1 << (13 - exponent))) >>> (14 - exponent));
}

/** Numbers as a tensor's bytes. */
export function packed(values, datatype) {
  const view = new DataView(new ArrayBuffer(values.length * SIZES[datatype]));
  const put = {
    BOOL: (at, value) => view.setUint8(at, value ? 1 : 0),
    INT8: (at, value) => view.setInt8(at, Math.round(value)),
    UINT8: (at, value) => view.setUint8(at, Math.max(0, Math.min(255, Math.round(value)))),
    INT16: (at, value) => view.setInt16(at, Math.round(value), true),
    UINT16: (at, value) => view.setUint16(at, Math.round(value), true),
    INT32: (at, value) => view.setInt32(at, Math.round(value), true),
    UINT32: (at, value) => view.setUint32(at, Math.round(value), true),
    INT64: (at, value) => view.setBigInt64(at, BigInt(Math.round(value)), true),
    UINT64: (at, value) => view.setBigUint64(at, BigInt(Math.round(value)), true),
    FP16: (at, value) => view.setUint16(at, half(value), true),
    BF16: (at, value) => view.setUint16(
      at, new Uint32Array(new Float32Array([value]).buffer)[0] >>> 16, true),
    FP32: (at, value) => view.setFloat32(at, value, true),
    FP64: (at, value) => view.setFloat64(at, value, true),
  }[datatype];
  values.forEach((value, at) => put(at * SIZES[datatype], value));
  return new Uint8Array(view.buffer);
}

/** Bytes as the one element of a tensor of BYTES. */
export function element(content) {
  const made = new Uint8Array(4 + content.length);
  new DataView(made.buffer).setUint32(0, content.length, true);
  made.set(content, 4);
  return made;
}

/** The request of tensors. Each has name, datatype and shape, and `json`, its values as JSON, or
 * `bytes`. With bytes in any the body is binary: JSON, and behind it the bytes. */
export function request(tensors, parameters) {
  const isBinary = tensors.some((each) => each.bytes);
  const inputs = tensors.map(({ name, datatype, shape, json, bytes }) => {
    const head = `{"name":${JSON.stringify(name)},"datatype":"${datatype}","shape":${JSON.stringify(shape)}`;
    return bytes ? `${head},"parameters":{"binary_data_size":${bytes.length}}}` : `${head},"data":${json}}`;
  });
  const more = parameters ? `,"parameters":${parameters}` : "";
  const json = `{"inputs":[${inputs.join(",")}]${more}}`;
  if (!isBinary) return { json, body: json, headers: { "Content-Type": "application/json" } };
  const head = new TextEncoder().encode(json);
  const parts = [head, ...tensors.filter((each) => each.bytes).map((each) => each.bytes)];
  const body = new Uint8Array(parts.reduce((size, each) => size + each.length, 0));
  let at = 0;
  for (const part of parts) {
    body.set(part, at);
    at += part.length;
  }
  return {
    json,
    body,
    headers: {
      "Content-Type": "application/octet-stream",
      "Inference-Header-Content-Length": String(head.length),
    },
  };
}

/** The same request in the words of other programs. The key is left to the environment. */
export function spelled({ json, body, headers }, path, hasKey) {
  const url = `${location.origin}${path}`;
  const isBinary = typeof body !== "string";
  const all = { ...headers };
  const quoted = `'${json.replace(/'/g, "'\\''")}'`;
  const given = Object.entries(all).map(([name, value]) => ` \\\n  -H '${name}: ${value}'`).join("");
  const curlKey = hasKey ? ' \\\n  -H "Authorization: Bearer $TRIVET_KEY"' : "";
  const curl = `curl '${url}'${curlKey}${given} \\\n  --data-binary ${isBinary ? "@request.bin" : quoted}`;
  const lines = Object.entries(all).map(([name, value]) => `    "${name}": "${value}",`);
  const pythonKey = '    "Authorization": f"Bearer {os.environ[\'TRIVET_KEY\']}",';
  const python = [
    "import json", ...(hasKey ? ["import os"] : []), "import urllib.request", "",
    isBinary ? 'body = open("request.bin", "rb").read()' : `body = ${JSON.stringify(json)}.encode()`,
    "headers = {", ...lines, ...(hasKey ? [pythonKey] : []), "}",
    `request = urllib.request.Request(${JSON.stringify(url)}, body, headers)`,
    "with urllib.request.urlopen(request) as answer:", "    print(json.load(answer))",
  ].join("\n");
  const scriptKey = "    Authorization: `Bearer ${process.env.TRIVET_KEY}`,";
  const script = [
    ...(isBinary ? ['import { readFile } from "node:fs/promises";', ""] : []),
    `const answer = await fetch(${JSON.stringify(url)}, {`, '  method: "POST",', "  headers: {",
    ...Object.entries(all).map(([name, value]) => `    "${name}": "${value}",`),
    ...(hasKey ? [scriptKey] : []), "  },",
    `  body: ${isBinary ? 'await readFile("request.bin")' : JSON.stringify(json)},`, "});",
    "console.log(JSON.stringify(await answer.json(), null, 2));",
  ].join("\n");
  return { curl, Python: python, JavaScript: script };
}
