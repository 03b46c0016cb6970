// The tasks of a plan as a table, narrowed by status and text.

import { html, useState } from "./vendor/preact.js";
import { Status, When } from "./parts.js";
import { glyphOf, TASK_STATUSES } from "./statuses.js";

const PAGE = 100;

/** @typedef {import("./types.js").Task} Task */

/** @param {{tasks: Task[], now: number, query: Record<string, string>, set: (change: Record<string, string | null>) => void}} properties */
export function TaskTable({ tasks, now, query, set }) {
  const [shown, setShown] = useState(PAGE);
  const [text, setText] = useState("");
  const found = tasks.filter((task) =>
    (!query.only || task.status === query.only) &&
    (!text || `${task.task_id} ${task.kind} ${task.owner ?? ""} ${task.error_type ?? ""}`.toLowerCase().includes(text.toLowerCase())));
  const count = (/** @type {string} */ status) => tasks.reduce((n, task) => n + (task.status === status ? 1 : 0), 0);
  return html`<div class="stack">
    <div class="chips" role="group" aria-label="Status of tasks">
      ${TASK_STATUSES.filter(count).map((status) => html`<button class="chip" aria-pressed=${query.only === status} onClick=${() => set({ only: query.only === status ? null : status })}>${glyphOf(status)} ${status} ${count(status)}</button>`)}
      <input type="search" aria-label="Task, kind, owner or error" placeholder="task, kind, owner or error" value=${text} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} />
    </div>
    <div class="scroll" tabindex="0" role="region" aria-label="Tasks"><table class="table">
      <thead><tr><th scope="col">Task</th><th scope="col">Status</th><th scope="col">Attempt</th><th scope="col" class="minor">Retries</th><th scope="col" class="minor">Owner</th><th scope="col">Changed</th></tr></thead>
      <tbody>${found.slice(0, shown).map((task) => html`<tr key=${task.task_id} class=${query.task === task.task_id ? "is-chosen" : ""}>
        <td><button class="link" onClick=${() => set({ task: task.task_id })}>${task.task_id}</button><div class="soft"><bdi>${task.kind}</bdi></div></td>
        <td><${Status} of=${task.status} />${task.error_type && html`<div class="soft"><bdi>${task.error_type}</bdi></div>`}</td>
        <td>${task.attempt}</td><td class="minor">${task.retry} of ${task.max_retries}</td>
        <td class="minor"><bdi>${task.owner ?? "–"}</bdi></td>
        <td><${When} at=${task.updated_at} now=${now} /></td>
      </tr>`)}</tbody>
    </table></div>
    ${found.length > shown && html`<div><button onClick=${() => setShown(shown + PAGE)}>Show ${PAGE} more of ${found.length - shown}</button></div>`}
    ${!found.length && html`<p class="empty">No task fits.</p>`}
  </div>`;
}
