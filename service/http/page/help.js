// The keys of the page.

import { html, useEffect, useRef } from "./vendor/preact.js";

const KEYS = /** @type {const} */ ([
  ["/", "search plans"], ["j k", "next, previous plan"], ["Enter", "open the plan"],
  ["u", "back to the list"], ["1 2 3 4", "graph, timeline, tasks, events"],
  ["Esc", "close the task"], ["p", "pause live updates"], ["?", "this list"],
]);

/** @param {{onDone: () => void}} properties */
export function Help({ onDone }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => dialog.current?.showModal(), []);
  return html`<dialog ref=${dialog} onClose=${onDone} aria-label="Keys" class="stack">
    <h2>Keys</h2>
    <dl class="facts">${KEYS.map(([key, what]) => html`<dt>${key.split(" ").map((each) => html`<kbd>${each}</kbd> `)}</dt><dd>${what}</dd>`)}</dl>
    <div><button autofocus onClick=${() => dialog.current?.close()}>Close</button></div>
  </dialog>`;
}
