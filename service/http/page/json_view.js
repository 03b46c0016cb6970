// JSON that opens and closes, with every number as it was written; text stays text.

import { html, useMemo, useState } from "./vendor/preact.js";
import { ExactNumber, parseExact, textOf } from "./exact_json.js";
import { Copy } from "./parts.js";

const OPEN_AT_FIRST = 12; // entries; longer containers are closed at first
const SHOWN = 200; // entries at a time
const LONG_TEXT = 2_000; // characters

/** @param {{text: string, name: string}} properties a JSON text and what it is */
export function JsonText({ text, name }) {
  const value = useMemo(() => parseExact(text), [text]);
  return html`<section aria-label=${name}>
    <div class="row"><h3 class="grow">${name}</h3><${Copy} text=${text} /></div>
    <div class="json"><${Value} value=${value} /></div>
  </section>`;
}

/** @param {{value: any, name?: string}} properties */
export function Value({ value, name }) {
  const label = name === undefined ? null : html`<span class="key">${name}</span>: `;
  if (value instanceof Map || Array.isArray(value)) return html`<${Container} value=${value} label=${label} />`;
  return html`<div class="entry">${label}<${Scalar} value=${value} /></div>`;
}

/** @param {{value: any}} properties */
function Scalar({ value }) {
  const [whole, setWhole] = useState(false);
  if (value instanceof ExactNumber) return html`<span class="number">${value.text}</span>`;
  if (typeof value !== "string") return html`<span class="word">${String(value)}</span>`;
  if (value.length <= LONG_TEXT || whole) return html`<bdi class="text">${value}</bdi>`;
  return html`<bdi class="text">${value.slice(0, LONG_TEXT)}…</bdi>
    <button class="link" onClick=${() => setWhole(true)}>show all ${value.length} characters</button>`;
}

/** @param {{value: any, label: unknown}} properties */
function Container({ value, label }) {
  const entries = value instanceof Map ? [...value] : value.map((/** @type {any} */ each, /** @type {number} */ n) => [String(n), each]);
  const [open, setOpen] = useState(entries.length <= OPEN_AT_FIRST);
  const [shown, setShown] = useState(SHOWN);
  const [before, after] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  if (!entries.length) return html`<div class="entry">${label}${before}${after}</div>`;
  const glance = open ? "" : textOf(value).slice(0, 80);
  return html`<details open=${open} onToggle=${(/** @type {any} */ event) => setOpen(event.currentTarget.open)}>
    <summary>${label}${before} <span class="soft">${entries.length} ${entries.length === 1 ? "entry" : "entries"} ${glance}</span></summary>
    ${open && entries.slice(0, shown).map((/** @type {[string, any]} */ [key, each]) => html`<${Value} key=${key} name=${key} value=${each} />`)}
    ${open && shown < entries.length && html`<button class="link" onClick=${() => setShown(shown + SHOWN)}>show more</button>`}
    ${after}
  </details>`;
}
