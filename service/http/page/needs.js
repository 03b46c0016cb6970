// "Needs you": the doctor's findings, each with its evidence and the command that looks closer.

import { html, useState } from "./vendor/preact.js";
import { Ask } from "./ask.js";
import { Copy } from "./parts.js";
import { hashOf } from "./route.js";

/** @typedef {import("./types.js").Finding} Finding */
/** @typedef {import("./types.js").RefusedWrite} RefusedWrite */

/** @param {{report: any, paused: any[]}} properties the doctor's report and the plans that are paused */
export function Needs({ report, paused }) {
  const [action, setAction] = useState(/** @type {import("./ask.js").Action | null} */ (null));
  if (!report) return null;
  const findings = /** @type {Finding[]} */ (report.findings);
  if (!findings.length && !paused.length) {
    return html`<section class="card needs is-well" aria-label="Needs you">
      <b>✓ Nothing needs you.</b> <span class="soft">The doctor answers all of its questions with yes.</span>
    </section>`;
  }
  const worst = findings.some((each) => each.severity === "critical") ? "is-critical" : "";
  return html`<section class="card needs ${worst}" aria-label="Needs you">
    <h2>Needs you</h2>
    ${findings.map((each, n) => html`<${One} key=${each.code + each.summary} finding=${each} first=${n === 0} />`)}
    ${paused.length > 0 && html`<div class="finding">
      <h3>‖ ${paused.length === 1 ? "1 plan is" : `${paused.length} plans are`} paused</h3>
      ${paused.slice(0, 10).map((plan) => html`<div class="row" key=${plan.plan_id}>
        <a href=${hashOf(["plans", plan.plan_id])}><bdi>${plan.name || plan.plan_id}</bdi></a>
        <button onClick=${() => setAction({ title: "Resume", path: `/v1/plans/${plan.plan_id}/resume` })}>Resume</button>
      </div>`)}
    </div>`}
    ${action && html`<${Ask} action=${action} onDone=${() => setAction(null)} />`}
  </section>`;
}

/**
 * A finding: the first one open, the others in a line each, so that the plans below stay in sight.
 * @param {{finding: Finding, first: boolean}} properties
 */
function One({ finding, first }) {
  const [wish, setWish] = useState(/** @type {boolean | null} */ (null));
  const [open, setOpen] = useState(false);
  const unfolded = wish ?? first;
  const writes = writesOf(finding.evidence);
  const places = writes.length ? [] : links(finding.evidence); // a write has its own
  const glyph = finding.severity === "critical" ? "✕" : finding.severity === "warning" ? "⚠" : "?";
  return html`<div class="finding">
    <h3><button class="link fold" aria-expanded=${unfolded} onClick=${() => setWish(!unfolded)}><span class="mark" aria-hidden="true">${unfolded ? "▾" : "▸"}</span> ${glyph} ${finding.summary}</button></h3>
    ${unfolded && html`<p class="soft">${finding.meaning}</p>`}
    ${writes.map((write) => html`<${Refused} key=${write.audit_sequence} write=${write} />`)}
    ${places.length > 0 && html`<div class="chips">${places.map(([name, href]) => html`<a class="chip" href=${href}><bdi>${name}</bdi></a>`)}</div>`}
    ${unfolded && html`<div class="command"><code>${finding.command}</code><${Copy} text=${finding.command} /></div>
    <div class="row small">
      <button class="link" aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "hide" : "show"} the evidence</button>
      ${finding.runbook?.startsWith("http") && html`<a href=${finding.runbook} rel="noreferrer">runbook</a>`}
      <span class="soft">${finding.code}</span>
    </div>`}
    ${unfolded && open && html`<pre>${JSON.stringify(finding.evidence, null, 2)}</pre>`}
  </div>`;
}

/**
 * A refused write: whose claim it was made under, and whose claim counts.
 * @param {{write: RefusedWrite}} properties
 */
function Refused({ write }) {
  const place = { plan_id: write.plan_id, task_id: write.task_id };
  const claim = (/** @type {string | null} */ owner, /** @type {number | null} */ attempt, /** @type {number | null} */ sequence) => {
    const said = html`<bdi>${owner ?? "another"}</bdi>${attempt ? `, attempt ${attempt}` : ""}`;
    return sequence ? html`<a href=${hashOf(["plans", write.plan_id], { task: write.task_id, at: sequence })} title="The plan as of this claim">${said} (claim ${sequence})</a>` : said;
  };
  return html`<div class="row refused">
    <a href=${hashOf(["audit"], { event: write.event, ...place })}><bdi>${write.plan_id}/${write.task_id}</bdi></a>
    <span>written by ${claim(write.old_owner, write.old_attempt, write.old_claim_sequence)},</span>
    <span>held by ${claim(write.new_owner, write.new_attempt, write.new_claim_sequence)}</span>
  </div>`;
}

const MOST_WRITES = 5;

/**
 * The refused writes that evidence names, some of them.
 * @param {any} evidence
 * @returns {RefusedWrite[]}
 */
export function writesOf(evidence) {
  const writes = Array.isArray(evidence?.writes) ? evidence.writes : [];
  return writes.filter((/** @type {any} */ each) => each?.audit_sequence).slice(0, MOST_WRITES);
}

/**
 * Links to the plans and tasks that evidence names, wherever they stand in it.
 * @param {unknown} evidence
 * @returns {[string, string][]}
 */
export function links(evidence) {
  /** @type {Map<string, string>} */
  const found = new Map();
  const walk = (/** @type {any} */ value, depth = 0) => {
    if (!value || typeof value !== "object" || depth > 6 || found.size >= 10) return;
    if (typeof value.plan_id === "string") {
      const task = typeof value.task_id === "string" ? value.task_id : null;
      const name = task ? `${value.plan_id}/${task}` : value.plan_id;
      found.set(name, hashOf(["plans", value.plan_id], { task }));
    }
    for (const each of Object.values(value)) walk(each, depth + 1);
  };
  walk(evidence);
  return [...found];
}
