// The events of a plan with their log sequences: raw or compact, narrowed, downloaded as NDJSON.

import { html, useEffect, useMemo, useState } from "./vendor/preact.js";
import { exact } from "./clock.js";
import { textOf } from "./exact_json.js";
import { Value } from "./json_view.js";
import { exactData } from "./log_event.js";
import { Failure } from "./parts.js";
import { replay } from "./replay.js";

const PAGE = 200;
const MOST = 50_000;

/** @typedef {import("./types.js").LogEvent} LogEvent */

/** @param {{plan: string, at: number | null, fresh: LogEvent[], missed: number}} properties `at`: none later */
export function EventList({ plan, at, fresh, missed }) {
  const [events, setEvents] = useState(/** @type {LogEvent[]} */ ([]));
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const [text, setText] = useState("");
  const [raw, setRaw] = useState(false);
  const [shown, setShown] = useState(PAGE);
  const add = (/** @type {LogEvent[]} */ part) => setEvents((before) => joined(before, part));
  useEffect(() => setEvents([]), [plan]);
  useEffect(() => {
    const stop = new AbortController();
    replay({ plan }, add, stop.signal).catch((problem) => stop.signal.aborted || setError(problem));
    return () => stop.abort();
  }, [plan, missed]);
  useEffect(() => {
    if (fresh.length) add(fresh);
  }, [fresh]);
  const found = events.filter((event) => (at === null || event.sequence <= at) && (!text || `${event.type} ${event.task_id ?? ""} ${event.sequence}`.includes(text)));
  return html`<div class="stack">
    <div class="row">
      <input type="search" aria-label="Type, task or sequence" placeholder="type, task or sequence" value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} />
      <label class="row"><input type="checkbox" checked=${raw} onChange=${() => setRaw(!raw)} /> raw</label>
      <span class="grow soft">${found.length} events</span>
      <button onClick=${() => download(plan, found)}>Download NDJSON</button>
    </div>
    <${Failure} error=${error} />
    <div class="scroll" tabindex="0" role="region" aria-label="Events"><table class="table">
      <thead><tr><th scope="col">Sequence</th><th scope="col">Time</th><th scope="col">Type</th><th scope="col">Task</th><th scope="col">Data</th></tr></thead>
      <tbody>${found.slice(-shown).toReversed().map((event) => html`<${Row} key=${event.sequence} event=${event} raw=${raw} />`)}</tbody>
    </table></div>
    ${found.length > shown && html`<div><button onClick=${() => setShown(shown + PAGE)}>Show ${PAGE} older</button></div>`}
  </div>`;
}

/**
 * Two lists in the order of the log, each event once.
 * @param {LogEvent[]} before
 * @param {LogEvent[]} part in order
 */
export function joined(before, part) {
  const last = before.length ? before[before.length - 1].sequence : 0;
  if (!part.length) return before;
  if (part[0].sequence > last) return [...before, ...part].slice(-MOST);
  const all = new Map([...before, ...part].map((event) => [event.sequence, event]));
  return [...all.values()].sort((a, b) => a.sequence - b.sequence).slice(-MOST);
}

/** @param {{event: LogEvent, raw: boolean}} properties */
function Row({ event, raw }) {
  const data = useMemo(() => exactData(event), [event]);
  const brief = useMemo(() => glance(data), [data]);
  return html`<tr>
    <td class="mono">${event.sequence}</td><td class="nowrap" title=${exact(event.at)}>${exact(event.at).slice(11, 23)}</td>
    <td class="nowrap">${event.type}</td><td>${event.task_id ?? ""}</td>
    <td class="mono">${raw ? html`<div class="json"><${Value} value=${data} /></div>` : brief}</td>
  </tr>`;
}

/** @param {Map<string, any>} data of an event */
function glance(data) {
  const { owner, attempt } = Object.fromEntries(data);
  const who = owner ? `${owner}${attempt ? ` #${textOf(attempt)}` : ""} ` : "";
  const telling = [...data].filter(([name, value]) => name !== "owner" && name !== "attempt" && value !== null && value !== false && value !== "");
  const text = textOf(new Map(telling));
  return html`<bdi>${who}${text === "{}" ? "" : text.slice(0, 120)}${text.length > 120 ? "…" : ""}</bdi>`;
}

/** @param {string} plan @param {LogEvent[]} events */
function download(plan, events) {
  const lines = events.map((event) => `${event.line}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${plan}.ndjson`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
