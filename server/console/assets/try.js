// A form for a model's inputs, typed as its signature is, and what it answers.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { ask, modelPath, send, state } from "./api.js";
import { useReadyNames } from "./models.js";
import {
  drawnImage, element, fittingShape, imageLayout, packed, parsedShape, parsedValues, product,
  request, SCALES, SIZES, spelled,
} from "./tensors.js";
import { Choice, CopyText, Entry, Failure, micros, ModelEntry, useAction, usePolled } from "./widgets.js";

const MOST_FILLED = 256;
const MOST_ROWS = 100;
const MOST_COLUMNS = 32;

export function Try({ argument }) {
  const names = useReadyNames();
  const choose = (name) => {
    if (name !== argument) location.hash = `#/try/${encodeURIComponent(name)}`;
  };
  const model = usePolled(
    async () => (argument ? { name: argument, ...(await ask(modelPath(argument))) } : null), 0, [argument]);
  const found = model.data?.name === argument || !argument ? model.data : null;
  return html`
    <div class="row"><${ModelEntry} id="try-model" names=${names} value=${argument} onChoose=${choose} /></div>
    ${!argument && html`<p>Choose a model that serves; its form comes below.</p>`}
    <${Failure} error=${model.error} />
    ${found && html`<${Form} key=${argument} name=${argument} metadata=${found} />`}
  `;
}

function Form({ name, metadata }) {
  const [fields, setFields] = useState(() => Object.fromEntries(metadata.inputs.map((each) => [each.name, empty(each)])));
  const [version, setVersion] = useState("");
  const [parameters, setParameters] = useState("");
  const [made, setMade] = useState(null);
  const action = useAction();
  const path = modelPath(name, version ? `/versions/${version}/infer` : "/infer");
  const submit = (event) => {
    event.preventDefault();
    action.run(async () => {
      setMade(null);
      const tensors = [];
      for (const input of metadata.inputs) {
        const field = fields[input.name];
        if (field.mode !== "none") tensors.push(await tensorOf(input, field));
      }
      const asked = request(tensors, checkedParameters(parameters));
      setMade({ asked, path });
      const started = performance.now();
      const answer = await send(path, { method: "POST", body: asked.body, headers: asked.headers });
      const document = JSON.parse(await answer.text(), wholeNumber);
      setMade({ asked, path, document, us: (performance.now() - started) * 1000 });
    });
  };
  const change = (input, what) =>
    setFields((before) => ({ ...before, [input]: { ...before[input], ...what } }));
  return html`
    <form onSubmit=${submit}>
      ${metadata.inputs.map((input, at) => html`<${Field}
        at=${at} input=${input} field=${fields[input.name]} onChange=${(what) => change(input.name, what)} />`)}
      <div class="row">
        <${Choice} id="try-version" label="Version" value=${version} onChoose=${setVersion}
          options=${[["", "whichever answers"], ...metadata.versions.map((each) => [each, each])]} />
        <${Entry} id="try-parameters" label="Parameters (JSON)" value=${parameters} onText=${setParameters} placeholder="{}" />
        <button type="submit" disabled=${action.isBusy}>Ask</button>
        <span class="note" role="status">${action.isBusy ? "Computing ..." : ""}</span>
      </div>
    </form>
    <${Failure} error=${action.error} />
    ${made?.document && html`<${Answer} made=${made} />`}
    ${made && html`<${Spelled} made=${made} />`}
  `;
}

/** A number with more digits than JavaScript's have: as the text that it came as. */
const wholeNumber = (_, value, context) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? context.source : value;

function empty(input) {
  const shape = fittingShape(input.shape, 1);
  const size = product(shape);
  const zeros = size <= MOST_FILLED ? Array(size).fill("0").join(", ") : "";
  const isText = input.datatype === "BYTES";
  return {
    mode: isText ? "text" : "numbers", text: isText ? "" : zeros, shape: shape.join(", "), file: null,
    scale: "0 to 1",
  };
}

function modesOf(input) {
  const modes = input.datatype === "BYTES"
    ? [["text", "text"], ["lines", "lines, one each"], ["json", "JSON"], ["file", "file"]]
    : [["numbers", "numbers"], ["json", "JSON"], ["file", "file of bytes"]];
  if (input.datatype !== "BYTES" && imageLayout(input.shape)) modes.splice(2, 0, ["image", "image"]);
  return [...modes, ["none", "leave out"]];
}

function Field({ at, input, field, onChange }) {
  const id = `input-${at}`;
  const random = () => {
    const size = product(parsedShape(field.shape));
    const draw = /^(FP|BF)/.test(input.datatype) ? () => Math.random().toFixed(4) : () => Math.floor(Math.random() * 10);
    const value = input.datatype === "BOOL" ? () => Math.random() < 0.5 : draw;
    onChange({ text: Array.from({ length: size }, value).join(", ") });
  };
  const isTyped = ["text", "lines", "json", "numbers"].includes(field.mode);
  const isFile = ["file", "image"].includes(field.mode);
  return html`
    <fieldset>
      <legend>${input.name} <span class="note">${input.datatype} [${input.shape.join(", ")}]</span></legend>
      <div class="row">
        <${Choice} id=${`${id}-mode`} label="As" value=${field.mode} options=${modesOf(input)} onChoose=${(mode) => onChange({ mode })} />
        ${field.mode !== "none" && html`<${Entry} id=${`${id}-shape`} label="Shape" value=${field.shape} onText=${(shape) => onChange({ shape })} />`}
        ${field.mode === "image" && html`<${Choice} id=${`${id}-scale`} label="Values" value=${field.scale}
          options=${Object.keys(SCALES)} onChoose=${(scale) => onChange({ scale })} />`}
        ${field.mode === "numbers" && html`<button type="button" class="small" onClick=${random}>Random</button>`}
      </div>
      ${isTyped && html`<label for=${id}>Values</label>
        <textarea id=${id} rows="3" value=${field.text} spellcheck="false" onInput=${(event) => onChange({ text: event.target.value })}></textarea>`}
      ${isFile && html`<label for=${id}>File</label>
        <input id=${id} type="file" accept=${field.mode === "image" ? "image/*" : undefined}
          onChange=${(event) => onChange({ file: event.target.files[0] || null })} />
        ${field.mode === "image" && field.file && html`<${Preview} file=${field.file} />`}`}
    </fieldset>
  `;
}

function Preview({ file }) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    const made = URL.createObjectURL(file);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [file]);
  return url && html`<img class="preview" src=${url} alt=${`Chosen image ${file.name}`} />`;
}

async function tensorOf(input, field) {
  const { name, datatype } = input;
  const given = parsedShape(field.shape);
  if (field.mode === "file" || field.mode === "image") {
    if (!field.file) throw new Error(`Choose a file for ${name}`);
    if (field.mode === "image") return { name, datatype, ...(await imageTensor(input, field)) };
    const content = new Uint8Array(await field.file.arrayBuffer());
    if (datatype === "BYTES") return { name, datatype, shape: ones(input.shape), bytes: element(content) };
    return { name, datatype, shape: shapeFor(input, given, content.length / SIZES[datatype]), bytes: content };
  }
  if (field.mode === "json") return { name, datatype, ...jsonTensor(input, field.text) };
  if (datatype === "BYTES") {
    const texts = field.mode === "lines" ? field.text.split("\n") : [field.text];
    return { name, datatype, shape: shapeFor(input, given, texts.length), json: JSON.stringify(texts) };
  }
  const values = parsedValues(field.text, datatype);
  return { name, datatype, shape: shapeFor(input, given, values.length), json: `[${values.join(",")}]` };
}

const ones = (dims) => dims.map((each) => Math.max(1, each));

function shapeFor(input, given, count) {
  if (product(given) === count) return given;
  const fitting = fittingShape(input.shape, count);
  if (product(fitting) === count) return fitting;
  throw new Error(`${input.name} has ${count} values, and the shape [${given.join(", ")}] holds ${product(given)}`);
}

function jsonTensor(input, text) {
  let values;
  try {
    values = JSON.parse(text);
  } catch (error) {
    throw new Error(`${input.name} is no JSON: ${error.message}`);
  }
  const shape = [];
  for (let inner = values; Array.isArray(inner); [inner] = inner) shape.push(inner.length);
  if (!shape.length) throw new Error(`${input.name} is to be a JSON array`);
  const flat = values.flat(Infinity);
  const isRight = shape.length === input.shape.length && product(shape) === flat.length;
  return { shape: isRight ? shape : shapeFor(input, shape, flat.length), json: JSON.stringify(flat) };
}

async function imageTensor(input, field) {
  const image = await createImageBitmap(field.file);
  const layout = imageLayout(input.shape);
  const { order, channels, height, width } = layout;
  const inner = { CHW: [channels, height, width], HWC: [height, width, channels], HW: [height, width] }[order];
  const shape = input.shape.length > inner.length ? [1, ...inner] : inner;
  return { shape, bytes: packed(drawnImage(image, layout, SCALES[field.scale]), input.datatype) };
}

function checkedParameters(text) {
  if (!text.trim()) return "";
  try {
    return JSON.stringify(JSON.parse(text));
  } catch (error) {
    throw new Error(`The parameters are no JSON: ${error.message}`);
  }
}

function Answer({ made }) {
  const { document, us } = made;
  return html`
    <h2>Answer</h2>
    <p class="note">Version ${document.model_version} answered within ${micros(us)}.</p>
    ${(document.outputs || []).map((output, at) => html`<${Output} at=${at} output=${output} key=${`${at}${us}`} />`)}
  `;
}

function Output({ at, output }) {
  const isText = output.datatype === "BYTES";
  const layout = isText ? null : imageLayout(output.shape);
  const isPicture = layout && layout.height >= 8 && layout.width >= 8;
  const [view, setView] = useState(isText ? "text" : isPicture ? "picture" : "table");
  const views = ["table", ...(isPicture ? ["picture"] : []), "text"];
  return html`
    <section class="card">
      <h3>${output.name} <span class="note">${output.datatype} [${output.shape.join(", ")}]</span></h3>
      <${Choice} id=${`view-${at}`} label="Shown as" value=${view} options=${views} onChoose=${setView} />
      ${view === "table" && html`<${Values} output=${output} />`}
      ${view === "picture" && html`<${Picture} output=${output} layout=${layout} />`}
      ${view === "text" && html`<pre tabindex="0" aria-label=${output.name}>${
        isText ? output.data.flat(Infinity).join("\n") : JSON.stringify(output.data)}</pre>`}
    </section>
  `;
}

function Values({ output }) {
  const flat = output.data.flat(Infinity);
  const width = output.shape.at(-1) || 1;
  const rows = [];
  for (let start = 0; start < flat.length && rows.length < MOST_ROWS; start += width) {
    rows.push(flat.slice(start, start + Math.min(width, MOST_COLUMNS)));
  }
  const isCut = flat.length > rows.length * width || width > MOST_COLUMNS;
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${`Values of ${output.name}`}><table>
      <thead><tr><td></td>${(rows[0] || []).map((_, at) => html`<th scope="col">${at}</th>`)}</tr></thead>
      <tbody>${rows.map((row, at) => html`<tr><th scope="row">${at}</th>
        ${row.map((value) => html`<td class="number">${shown(value)}</td>`)}</tr>`)}</tbody>
    </table></div>
    ${isCut && html`<p class="note">The first of ${flat.length} values; as text there are all.</p>`}
  `;
}

const shown = (value) =>
  typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)) : String(value);

function Picture({ output, layout }) {
  const canvas = useRef(null);
  useEffect(() => {
    const { order, channels, height, width } = layout;
    const flat = output.data.flat(Infinity);
    let low = Infinity;
    let high = -Infinity;
    for (const value of flat) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    const isBytes = low >= 0 && high > 1 && high <= 255;
    const from = isBytes || (low >= 0 && high <= 1) ? 0 : low;
    const to = isBytes ? 255 : from === 0 ? 1 : high;
    Object.assign(canvas.current, { width, height });
    const context = canvas.current.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let at = 0; at < height * width; at += 1) {
      for (let color = 0; color < 3; color += 1) {
        const channel = channels === 1 ? 0 : color;
        const place = order === "CHW" ? channel * height * width + at : at * channels + channel;
        pixels.data[at * 4 + color] = ((flat[place] - from) / (to - from || 1)) * 255;
      }
      pixels.data[at * 4 + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  }, [output]);
  return html`<canvas class="picture" ref=${canvas} role="img" aria-label=${`${output.name} as a picture`}></canvas>`;
}

function Spelled({ made }) {
  const { asked, path } = made;
  const texts = spelled(asked, path, Boolean(state.key));
  const [language, setLanguage] = useState("curl");
  const download = () => {
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(new Blob([asked.body])), download: "request.bin" });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return html`
    <h2>The request</h2>
    <div class="row">
      <${Choice} id="language" label="As" value=${language} options=${Object.keys(texts)} onChoose=${setLanguage} />
      ${typeof asked.body !== "string" && html`<button type="button" onClick=${download}>Save request.bin</button>`}
    </div>
    <${CopyText} text=${texts[language]} label=${`The request as ${language}`} />
  `;
}
