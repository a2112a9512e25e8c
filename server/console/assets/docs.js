// The OpenAPI document of this server, for people.

import { html, render, useMemo, useState } from "./vendor/preact.js";
import { askFor, Connection, CopyText, Entry, Failure, KeyForm, useConnection, usePolled } from "./widgets.js";

const DEEP = 6;

function Docs() {
  useConnection();
  const { data, error } = usePolled(askFor("/openapi.json"), 0);
  const [text, setText] = useState("");
  const groups = useMemo(() => grouped(data, text.toLowerCase()), [data, text]);
  return html`
    <header>
      <a class="mark" href="/">trivet</a>
      <nav aria-label="Pages"><a href="/">Console</a><a href="/docs" aria-current="page">API</a><a href="/openapi.json">openapi.json</a></nav>
      <details class="menu"><summary>Key</summary><div class="sheet"><${KeyForm} /></div></details>
      <button type="button" class="plain" onClick=${() => globalThis.toggleTheme()}>Light or dark</button>
    </header>
    <main id="main">
      <${Connection} />
      <h1>API</h1>
      <${Failure} error=${error} />
      ${data && html`<p>${data.info.description} Version ${data.info.version}.</p>
        <div class="row"><${Entry} id="search" label="Search" type="search" value=${text} onText=${setText} /></div>`}
      ${groups.map(([tag, rows]) => html`
        <h2 id=${tag}>${tag}</h2>
        ${rows.map((row) => html`<${Operation} key=${row.operation.operationId} row=${row} document=${data} />`)}`)}
      ${data && !groups.length && html`<p>Nothing has "${text}".</p>`}
    </main>
  `;
}

function grouped(document, wanted) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(document?.paths || {})) {
    for (const [method, operation] of Object.entries(methods)) {
      if (!`${method} ${path} ${operation.summary}`.toLowerCase().includes(wanted)) continue;
      const tag = operation.tags[0];
      groups.set(tag, [...(groups.get(tag) || []), { path, method: method.toUpperCase(), operation }]);
    }
  }
  return [...groups];
}

function Operation({ row, document }) {
  const [isOpen, setOpen] = useState(false);
  const { method, path, operation } = row;
  return html`
    <details class="card operation" onToggle=${(event) => setOpen(event.target.open)}>
      <summary><span class=${`method ${method}`}>${method}</span> <code>${path}</code> <span class="note">${operation.summary}</span></summary>
      ${isOpen && html`<${Details} row=${row} document=${document} />`}
    </details>
  `;
}

function Details({ row, document }) {
  const { operation } = row;
  const body = operation.requestBody?.content["application/json"]?.schema;
  return html`
    <p>${operation.description}</p>
    ${operation.parameters.length > 0 && html`<h3>In path and query</h3><table>
      <thead><tr><th scope="col">Name</th><th scope="col">In</th><th scope="col">Type</th></tr></thead>
      <tbody>${operation.parameters.map((each) => html`<tr><td><code>${each.name}</code></td><td>${each.in}</td><td>${typeOf(each.schema)}</td></tr>`)}</tbody></table>`}
    ${body && html`<h3>Body</h3>
      ${Object.keys(operation.requestBody.content).length > 1 && html`<p class="note">Also ${Object.keys(operation.requestBody.content).slice(1).join(", ")}.</p>`}
      <${Schema} schema=${body} document=${document} depth=${0} />`}
    <h3>Answers</h3>
    <ul>${Object.entries(operation.responses).map(([status, answer]) => html`<li><b>${status}</b> ${answer.description}
      ${answer.content && html` <span class="note">${Object.keys(answer.content).join(", ")}</span>`}</li>`)}</ul>
    <h3>With curl</h3>
    <${CopyText} label="curl" text=${curl(row, body)} />
  `;
}

function resolved(schema, document) {
  const name = schema?.$ref?.split("/").at(-1);
  return name ? { title: name, ...document.components.schemas[name] } : schema;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  const any = schema.anyOf || schema.oneOf;
  if (any) return any.map(typeOf).join(" or ");
  if (schema.type === "array") return `array of ${typeOf(schema.items) || "anything"}`;
  return [schema.type].flat().join(" or ") || "anything";
}

function Schema({ schema, document, depth }) {
  const found = resolved(schema, document);
  const properties = Object.entries(found?.properties || {});
  if (!properties.length || depth > DEEP) return html`<p class="note">${found?.description || typeOf(schema)}</p>`;
  return html`
    ${found.description && depth === 0 && html`<p class="note">${found.description}</p>`}
    <dl class="schema">${properties.map(([name, each]) => html`
      <dt><code>${name}</code> <span class="note">${typeOf(each)}${(found.required || []).includes(name) ? ", required" : ""}
        ${each.default !== undefined && each.default !== null ? `, default ${JSON.stringify(each.default)}` : ""}</span></dt>
      <dd>${each.description && html`<p>${each.description}</p>`}<${Inner} schema=${each} document=${document} depth=${depth} /></dd>`)}</dl>
  `;
}

function Inner({ schema, document, depth }) {
  const [isOpen, setOpen] = useState(false);
  const options = [schema, schema.items, ...(schema.anyOf || []), ...(schema.oneOf || []), ...(schema.anyOf || []).map((each) => each.items)];
  const inner = options.find((each) => each && resolved(each, document)?.properties);
  if (!inner) return null;
  return html`<details onToggle=${(event) => setOpen(event.target.open)}><summary>${typeOf(inner)}</summary>
    ${isOpen && html`<${Schema} schema=${inner} document=${document} depth=${depth + 1} />`}</details>`;
}

function curl({ method, path, operation }, body) {
  const key = operation.security?.length ? ' \\\n  -H "Authorization: Bearer $TRIVET_KEY"' : "";
  const way = method === "GET" || (method === "POST" && body) ? "" : ` -X ${method}`;
  const data = body ? " \\\n  -H 'Content-Type: application/json' \\\n  -d '{}'" : "";
  return `curl${way} '${location.origin}${path}'${key}${data}`;
}

render(html`<${Docs} />`, document.getElementById("app"));
