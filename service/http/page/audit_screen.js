// The audit trail, newest first; a refused write shows what was expected and what was.

import { html, useEffect, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { Failure, useNow, When } from "./parts.js";
import { hashOf } from "./route.js";

const PAGE = 50;

/** @typedef {import("./types.js").AuditEntry} AuditEntry */

/** @param {{query: Record<string, string>}} properties */
export function AuditScreen({ query }) {
  const now = useNow();
  const [state, setState] = useState(/** @type {{items: AuditEntry[], next: string | null, error: Error | null}} */ ({ items: [], next: null, error: null }));
  const key = JSON.stringify(query);
  const read = async (/** @type {string | null} */ after) => {
    try {
      const told = await get("/v1/audit", { ...query, limit: PAGE, after });
      setState((before) => ({ items: after ? [...before.items, ...told.items] : told.items, next: told.next, error: null }));
    } catch (error) {
      setState((before) => ({ ...before, error: /** @type {Error} */ (error) }));
    }
  };
  useEffect(() => {
    read(null);
  }, [key]);
  const set = (/** @type {Record<string, string>} */ change) => {
    location.hash = hashOf(["audit"], { ...query, ...change });
  };
  const field = (/** @type {string} */ name, /** @type {string} */ label) => html`<input aria-label=${label} placeholder=${label} value=${query[name] ?? ""} onChange=${(/** @type {any} */ event) => set({ [name]: event.currentTarget.value.trim() })} />`;
  return html`<section class="card stack">
    <h1>Audit</h1>
    <div class="row">${field("event", "event")}${field("plan_id", "plan")}${field("task_id", "task")}${field("owner", "owner")}<button onClick=${() => read(null)}>Read again</button></div>
    <${Failure} error=${state.error} />
    <div class="scroll" tabindex="0" role="region" aria-label="Audit entries"><table class="table">
      <thead><tr><th scope="col">When</th><th scope="col">Event</th><th scope="col">Plan and task</th><th scope="col">Owner</th><th scope="col">What happened</th></tr></thead>
      <tbody>${state.items.map((entry) => html`<tr key=${entry.sequence}>
        <td><${When} at=${entry.at} now=${now} /></td>
        <td><button class="link" onClick=${() => set({ event: entry.event })}>${entry.event}</button></td>
        <td>${entry.plan_id && html`<a href=${hashOf(["plans", entry.plan_id], { task: entry.task_id })}>${entry.plan_id}${entry.task_id ? `/${entry.task_id}` : ""}</a>`}</td>
        <td><bdi>${entry.owner ?? ""}</bdi>${entry.attempt ? ` #${entry.attempt}` : ""}</td>
        <td>${entry.detail && html`<bdi>${entry.detail}</bdi>`}<${Difference} entry=${entry} /></td>
      </tr>`)}</tbody>
    </table></div>
    ${!state.items.length && !state.error && html`<p class="empty">No entry fits.</p>`}
    ${state.next && html`<div><button onClick=${() => read(state.next)}>Show ${PAGE} more</button></div>`}
  </section>`;
}

/** A value in words: `owner w, attempt 1`. @param {any} value */
function told(value) {
  if (typeof value !== "object") return html`<code>${JSON.stringify(value)}</code>`;
  const known = Object.entries(value).filter(([, each]) => each !== null && each !== "");
  return known.map(([name, each], n) => html`${n ? ", " : ""}<span class="soft">${name}</span> <bdi>${typeof each === "object" ? JSON.stringify(each) : String(each)}</bdi>`);
}

/** @param {{entry: AuditEntry}} properties */
function Difference({ entry }) {
  const side = (/** @type {any} */ value) => {
    const sequence = value?.claim_sequence ?? value?.sequence;
    const link = sequence && entry.plan_id ? hashOf(["plans", entry.plan_id], { at: sequence, task: entry.task_id }) : null;
    return html`${told(value)}${link && html` <a href=${link}>as of ${sequence}</a>`}`;
  };
  if (entry.expected == null && entry.actual == null) return null;
  return html`<dl class="facts">
    ${entry.expected != null && html`<dt>expected</dt><dd>${side(entry.expected)}</dd>`}
    ${entry.actual != null && html`<dt>actual</dt><dd>${side(entry.actual)}</dd>`}
  </dl>`;
}
