// Small parts that every screen uses: a status, a time, a notice, a button that copies.

import { html, useEffect, useState } from "./vendor/preact.js";
import { exact, relative } from "./clock.js";
import { BAR_ORDER, classOf, glyphOf, progressOf } from "./statuses.js";

/** @param {{of: string}} properties */
export function Status({ of }) {
  return html`<span class="status ${classOf(of)}"><i aria-hidden="true">${glyphOf(of)}</i>${of}</span>`;
}

/** The time that is shown now; changes every second. */
export function useNow() {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) setNow(Date.now());
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

/** @param {{at: string | null, now: number}} properties */
export function When({ at, now }) {
  if (!at) return html`<span class="soft">–</span>`;
  return html`<time class="nowrap" datetime=${at} title=${exact(at)}>${relative(at, now)}</time>`;
}

/** @param {{counts: Record<string, number>}} properties */
export function Progress({ counts }) {
  const { ended, total } = progressOf(counts);
  const parts = BAR_ORDER.filter((status) => counts[status]);
  const told = parts.map((status) => `${counts[status]} ${status}`).join(", ");
  return html`<span class="row" title=${told}>
    <span class="progress" role="img" aria-label=${told}>
      ${parts.map((status) => html`<span class=${classOf(status)} style=${{ flex: counts[status] }}></span>`)}
    </span>
    <span class="soft nowrap">${ended}/${total}</span>
  </span>`;
}

/**
 * Browsers have a clipboard for pages of HTTPS and of loopback; elsewhere a selection is copied.
 * @param {string} text
 */
async function isCopied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

/** @param {{text: string, label?: string}} properties */
export function Copy({ text, label = "copy" }) {
  const [said, setSaid] = useState("");
  const copy = async () => {
    setSaid((await isCopied(text)) ? "copied" : "cannot copy");
    setTimeout(() => setSaid(""), 1500);
  };
  return html`<button class="link" onClick=${copy} title=${text}>${said || label}</button>`;
}

/** @param {{error: (Error & {code?: string}) | null}} properties */
export function Failure({ error }) {
  if (!error) return null;
  return html`<p class="notice is-error" role="alert">${error.message}${error.code ? html` <code>${error.code}</code>` : null}</p>`;
}
