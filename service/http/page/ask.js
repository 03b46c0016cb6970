// Asks an operator for a reason, then acts. The reason goes into the log and the audit trail.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { asCurl, post } from "./api.js";
import { Copy, Failure } from "./parts.js";

/**
 * @typedef {object} Action
 * @property {string} title what will happen
 * @property {string} path
 * @property {Record<string, unknown>} [body]
 * @property {boolean} [danger]
 */

/** @param {{action: Action, onDone: () => void}} properties */
export function Ask({ action, onDone }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const [reason, setReason] = useState("");
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const [busy, setBusy] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  const body = { ...action.body, ...(reason ? { reason } : {}) };
  const act = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await post(action.path, body);
      onDone();
    } catch (problem) {
      setError(/** @type {Error} */ (problem));
      setBusy(false);
    }
  };
  return html`<dialog ref=${dialog} onClose=${onDone} aria-labelledby="ask-title">
    <form onSubmit=${act} class="stack">
      <h2 id="ask-title">${action.title}</h2>
      <label>Reason, for the audit trail
        <textarea name="reason" maxlength="1000" autofocus value=${reason}
          onInput=${(/** @type {any} */ event) => setReason(event.currentTarget.value)}></textarea>
      </label>
      <${Failure} error=${error} />
      <div class="row">
        <button type="submit" class=${action.danger ? "danger" : "main"} disabled=${busy || !reason.trim()}>${action.title}</button>
        <button type="button" onClick=${() => dialog.current?.close()}>Cancel</button>
        <span class="grow"></span>
        <${Copy} text=${asCurl("POST", action.path, body)} label="copy as curl" />
      </div>
    </form>
  </dialog>`;
}
